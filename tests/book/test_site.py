"""The site: built without a warning, whole without internet, and clean when a browser opens it from a disk."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from book import build, offline
from tests.book.conftest import example_chapter, make_book
from tests.book.test_captions import tables_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small chapter and the example of CONTRIBUTING.md, executed and built: two chapters that cite and number."""
    folder = make_book(tmp_path_factory.mktemp("site"))
    (folder / "04_dirac_gan.md").write_text(example_chapter(), "utf-8")
    assert build.main(["--book", str(folder), "chapter"]) == 0
    assert build.main(["--book", str(folder), "check"]) == 0
    assert build.main(["--book", str(folder), "site"]) == 0
    return folder


@pytest.fixture(scope="module")
def site(book: Path) -> Path:
    return book / "_build" / "html"


def test_chapters_equations_figures_and_exercises_have_the_number_of_the_file(site: Path) -> None:
    page = (site / "04_dirac_gan.html").read_text("utf-8")
    for expected in ("4. The Dirac-GAN", "Fig. 4.1", 'href="#equation-dirac-game">(4.1)</a>', "Exercise 4.1"):
        assert expected in page
    assert 'alt="A curve that circles the origin and never reaches it."' in page


def test_tables_have_captions_and_scopes(site: Path) -> None:
    """Those of the small chapter, and of the real pages beside the chapters."""
    found = tables_of(site)
    assert {page: lacks for page, (_, lacks) in found.items() if lacks} == {}
    count = {page: tables for page, (tables, _) in found.items()}
    assert (count["04_dirac_gan"], count["notation"], count["laboratory"]) == (1, 3, 1)
    assert count["teaching"] >= 2
    page = (site / "04_dirac_gan.html").read_text("utf-8")
    assert '<caption><span class="caption-number">Table 4.1 </span>How the distance' in page
    assert "Table.</strong>" not in page, "the paragraph has moved"
    assert '<th scope="row" class="stub"><p>alternating' in page


def test_first_uses_lead_to_the_glossary(site: Path) -> None:
    page, glossary = ((site / name).read_text("utf-8") for name in ("01_the_game.html", "glossary.html"))
    found = re.findall(r'class="first-use[^"]*" href="glossary\.html#([^"]+)"', page)
    assert found
    assert all(f'id="{at}"' in glossary for at in found)
    assert page.index("where-explained") < page.index("first-use"), (
        "the line below the card says what they are"
    )


def test_a_chapter_says_what_builds_on_it(site: Path) -> None:
    first, second = ((site / name).read_text("utf-8") for name in ("01_the_game.html", "04_dirac_gan.html"))
    assert 'leads to <a class="reference internal" href="04_dirac_gan.html">The Dirac-GAN</a>' in first
    assert "leads to" not in second, "nothing builds on the last one"


def test_the_landing_page_starts_dates_and_licences(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    for expected in (
        "Start with the game",
        "landing",
        "@misc{gan-dynamics",
        "I. The game",
        "1. A fixture: the coin",
        "CC BY 4.0",
    ):
        assert expected in re.sub(r"</?span[^>]*>", "", page), expected


def test_each_chapter_lists_what_it_cites(site: Path) -> None:
    first, second = ((site / name).read_text("utf-8") for name in ("01_the_game.html", "04_dirac_gan.html"))
    assert "Generative Adversarial Nets" in first.partition("<h2>References")[2]
    assert "Which Training Methods for GANs" in second.partition("<h2>References")[2]
    assert "Which Training Methods for GANs" not in first


def test_the_landing_page_lists_the_chapters_that_exist(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    chapters = set(re.findall(r'href="(\d\d_\w+)\.html"', page))
    assert chapters == {"01_the_game", "04_dirac_gan"}


def test_the_reference_has_a_page_for_each_module(site: Path, book: Path) -> None:
    assert {path.stem for path in (site / "reference").glob("*.html")} == set(build.CODE)
    page = (site / "reference" / "gankit.html").read_text("utf-8")
    words = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "The size |x| of one of the floats, int | None left as it is." in words
    assert "norm" in (site / "api.html").read_text("utf-8"), "a line for each public name"
    assert (site / "_modules" / "gankit.html").exists(), "links lead to the source"
    # Without a word of configuration, a new module appears and a removed one goes.
    (book.parent / "gankit" / "extra.py").write_text('"""An extra module."""\n', "utf-8")
    assert build.main(["--book", str(book), "site"]) == 0
    assert "An extra module." in (site / "reference" / "gankit.extra.html").read_text("utf-8")
    (book.parent / "gankit" / "extra.py").unlink()
    assert build.main(["--book", str(book), "site"]) == 0
    assert not (book / "_build" / "source" / "reference" / "gankit.extra.md").exists()


def test_a_broken_reference_stops_the_build(
    book: Path, edit: Callable[[Path, str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    landing = book / "index.md"
    before = landing.read_text("utf-8")
    edit(landing, "# GAN dynamics\n", "# GAN dynamics\n\n{ref}`nowhere`\n")
    try:
        assert build.main(["--book", str(book), "site"]) == 1
        assert "nowhere" in capfd.readouterr().err
    finally:
        landing.write_text(before, "utf-8")


def test_no_page_loads_from_another_host(site: Path) -> None:
    assert list(offline.outside_loads(site)) == []


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example.org/x.js"></script>',
        "<img src='//cdn.example.org/x.png'>",
        '<img srcset="a.png 1x, https://cdn.example.org/x.png 2x">',
        '<link rel="stylesheet" href="https://cdn.example.org/x.css">',
        '<link rel="preload" as="font" href="HTTP://cdn.example.org/x.woff2">',
        "<style>@import 'https://cdn.example.org/x.css';</style>",
        "<style>@font-face { src: url(https://cdn.example.org/x.woff2) }</style>",
        '<p style="background: url(//cdn.example.org/x.png)">',
        '<iframe src="https://cdn.example.org"></iframe>',
        "<script>import('https://cdn.example.org/x.js')</script>",
        '<svg><image xlink:href="https://cdn.example.org/x.png"/></svg>',
    ],
)
def test_loads_are_found(page: str) -> None:
    assert len(offline.loads_of_page(page)) == 1


@pytest.mark.parametrize(
    "page",
    [
        '<a href="https://example.org">a link</a>',
        '<link rel="next" href="02.html">',
        '<img src="data:image/png;base64,AAAA//BB">',
        '<script src="_static/x.js"></script>',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    ],
)
def test_links_are_not_loads(page: str) -> None:
    assert offline.loads_of_page(page) == []


def test_a_style_sheet_is_searched_too(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text('@import "https://example.org/y.css"; a { color: red }', "utf-8")
    assert list(offline.outside_loads(tmp_path)) == ["x.css: https://example.org/y.css"]


# Lists what the page asked other hosts for, failed requests included, once mathematics has had time to appear.
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const list = document.createElement("pre");
  list.id = "asked";
  list.textContent = performance.getEntriesByType("resource").map((entry) => entry.name).join(" ");
  document.body.append(list);
}, 3000));
</script></body>"""


def browse(page: Path) -> tuple[str, list[str], list[str]]:
    """Open a page from the disk, without a network; return its DOM, its requests and its console."""
    probe = page.with_name(f"probe_{page.name}")
    probe.write_text(page.read_text("utf-8").replace("</body>", PROBE), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
    ]
    command = [str(CHROMIUM), *flags, "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    asked = re.search(r'<pre id="asked">(.*?)</pre>', done.stdout, flags=re.S)
    assert asked, "the page did not load"
    return done.stdout, asked[1].split(), re.findall(r'CONSOLE[^\]]*\] "(.*)", source', done.stderr)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium in the path")
@pytest.mark.parametrize("name", ["01_the_game.html", "index.html"])
def test_a_browser_opens_the_page_from_a_disk(site: Path, name: str) -> None:
    dom, asked, console = browse(site / name)
    assert asked == []
    # A theme that says which mode it chose, and buttons that count themselves, are no trouble.
    harmless = ("[PST]: Changed to auto mode", "[togglebutton]: Adding toggle buttons")
    assert [line for line in console if not line.startswith(harmless)] == []
    equations = (site / name).read_text("utf-8").count('<div class="math notranslate nohighlight"')
    assert dom.count('<mjx-container class="MathJax" jax="SVG" display="true"') == equations
    assert "data-mjx-error" not in dom


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium in the path")
def test_the_browser_would_have_noticed(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<body><script src='https://example.org/x.js'></script><script>no()</script></body>", "utf-8"
    )
    _, asked, console = browse(page)
    assert asked == ["https://example.org/x.js"]
    assert console == ["Uncaught ReferenceError: no is not defined"]
