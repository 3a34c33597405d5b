"""Chapters as one hands them out: notebooks without outputs or pairing, slides, and paper."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell

from book import build, taught
from course.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOLUTION = re.compile(r"^(`{3,}|:{3,})\{solution-start\}.*?^\1\{solution-end\}\n\1\n", re.M | re.S)
SHORT_SOLUTION = re.compile(r"^(`{3,}|:{3,})\{solution\} .*?^\1\n", re.M | re.S)
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


class HandoutError(Exception):
    """Something that a lecturer can mend; the message says what and how."""


def repository(root: Path = ROOT) -> str:
    """The address of the repository in pyproject.toml, or "" where it names none."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "").rstrip("/")


def badges(url: str) -> str:
    """The README's badges for a repository on GitHub, "" where there is no address.

    Raises:
        HandoutError: for an address that is not one of a repository on GitHub.
    """
    if not url:
        return ""
    if not (found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", url)):
        raise HandoutError(f"pyproject.toml: Repository is https://github.com/OWNER/NAME; {url!r} came.")
    test, binder = (
        f"{url}/actions/workflows/test.yml",
        f"https://mybinder.org/v2/gh/{found[1]}/main?urlpath=lab/tree/book",
    )
    shown = ((test, f"{test}/badge.svg", "test"), (binder, "https://mybinder.org/badge_logo.svg", "Binder"))
    return "\n".join(f"[![{name}]({picture})]({leads})" for leads, picture, name in shown)


def with_badges(readme: str, url: str) -> str:
    """A README with the badges of an address between its two marks."""
    return re.sub(
        r"(<!-- badges -->\n).*?(<!-- /badges -->)",
        lambda found: found[1] + (badges(url) + "\n" if url else "") + found[2],
        readme,
        flags=re.S,
    )


def colab_cell(url: str) -> nbformat.NotebookNode:
    """A first cell that makes a chapter run in Colab, and does nothing elsewhere."""
    lines = [
        "import sys",
        "",
        'if "google.colab" in sys.modules:  # elsewhere the book is installed already',
        f'    %pip install --quiet "gankit @ git+{url}"',
        f'    %pip install --quiet "gankit-book @ git+{url}#subdirectory=book/distribution"',
    ]
    return new_code_cell("\n".join(lines), id="install", metadata={"tags": ["remove-cell"]})


def chapter_notebook(text: str, settings: Settings, book: Path, url: str = "") -> nbformat.NotebookNode:
    """A chapter as a student's notebook.

    Args:
        text: of the chapter, MyST Markdown.
        settings: whether solutions stay, and which chapters can be linked.
        book: folder of the chapters.
        url: of the repository, for Colab; "" makes no such cell.
    """
    if not settings.solutions:
        text = SHORT_SOLUTION.sub("", SOLUTION.sub("", text))
    chosen = taught.Taught(settings.chapters, settings.site)
    text = taught.without_absent(text, lambda name: chosen.linked(name, book), settings.site)
    notebook = jupytext.reads(text, fmt="md:myst")
    notebook.metadata.pop("jupytext", None)  # a student's save must write one file, not two
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        key = build.digest(cell.cell_type, cell.source)[:8]
        seen[key] = seen.get(key, 0) + 1
        cell["id"] = key if seen[key] == 1 else f"{key}-{seen[key]}"
    if url:
        notebook.cells.insert(1, colab_cell(url))
    nbformat.validate(notebook)
    return notebook


def course(settings: Settings, work: Path, book: Path) -> list[Path]:
    """Write the chosen chapters to `work/chapters`, which holds nothing else afterwards.

    Raises:
        HandoutError: if a chapter is chosen that the book does not have.
    """
    chapters = build.find_chapters(book)
    there = {int(chapter.name[:2]) for chapter in chapters}
    if missing := set(settings.chapters) - there:
        raise HandoutError(f"course.toml: chapters names {sorted(missing)}; there are {sorted(there)}.")
    target = work / "chapters"
    shutil.rmtree(target, ignore_errors=True)
    written = []
    for chapter in chapters:
        if not settings.chapters or int(chapter.name[:2]) in settings.chapters:
            notebook = chapter_notebook(
                chapter.text.read_text("utf-8"), settings, book, repository(book.parent)
            )
            path = target / chapter.notebook.name
            build.write_text(path, nbformat.writes(notebook) + "\n")
            written.append(path)
    return written


# --- slides and paper ----------------------------------------------------------------------------


def page_of(number: str, book: Path) -> Path:
    """The built page of a chapter.

    Raises:
        HandoutError: if the site was not built.
    """
    [chapter] = build.find_chapters(book, [number])
    page = book / "_build" / "html" / f"{chapter.name}.html"
    if not page.exists():
        raise HandoutError(f"there is no {page}; build the site first: `make book`")
    return page


SLIDES_STYLE = """<style>
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary { display: none }
.prev-next-footer, .bd-footer { display: none }
section.slide { min-height: 100vh; box-sizing: border-box; padding: 3vh 6vw; break-after: page; font-size: 1.15rem }
section.slide section { padding: 0 }
section.slide:not(.now) { display: none }
.bd-container, .bd-main, .bd-content, .bd-article-container { max-width: none !important; width: 100% }
@media print { section.slide:not(.now) { display: block } }
</style>
"""
SLIDES_SCRIPT = """<script>
const slides = [...document.querySelectorAll("section.slide")];
let now = Math.min(Number(location.hash.slice(1)) || 0, slides.length - 1);
function show(next) {
  now = Math.max(0, Math.min(next, slides.length - 1));
  slides.forEach((slide, index) => slide.classList.toggle("now", index === now));
  history.replaceState(null, "", "#" + now);
  scrollTo(0, 0);
}
addEventListener("keydown", event => {
  if (["ArrowRight", "PageDown", " "].includes(event.key)) { event.preventDefault(); show(now + 1); }
  if (["ArrowLeft", "PageUp"].includes(event.key)) { event.preventDefault(); show(now - 1); }
  if (event.key === "Home") show(0);
  if (event.key === "End") show(slides.length - 1);
});
show(now);
</script>
</body>"""


def slides(number: str, book: Path) -> Path:
    """Cut the built page of a chapter into slides: one for its head and one for each section and subsection.

    Equations, figures and numbers are those of the page. Arrow keys and the space bar turn them.

    Returns:
        The page, beside the chapter's own, whose files it uses.
    """
    from bs4 import BeautifulSoup

    page = page_of(number, book)
    soup = BeautifulSoup(page.read_text("utf-8"), "html.parser")
    body = soup.select_one("article.bd-article")
    whole = body.find("section") if body else None
    if whole is None:
        raise HandoutError(f"{page.name} has no article: was it built by another theme?")
    parts, current = [], []
    for node in list(whole.children):
        if getattr(node, "name", None) == "section":
            parts, current = [*parts, current, *_sections(node)], []
        else:
            current.append(node.extract())
    whole.clear()
    for part in filter(_visible, [*parts, current]):
        slide = soup.new_tag("section", attrs={"class": "slide"})
        for node in part:
            slide.append(node)
        whole.append(slide)
    text = str(soup).replace("</head>", f"{SLIDES_STYLE}</head>").replace("</body>", SLIDES_SCRIPT)
    target = page.with_name(f"{page.stem}_slides.html")
    build.write_text(target, text)
    return target


def _sections(section: object) -> list[list]:
    """A section's own nodes, then those of each of its subsections."""
    own, below = [], []
    for node in list(section.children):
        if getattr(node, "name", None) == "section":
            below.append([node.extract()])
        else:
            own.append(node.extract())
    section.clear()
    for node in own:
        section.append(node)  # keeps its id, to which other slides link
    return [[section.extract()], *below]


def _visible(part: list) -> bool:
    return any(getattr(node, "name", None) or str(node).strip() for node in part)


def pdf(number: str, book: Path) -> Path:
    """Print the built page of a chapter by a headless Chromium.

    Raises:
        HandoutError: if there is no Chromium, or it prints nothing.
    """
    page, browser = page_of(number, book), next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise HandoutError("no Chromium in the path (Debian and Ubuntu: apt install chromium)")
    target = page.with_suffix(".pdf")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-pdf-header-footer",
        "--virtual-time-budget=30000",
    ]
    command = [browser, *flags, f"--print-to-pdf={target}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode or not target.exists():
        raise HandoutError(f"{browser} printed nothing: {done.stderr.strip().splitlines()[-1:]}")
    return target
