"""Makes a web site of the project's own documentation: every page as HTML, in a folder that `colla deploy` takes.

    python3 build.py [INTO]

The pages keep their places, so that links between them hold: `docs/how-to/index.md` becomes `docs/how-to/index.html`. What a page
links to that is no page (the licence, an API's document) is copied along as text. Markdown is read by markdown-it-py, which is there wherever
colla is.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
SECTIONS = {"docs/tutorial": "Tutorial", "docs/how-to": "How-to guides", "docs/reference": "Reference"}
SECTIONS |= {"docs/explanation": "Explanation", "docs/decisions": "Decisions", "examples": "Examples"}
ELSEWHERE = re.compile(r"[a-z]+:|//|#")
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<link rel="stylesheet" href="{up}style.css">
<nav><a class="name" href="{up}index.html">colla</a>{sections}</nav>
<main>
{content}</main>
</html>
"""


def pages() -> list[Path]:
    """All pages, relative to the root of the project."""
    found = [ROOT / name for name in TOP]
    found += [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
        ROOT / "examples/README.md",
    ]
    return sorted({page.relative_to(ROOT) for page in found if page.exists()})


def place(page: Path) -> Path:
    """Where a page comes to stand. A README is the index of its folder."""
    return page.with_name("index.html") if page.name == "README.md" else page.with_suffix(".html")


def slug(text: str, taken: dict[str, int]) -> str:
    """The anchor of a heading, as links in Markdown take it: GitHub's way."""
    found = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    taken[found] = taken.get(found, -1) + 1
    return f"{found}-{taken[found]}" if taken[found] else found


class Site:
    """The folder as it grows."""

    def __init__(self, into: Path) -> None:
        self._into = into
        self._markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
        self._places = {page: place(page) for page in pages()}

    def build(self) -> None:
        """Write all of it."""
        shutil.rmtree(self._into, ignore_errors=True)
        for page, target in self._places.items():
            (self._into / target).parent.mkdir(parents=True, exist_ok=True)
            (self._into / target).write_text(self._render(page), "utf-8")
        shutil.copyfile(HERE / "style.css", self._into / "style.css")
        missing = self._frame(Path("404.html"), "Nothing here", "<h1>There is no such page.</h1>\n")
        # It is shown at every depth, so that its own links begin at the top.
        (self._into / "404.html").write_text(re.sub(r'href="(?!/)', 'href="/', missing), "utf-8")

    def _render(self, page: Path) -> str:
        tokens = self._markdown.parse((ROOT / page).read_text("utf-8"))
        headings = list(_headings(tokens))
        for token in _all(tokens):
            href = token.attrs.get("href")
            if token.type == "link_open" and isinstance(href, str) and not ELSEWHERE.match(href):
                token.attrs["href"] = self._link(page, href)
        content = self._markdown.renderer.render(tokens, self._markdown.options, {})
        return self._frame(self._places[page], headings[0] if headings else page.stem, content)

    def _link(self, page: Path, href: str) -> str:
        """The link as it is in the site."""
        path, _, anchor = href.partition("#")
        wanted = Path(os.path.normpath(page.parent / path))
        if (ROOT / wanted).is_dir():
            wanted /= "README.md"
        target = self._places.get(wanted)
        if target is None:
            if not (ROOT / wanted).is_file():
                sys.exit(f"{page}: {href} leads nowhere.")
            target = wanted.with_name(f"{wanted.name}.txt")
            (self._into / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / wanted, self._into / target)
        relative = os.path.relpath(target, self._places[page].parent)
        return f"{relative}#{anchor}" if anchor else relative

    def _frame(self, target: Path, title: str, content: str) -> str:
        up = "../" * len(target.parent.parts)
        known = self._places.values()
        sections = "".join(
            f'<a href="{up}{folder}/index.html">{name}</a>'
            for folder, name in SECTIONS.items()
            if Path(folder, "index.html") in known
        )
        return PAGE.format(title=html.escape(title), up=up, sections=sections, content=content)


def _all(tokens: Iterable[Token]) -> Iterable[Token]:
    for token in tokens:
        yield token
        yield from _all(token.children or ())


def _headings(tokens: list[Token]) -> Iterable[str]:
    """Give every heading its anchor; their texts."""
    taken: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            text = "".join(
                one.content for one in inline.children or () if one.type in ("text", "code_inline")
            )
            opening.attrs["id"] = slug(text, taken)
            yield text


if __name__ == "__main__":
    Site(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "public").build()
