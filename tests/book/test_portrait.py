"""The kernel-free phase portrait: its mathematics is that of `toy.dirac`, and a browser can use it."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from book import offline, portrait
from tests.book.test_site import CHROMIUM, browse
from toy import dirac
from toy.dirac import GAMES

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node in the path")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium in the path")
START = [1.1, -0.6, 0.3]
OTHER = {"gamma": 1.7, "slope": 0.6, "clip": 0.8, "sigma": 1.5, "alpha": 0.8, "beta": 0.3}
JUMPS = {
    "wgan-clip",
    "wgan-gp",
}  # a Runge-Kutta step across a jump of the field errs by about the step's length


def test_the_page_is_what_the_script_writes() -> None:
    assert portrait.PAGE.read_text("utf-8") == portrait.page(), (
        "run `python -m book.portrait` and commit the page"
    )


def test_the_page_is_one_file() -> None:
    page = portrait.PAGE.read_text("utf-8")
    assert offline.loads_of_page(page) == []
    assert not re.search(r"""\bsrc=|<link\b|@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\b""", page)


def test_each_slider_has_a_label() -> None:
    known = {str(symbol) for game in GAMES.values() for symbol in game.parameters}
    assert known == set(portrait.RANGES)
    for game in GAMES.values():
        for symbol, value in game.parameters.items():
            _, low, high = portrait.RANGES[str(symbol)]
            assert low <= value <= high


def in_node(expression: str) -> Any:
    """The value of an expression that uses the page's own functions."""
    found = re.search(r'<script id="dynamics">(.*?)</script>', portrait.PAGE.read_text("utf-8"), flags=re.S)
    assert found
    done = subprocess.run(
        [str(NODE), "-"],
        input=f"{found[1]}\nprocess.stdout.write(JSON.stringify({expression}));",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def parameters(name: str, changed: bool) -> dict[str, float]:
    defaults = {str(symbol): float(value) for symbol, value in GAMES[name].parameters.items()}
    return {key: OTHER[key] for key in defaults} if changed else defaults


def for_each_game(body: str, changed: bool) -> dict[str, Any]:
    """A JavaScript expression in `game`, `start` and `values`, for every game."""
    entries = [
        f"[{json.dumps(name)}, ((game, start, values) => {body})"
        f"(GAMES[{json.dumps(name)}], {START[: len(game.states)]}, {list(parameters(name, changed).values())})]"
        for name, game in GAMES.items()
    ]
    return dict(in_node(f"[{', '.join(entries)}]"))


@needs_node
@pytest.mark.parametrize("changed", [False, True])
def test_the_integrator_agrees_with_the_book(changed: bool) -> None:
    runs = for_each_game("trajectory(game, start, values, 0.02, 1000)", changed)
    assert set(runs) == set(GAMES)
    times = np.linspace(0, 20, 1001)
    for name, run in runs.items():
        game = GAMES[name]
        want = dirac.trajectory(game, np.array(START[: len(game.states)]), times, **parameters(name, changed))
        np.testing.assert_allclose(run, want, atol=0.05 if name in JUMPS else 1e-6, err_msg=name)


@needs_node
@pytest.mark.parametrize("changed", [False, True])
def test_fields_and_averages_agree_with_the_book(changed: bool) -> None:
    points = np.random.default_rng(0).uniform(-2, 2, (20, 3))
    body = f"{points.tolist()}.map((x) => velocity(game, x.slice(0, game.states), values))"
    averages = f"game.average ? {points.tolist()}.map((x) => game.average(x, values)) : null"
    fields, read = for_each_game(body, changed), for_each_game(averages, changed)
    for name, game in GAMES.items():
        values, states = parameters(name, changed), points[:, : len(game.states)]
        np.testing.assert_allclose(
            fields[name], dirac.numeric_field(game, **values)(states), atol=1e-6, err_msg=name
        )
        if game.memory:
            np.testing.assert_allclose(read[name], dirac.averaged(game, states, **values), atol=1e-12)
        else:
            assert read[name] is None


@needs_node
@pytest.mark.parametrize("changed", [False, True])
def test_eigenvalues_agree_with_the_book(changed: bool) -> None:
    for name, roots in for_each_game("eigenvalues(game, values)", changed).items():
        if name == "wgan-gp":
            assert roots is None
            continue
        want = dirac.eigenvalues(GAMES[name], **parameters(name, changed))
        np.testing.assert_allclose(
            np.sort_complex([complex(*root) for root in roots]).round(9),
            np.sort_complex(want.round(9)),
            atol=1e-6,
        )


# What a reader does, and what the picture and the texts were after each of the steps.
VISIT = """<script>
addEventListener("load", () => {
  const seen = [], slider = (id) => document.getElementById(id);
  const look = (what) => seen.push({
    what, picture: canvas.toDataURL(), text: slider("eigenvalues").textContent, runs: slider("runs").children.length,
  });
  const set = (id, value, kind) => { slider(id).value = value; slider(id).dispatchEvent(new Event(kind)); };
  pen.fillRect(0, 0, canvas.width, canvas.height); look("blank");
  draw(); look("open");
  set("parameter-gamma", 2, "input"); look("gamma");
  set("game", "wgan-gp", "change"); look("game");
  const box = canvas.getBoundingClientRect(), at = { clientX: box.left + 50, clientY: box.top + 70 };
  canvas.dispatchEvent(new MouseEvent("click", at)); look("click");
  set("theta", -1, "input"); slider("start").click(); look("start");
  slider("clear").click(); look("clear");
  for (const name of Object.keys(GAMES)) { set("game", name, "change"); look(name); }
  const list = document.createElement("pre");
  list.id = "seen";
  list.textContent = JSON.stringify(seen);
  document.body.append(list);
});
</script></body>"""


@needs_chromium
def test_a_browser_draws_the_portrait_and_its_sliders_change_it(tmp_path: Path) -> None:
    page = tmp_path / "portrait.html"
    page.write_text(portrait.PAGE.read_text("utf-8").replace("</body>", VISIT), "utf-8")
    dom, asked, console = browse(page)
    assert asked == []
    assert console == []
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, flags=re.S)
    assert found
    seen = {step["what"]: step for step in json.loads(found[1])}
    order = ["open", "gamma", "game", "click", "start", "clear"]
    assert all(step["picture"] != seen["blank"]["picture"] for what, step in seen.items() if what != "blank")
    for before, after in itertools.pairwise(order):
        assert seen[before]["picture"] != seen[after]["picture"], after
    assert [seen[what]["runs"] for what in order] == [1, 1, 1, 2, 3, 0]
    assert "0.250" in seen["open"]["text"]
    assert "no eigenvalues" in seen["game"]["text"]
    assert len({seen[name]["picture"] for name in GAMES}) >= 5  # arrows of one length: some fields look alike


@needs_chromium
def test_each_control_has_a_name_that_can_be_read_aloud(tmp_path: Path) -> None:
    page = tmp_path / "portrait.html"
    shutil.copy(portrait.PAGE, page)
    dom, _, _ = browse(page)
    controls = re.findall(r"<(?:input|select)\b", dom)
    labelled = re.findall(r"<label>[^<]+(?:<output[^>]*>[^<]*</output>\s*)?<(?:input|select)\b", dom)
    assert len(labelled) == len(controls) > 3
