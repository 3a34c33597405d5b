"""No page of the real site is wider than the window it is read in, and no formula, table or code is cut off."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from book import build

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1300, 390)

# Says, once mathematics has had time to appear: how wide the page is, and what sticks out of a box that cuts it off.
# A headless window is at least 500 pixels wide, so the page is put into a frame of the width that is asked for.
FRAME = """<!doctype html><body style="margin:0">
<iframe src="{page}" style="border:0;width:{width}px;height:900px"></iframe>
<script>
const frame = document.querySelector("iframe");
frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument, view = frame.contentWindow, root = page.documentElement;
  const lost = (element) => {{
    const box = element.getBoundingClientRect(), right = Math.max(box.right, box.left + element.scrollWidth);
    for (let at = element; at && at !== page.body; at = at.parentElement) {{
      const overflow = view.getComputedStyle(at).overflowX;
      if (["auto", "scroll"].includes(overflow)) return false;
      if (["hidden", "clip"].includes(overflow) && at.getBoundingClientRect().right < right - 1) return true;
    }}
    return right > view.innerWidth + 1;
  }};
  const cut = [];
  const kinds = ["pre", "table", "mjx-container", "img", "svg", "iframe"];
  const wide = page.querySelectorAll(kinds.map((kind) => "article " + kind).join(","));
  for (const element of wide) {{
    const box = element.getBoundingClientRect();
    if (box.width && lost(element))
      cut.push([element.tagName, Math.round(box.right), element.textContent.trim().slice(0, 50)].join(" "));
  }}
  const list = document.createElement("pre");
  list.id = "found";
  list.textContent = JSON.stringify({{
    page: Math.max(root.scrollWidth, page.body.scrollWidth), window: view.innerWidth, cut,
    formulas: page.querySelectorAll("mjx-container[display=true]").length,
    asked: page.querySelectorAll("div.math").length,
  }});
  document.body.append(list);
}}, 4000);
</script></body>"""


def look(page: Path, width: int) -> dict:
    """Open a page of the site in a window of this width; return what `FRAME` found."""
    frame = page.with_name(f"frame_{width}_{page.name}")
    frame.write_text(FRAME.format(page=page.name, width=width), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += ["--window-size=1400,1000", "--virtual-time-budget=12000"]
    try:
        command = [str(CHROMIUM), *flags, "--dump-dom", frame.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    finally:
        frame.unlink()
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.S)
    assert found, f"{page.name} did not load"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def site() -> Path:
    if CHROMIUM is None:
        pytest.skip("needs a Chromium in the path")
    assert build.main(["site"]) == 0
    return ROOT / "book" / "_build" / "html"


def pages(site: Path) -> list[Path]:
    """The pages that are written by hand, and of the reference the three largest: all are made alike."""
    reference = sorted((site / "reference").glob("*.html"), key=lambda path: -path.stat().st_size)[:3]
    return [
        *(page for page in sorted(site.glob("*.html")) if not page.name.startswith(("frame_", "probe_"))),
        *reference,
    ]


@pytest.mark.full
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(site: Path, width: int) -> None:
    wrong, formulas = [], 0
    for page in pages(site):
        found = look(page, width)
        assert found["window"] == width
        formulas += found["formulas"]
        if found["page"] > width or found["cut"]:
            wrong.append(f"{page.name}: {found['page']} px; {'; '.join(found['cut'])}")
        assert found["formulas"] >= found["asked"], f"{page.name}: mathematics did not appear"
    assert wrong == []
    assert formulas > 100


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium in the path")
@pytest.mark.parametrize(
    ("body", "cut"),
    [
        ("<article><pre>" + "x" * 400 + "</pre></article>", True),
        ("<article><pre style='overflow-x: auto'>" + "x" * 400 + "</pre></article>", False),
        ("<article><div style='overflow: hidden'><pre>" + "x" * 400 + "</pre></div></article>", True),
    ],
)
def test_what_is_cut_off_is_noticed(tmp_path: Path, body: str, cut: bool) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><body>{body}</body>", "utf-8")
    found = look(page, 390)
    assert bool(found["cut"]) is cut
