"""The documentation as a web site: every page is there, and every link of the site leads to one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[3]


class Page(HTMLParser):
    """Where a page links to, and which anchors it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.anchors.add(value)
            if value and name == "href" and not value.startswith(("http:", "https:", "mailto:")):
                self.links.append(unquote(value))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("website") / "site"
    subprocess.run([sys.executable, str(ROOT / "examples/website/build.py"), str(site)], check=True)
    return site


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def links(pages: dict[str, Page]) -> Iterator[tuple[str, str, str, str]]:
    """Page, link, the file it leads to, the anchor there."""
    for name, page in pages.items():
        for link in page.links:
            path, _, anchor = link.partition("#")
            target = os.path.normpath(Path(name).parent / path) if path else name
            yield name, link, path.lstrip("/") if path.startswith("/") else target, anchor


def test_every_page_is_there_and_every_link_leads_to_one(site: Path, pages: dict[str, Page]) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT).with_suffix(".html").as_posix() in pages
    assert [
        f"{name}: {link}" for name, link, target, _ in links(pages) if not (site / target).is_file()
    ] == []
    # The page for what is missing is shown at every depth.
    assert 'href="/style.css"' in (site / "404.html").read_text("utf-8")


@pytest.mark.slow  # Whoever renames a heading hears of it in the long run, not in everybody's.
def test_every_anchor_is_a_heading(pages: dict[str, Page]) -> None:
    anchored = [one for one in links(pages) if one[3] and one[2] in pages]
    assert anchored
    assert [
        f"{name}: {link}" for name, link, target, anchor in anchored if anchor not in pages[target].anchors
    ] == []
