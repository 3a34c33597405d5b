"""What `pip install .` gives: the package alone."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gankit

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.full
def test_the_wheel_holds_gankit_alone(tmp_path: Path) -> None:
    """Needs the network once: pip fetches the build backend."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
    ]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"gankit", f"gankit-{gankit.__version__}.dist-info"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "gankit").rglob("*.py")}
    assert modules <= set(names)


def test_the_package_needs_no_tool_of_the_book() -> None:
    """None of the book's, the course's or the tests' packages is among the requirements of `gankit`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {line.split(">=")[0] for lines in project["optional-dependencies"].values() for line in lines}
    assert not extras & {line.split(">=")[0] for line in project["dependencies"]}
    # Imported in a process of its own, so that this one's imports do not count.
    code = "import sys, gankit.commands as rooms; rooms._parser()\n"
    code += "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    loaded = set(run.stdout.split())
    assert {"gankit", "torch"} <= loaded
    assert not loaded & {"toy", "figures", "sphinx", "jupytext", "nbclient", "IPython", "sympy", "pytest"}
