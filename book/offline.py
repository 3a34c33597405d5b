"""Find what a page of the site would load from another host, which it must not: the book works offline.

A link that a reader may follow is fine; a script, a style sheet, a font or a picture that the browser
fetches by itself is not.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

REMOTE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
LOADED = {"src", "srcset", "data", "poster", "background"}  # attributes that a browser follows by itself
LINKS = {
    "stylesheet",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "icon",
    "manifest",
}
STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)
SCRIPT = re.compile(r"""(?:import|importScripts|fetch)\s*\(?\s*["']((?:https?:)?//[^"']+)["']""")


class Loads(HTMLParser):
    """Collects the addresses on other hosts that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        values = {name: value or "" for name, value in attrs}
        linked = tag == "link" and LINKS & set(values.get("rel", "").lower().split())
        drawn = tag in ("use", "image")  # inside an SVG
        for name, value in values.items():
            if name in LOADED or (name in ("href", "xlink:href") and (linked or drawn)):
                self.found += [part for part in value.split(",") if REMOTE.match(part)]
            if name == "style":
                self.found += STYLE.findall(value)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.found += STYLE.findall(data)
        if self.inside == "script":
            self.found += SCRIPT.findall(data)


def loads_of_page(html: str) -> list[str]:
    """The addresses on other hosts that a page, or a piece of one, would load."""
    page = Loads()
    page.feed(html)
    return [address.strip() for address in page.found]


def outside_loads(site: Path) -> Iterator[str]:
    """Every load from another host in a built site, as "file: address"."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".svg"):
            found = loads_of_page(path.read_text("utf-8"))
        elif path.suffix in (".css", ".js"):
            pattern = STYLE if path.suffix == ".css" else SCRIPT
            found = pattern.findall(path.read_text("utf-8", errors="replace"))
        else:
            continue
        yield from (f"{path.relative_to(site)}: {address}" for address in found)
