"""How fast the laboratory trains and draws, as the page itself counts it: python tests/bench/bench_laboratory.py

Prints, in Chromium, the steps a second of one seed and of eight (two hidden layers of 64 units, batch 128), the
pictures a second, and how long each preset takes for its steps and how many of its seeds then show its failure.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "book"))

from devtools import Tab, open_page  # noqa: E402

PAGE = (ROOT / "book" / "_static" / "laboratory.html").as_uri()


def rates(tab: Tab, hash: str, seconds: float = 10.0) -> dict[str, float]:
    """Steps a second of each seed and pictures a second, over the best two of `seconds` seconds."""
    tab.ask(f"location.hash = {hash!r}")
    tab.pause(1)
    tab.ask("laboratory.setPlaying(true)")
    seen = []
    for _ in range(round(seconds / 2)):
        tab.pause(2.1)
        seen.append(tab.ask("laboratory.rates.now"))
    tab.ask("laboratory.setPlaying(false)")
    return max((row for row in seen if row), key=lambda row: row["each"])


def preset(tab: Tab, name: str) -> tuple[float, int]:
    """Seconds that a preset takes for its steps on the page, and how many seeds then fail."""
    tab.ask(f"laboratory.choose({name!r}, false)")
    tab.ask("laboratory.setPlaying(true)")
    steps = tab.ask(f"PRESETS[{name!r}].steps")
    least = "Math.min(...[...laboratory.state.readings.values()].map((rows) => rows.at(-1)?.step ?? 0))"
    tab.wait(f"{least} >= {steps}", seconds=180)
    tab.ask("laboratory.setPlaying(false)")
    took = tab.ask("(performance.now() - laboratory.state.begun) / 1000")
    failed = tab.ask(
        f"""[...laboratory.state.readings.values()].filter((rows) => shows(PRESETS[{name!r}].sign,
            rows.filter(({{ step }}) => step <= {steps}), laboratory.state.mixture.centres.length)).length"""
    )
    return took, failed


def main() -> None:
    with open_page(PAGE) as tab:
        tab.size(1300, 900)
        for seeds in (1, 8):
            row = rates(tab, f"#seeds={seeds}")
            print(
                f"{seeds} seed(s): {row['each']:.0f} steps/s each, {row['frames']:.0f} pictures/s", flush=True
            )
        for name in tab.ask("Object.keys(PRESETS)"):
            took, failed = preset(tab, name)
            print(f"{name}: {failed} of 8 seeds fail, {took:.0f} s", flush=True)
        print(f"console: {tab.console}, requests: {[url for url in tab.requests if url.startswith('http')]}")


if __name__ == "__main__":
    main()
