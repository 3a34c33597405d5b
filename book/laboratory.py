"""The GAN laboratory that needs no kernel: one HTML file made of the readable sources in `book/lab`.

`python -m book.laboratory` writes `book/_static/laboratory.html`. The sources are JavaScript modules; in the page they
are joined, in the order of their imports, into one script for the worker that trains and one for what is seen.
A test trains the page's own code and `gk.Trainer` side by side.
"""

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "lab"
PAGE = HERE / "_static" / "laboratory.html"

IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=const|function|class)", re.MULTILINE)


def modules(entry: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the modules that `entry` needs, itself the last, each after those that it imports.

    Args:
        entry: a file's name in `book/lab`.
        known: modules that are there already; they are returned first and not repeated.
    """
    if entry in known:
        return known
    for needed in IMPORT.findall((SOURCES / entry).read_text("utf-8")):
        known = modules(needed, known)
    return (*known, entry)


def script(names: tuple[str, ...]) -> str:
    """Modules joined into one strict script: their imports and exports are gone, for all share one scope."""
    texts = ((SOURCES / name).read_text("utf-8") for name in names)
    return '"use strict";\n' + "\n".join(EXPORT.sub("", IMPORT.sub("", text)).lstrip() for text in texts)


def page() -> str:
    """The whole page."""
    core = modules("crew.js")
    view = modules("page.js", core)[len(core) :]
    parts = {
        "/* STYLE */": (SOURCES / "style.css").read_text("utf-8"),
        "/* CORE */": script(core),
        "/* VIEW */": script(view),
    }
    text = (SOURCES / "template.html").read_text("utf-8")
    for mark, part in parts.items():
        before, found, after = text.partition(f"{mark}\n")
        if not found:
            raise ValueError(f"template.html lacks the line {mark}")
        text = before + part + after
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes")
