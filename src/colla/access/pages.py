"""The few pages that the gateway writes itself: its front page, and what it says when no replica answers.

Pure text. Invariant: everything from outside is escaped, and no page runs a script or loads anything.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

import msgspec

from colla.access.interface import ListedService

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#677084;--line:#dfe3ea;--page:#f6f7f9;--card:#fff;--on:#1a8f5a;
--part:#b9770b;--off:#9aa3b2;--link:#2457c5}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b5;--line:#2b3240;--page:#12151b;--card:#1a1f28;
--on:#46c98b;--part:#e0a642;--off:#5c6577;--link:#8ab0ff}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:44rem;margin:0 auto;padding:3.5rem 1.25rem}h1{font-size:1.6rem;line-height:1.25;margin:0 0 .4rem}
p{margin:.4rem 0;color:var(--soft)}ul{list-style:none;margin:1.6rem 0 0;padding:0;background:var(--card);
border:1px solid var(--line);border-radius:12px;overflow:hidden}li+li{border-top:1px solid var(--line)}
li a{display:flex;gap:.9rem;align-items:baseline;padding:.85rem 1.1rem;color:inherit;text-decoration:none}
li a:hover,li a:focus-visible{background:var(--page)}.name{font-weight:600;color:var(--link)}
.about{flex:1;min-width:0;color:var(--soft);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.count{color:var(--soft);font-variant-numeric:tabular-nums;white-space:nowrap}
.dot{width:.6rem;height:.6rem;border-radius:50%;background:var(--off);flex:none;align-self:center}
.dot.on{background:var(--on)}.dot.part{background:var(--part)}
.tag{font-size:.78rem;border:1px solid var(--line);border-radius:99px;padding:.05rem .5rem;color:var(--soft)}
details{margin-top:1.6rem;color:var(--soft)}code{font-size:.92em}footer{margin-top:2.4rem;font-size:.85rem;
color:var(--soft)}
"""


class Notice(msgspec.Struct, frozen=True):
    """What the gateway says instead of a service. `code` is for programs, the rest for people."""

    status: int
    code: str
    title: str
    text: str
    hint: str = ""
    details: tuple[str, ...] = ()
    retry_after_s: int | None = None


def front_page(services: Sequence[ListedService], port: int, suffix: str = "localhost") -> str:
    """The page that lists a group's services, as HTML."""
    rows = "".join(_row(service, port, suffix) for service in sorted(services, key=lambda one: one.name))
    if rows:
        body = f"<h1>Services of your group</h1><p>Each runs on computers that members contribute.</p><ul>{rows}</ul>"
    else:
        body = (
            "<h1>No services yet</h1><p>Deploy a folder, and it appears here:</p>"
            "<p><code>colla deploy FOLDER</code></p>"
        )
    return _page("Services", body)


def public_front_page() -> str:
    """What a contributed gateway shows to strangers: nothing about the group."""
    return _page(
        "Gateway",
        "<h1>A gateway of a group</h1><p>This computer passes on public services. Ask for one by its name.</p>",
    )


def notice_page(notice: Notice, reload: bool = False) -> str:
    """A notice as HTML; `reload` makes the page load itself again after the notice's `retry_after_s`."""
    body = f"<h1>{escape(notice.title)}</h1><p>{escape(notice.text)}</p>"
    if notice.hint:
        body += f"<p>{escape(notice.hint)}</p>"
    if notice.details:
        lines = "".join(f"<p><code>{escape(_visible(line))}</code></p>" for line in notice.details)
        body += f"<details><summary>What was tried</summary>{lines}</details>"
    return _page(notice.title, body, notice.retry_after_s if reload else None)


def notice_text(notice: Notice) -> str:
    """A notice for terminals and programs that want no HTML."""
    parts = [notice.title, notice.text, notice.hint, *("- " + _visible(line) for line in notice.details)]
    return "\n".join(part for part in parts if part) + "\n"


def notice_json(notice: Notice) -> str:
    """A notice as the project's JSON errors look."""
    return json.dumps({"code": notice.code, "message": f"{notice.title}: {notice.text}", "hint": notice.hint})


def _row(service: ListedService, port: int, suffix: str) -> str:
    address = f"http://{service.host_name}.{suffix}:{port}/"
    if not service.active:
        dot, count = "dot", "not active"
    elif service.running >= service.wanted:
        dot, count = "dot on", f"{service.running} running"
    else:
        dot = "dot part" if service.running else "dot"
        count = f"{service.running} of {service.wanted} running"
    about = service.description or (f"by {service.owner}" if service.owner else "")
    tag = '<span class="tag">public</span>' if service.public else ""
    return (
        f'<li><a href="{escape(address)}"><span class="{dot}"></span>'
        f'<span class="name">{escape(_visible(service.name))}</span>'
        f'<span class="about">{escape(_visible(about))}</span>{tag}<span class="count">{count}</span></a></li>'
    )


def _visible(text: str) -> str:
    """Without control and direction characters, which could disguise what is shown."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _page(title: str, body: str, reload_s: int | None = None) -> str:
    reload = f'<meta http-equiv="refresh" content="{reload_s}">' if reload_s else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{reload}<title>{escape(title)} · colla</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}<footer>colla gateway</footer></main></body></html>"
    )
