"""What the demo deploys: a web site of a few hundred files, and a Python program that says which replica answered."""

from __future__ import annotations

import random
from pathlib import Path

from colla.model.errors import CollaError

SITE_PAGES = 240
SITE_PICTURES = 60
PATHS_MAX = 400
"""So many files of a site are asked for in turn."""
FILE_BYTES_MAX = 256 * 1024
"""Larger files are not asked for: zero failed requests is promised for answers up to this size."""
WORDS = (
    "we",
    "keep",
    "what",
    "we",
    "share",
    "among",
    "friends",
    "on",
    "our",
    "own",
    "computers",
    "at",
    "home",
)

APP = '''\
"""A web application of the standard library: which replica of it answered, and how often that one did."""

import itertools
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COUNT = itertools.count(1)
REPLICA = os.environ.get("COLLA_REPLICA", "?")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"replica": REPLICA, "answers": next(COUNT), "greeting": os.environ.get("GREETING")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])
    ThreadingHTTPServer(address, Handler).serve_forever()
'''


def write_site(folder: Path, pages: int = SITE_PAGES, pictures: int = SITE_PICTURES) -> None:
    """A site with an index, pages that link to each other, and pictures."""
    chance = random.Random(1)
    (folder / "pages").mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "style.css").write_text("body { font-family: sans-serif; max-width: 40em; margin: 2em auto }\n")
    for number in range(pictures):
        (folder / "pictures" / f"{number}.svg").write_text(_picture(chance))
    for number in range(pages):
        text = " ".join(chance.choices(WORDS, k=chance.randint(200, 900)))
        body = f'<p>{text}.</p><img src="../pictures/{number % pictures}.svg" alt="">'
        links = f'<a href="{(number + 1) % pages}.html">next</a> <a href="../index.html">all</a>'
        (folder / "pages" / f"{number}.html").write_text(
            _page(f"Page {number}", body + links, "../style.css")
        )
    listed = "".join(f'<li><a href="pages/{number}.html">Page {number}</a>' for number in range(pages))
    (folder / "index.html").write_text(_page("Our site", f"<ul>{listed}</ul>", "style.css"))


def _page(title: str, body: str, style: str) -> str:
    head = f'<meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="{style}">'
    return f"<!doctype html><html><head>{head}</head><body><h1>{title}</h1>{body}</body></html>\n"


def _picture(chance: random.Random) -> str:
    circles = "".join(
        f'<circle cx="{chance.randint(0, 400)}" cy="{chance.randint(0, 200)}" r="{chance.randint(5, 50)}" '
        f'fill="hsl({chance.randint(0, 360)},70%,60%)"/>'
        for _ in range(40)
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200">{circles}</svg>\n'


def write_app(folder: Path) -> None:
    """The program with its Procfile."""
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "Procfile").write_text("web: python3 app.py\n")


def site_paths(folder: Path) -> dict[str, Path]:
    """Paths on the site that are asked for, with the files that they shall answer.

    Raises `CollaError("folder_empty")` when the folder has nothing that can be asked for.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size <= FILE_BYTES_MAX and not path.is_symlink():
            found[f"/{path.relative_to(folder).as_posix()}"] = path
        if len(found) >= PATHS_MAX:
            break
    if not found:
        raise CollaError("folder_empty", f"{folder} has no files of up to 256 KiB.", "Choose another folder.")
    return found
