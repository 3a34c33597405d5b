"""The GAN laboratory that needs no kernel: one HTML file made of the readable sources in `book/lab`.

`python -m book.laboratory` writes `book/_static/laboratory.html`. The sources are JavaScript modules; in the page they
are joined, in the order of their imports, into one script for the worker that trains and one for what is seen.
A test trains the page's own code and `gk.Trainer` side by side.

`python -m book.laboratory measure` trains every preset in node, before and after its one change, and writes how many
seeds failed into `book/lab/measured.js`, which the page states.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


# --- What the presets do ----------------------------------------------------------------------------------------------

SEEDS = 8
PROCESSES = 2  # as many as the page has workers on two cores

TRAIN = """
const [name, repaired, ...seeds] = process.argv.slice(1), { changes, repair, sign, steps } = PRESETS[name];
const settings = changed(changed(DEFAULTS, changes), repaired === "after" ? repair.changes : {});
const failed = seeds.map(Number).map((seed) => {
  forgetNumbers();
  const run = new Trainer(settings, seed), latents = judgesLatents(settings.zDim), readings = [read(run, latents)];
  while (run.steps < steps) {
    run.step();
    if (run.steps % EVERY === 0) readings.push(read(run, latents));
  }
  return shows(sign, readings, run.source.mixture.centres.length);
});
process.stdout.write(JSON.stringify(failed));
"""


def without_views() -> str:
    """The scripts that need no browser: training, settings and presets, as one."""
    names: tuple[str, ...] = ()
    for entry in ("crew.js", "settings.js", "presets.js"):
        names = modules(entry, names)
    return script(names)


def preset_names() -> list[str]:
    """Names of the presets, in the page's order."""
    code = f"{without_views()}\nprocess.stdout.write(JSON.stringify(Object.keys(PRESETS)));"
    found = subprocess.run([node(), "-e", code], capture_output=True, text=True, check=True)
    return list(json.loads(found.stdout))


def node() -> str:
    """The path of node.

    Raises:
        FileNotFoundError: there is none.
    """
    if (path := shutil.which("node")) is None:
        raise FileNotFoundError("node is not in the path: it trains the laboratory's presets")
    return path


def failures(name: str, when: str) -> tuple[list[bool], float]:
    """Which of the seeds show a preset's failure, and the processor's seconds for each of the processes.

    Other programs on the machine change the time on the wall, not these.

    Args:
        name: of the preset.
        when: "before" or "after" its one change.
    """
    begun, code = os.times().children_user, without_views() + TRAIN
    parts = [range(SEEDS)[i * SEEDS // PROCESSES : (i + 1) * SEEDS // PROCESSES] for i in range(PROCESSES)]
    running = [
        subprocess.Popen(
            [node(), "-e", code, name, when, *map(str, seeds)], stdout=subprocess.PIPE, text=True
        )
        for seeds in parts
    ]
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"node could not train preset {name!r}; its message is above")
    return [failed for answer in answers for failed in json.loads(answer)], (
        os.times().children_user - begun
    ) / PROCESSES


def measured(names: list[str]) -> dict[str, Any]:
    """How many seeds fail before and after each preset's change, and the seconds before."""
    rows = {}
    for name in names:
        before, seconds = failures(name, "before")
        after, _ = failures(name, "after")
        rows[name] = {
            "failed": sum(before),
            "repaired": sum(after),
            "seeds": SEEDS,
            "seconds": round(seconds),
        }
        print(name, rows[name], flush=True)
    return rows


def write_measured() -> None:
    """Measure every preset and write what the page says of it."""
    rows = json.dumps(measured(preset_names()), indent=2)
    text = f"// Written by `python -m book.laboratory measure`.\n\nexport const MEASURED = {rows};\n"
    (SOURCES / "measured.js").write_text(text, "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        write_measured()
    elif sys.argv[1:]:
        sys.exit(f"usage: python -m book.laboratory [measure], got {' '.join(sys.argv[1:])!r}")
    PAGE.write_text(page(), "utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes")
