"""The package stands without the book: what a wheel holds, and what importing it needs."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# scipy comes with scikit-learn, which the package needs: having it is no debt to the book.
OF_THE_PACKAGE = {"scipy"}


def imports_of_extras() -> list[str]:
    """The modules of what only the extras install, as `import` calls them."""
    lines = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    names = {Requirement(line).name for line in lines} - OF_THE_PACKAGE
    return sorted({name.replace("-", "_") for name in names} | {"IPython", "nbformat", "toy", "figures"})


def test_the_package_and_its_command_need_no_tool_of_the_book() -> None:
    program = f"""
import sys
for name in {imports_of_extras()}:
    sys.modules[name] = None  # an import of it fails
import gankit, gankit.commands
try:
    gankit.commands.main(["--help"])
except SystemExit as end:
    assert not end.code
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: gankit" in done.stdout


@pytest.mark.full
def test_the_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    [wheel] = tmp_path.glob("gankit-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"gankit"}
    assert "gankit/losses.py" in names
    assert all(name.endswith(".py") or ".dist-info/" in name for name in names)
