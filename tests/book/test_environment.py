"""The files that name packages agree: pyproject.toml, environment.yml and constraints.txt."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {
    "torch": "pytorch",
    "lmdb": "python-lmdb",
}  # where conda-forge calls a package otherwise than PyPI does
PIP_ONLY = {"prdc", "torch-fidelity"}  # not on conda-forge
FRAME = {"python", "pip"}  # what conda provides before any requirement counts


def declared() -> dict[str, Requirement]:
    """Every requirement of pyproject.toml, extras included, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(x for extra in project["optional-dependencies"].values() for x in extra),
    ]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def pinned() -> dict[str, str]:
    """The versions of constraints.txt, by name."""
    text = (ROOT / "constraints.txt").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines), "constraints.txt pins each package with =="
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_conda_asks_for_what_pyproject_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    listed = [
        x for x in environment["dependencies"] if isinstance(x, str) and re.split("[=<>]", x)[0] not in FRAME
    ]
    conda = {requirement.name: requirement.specifier for requirement in map(Requirement, listed)}
    [pip] = [x["pip"] for x in environment["dependencies"] if isinstance(x, dict)]
    assert pip[-1] == "-e ."
    asked = conda | {requirement.name: requirement.specifier for requirement in map(Requirement, pip[:-1])}
    assert asked == {CONDA_NAMES.get(name, name): x.specifier for name, x in declared().items()}
    assert {Requirement(line).name for line in pip[:-1]} == PIP_ONLY
    assert len(listed) == len(conda), "a package is listed twice"


def test_conda_uses_a_python_that_pyproject_allows() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [python] = [
        x.removeprefix("python=") for x in environment["dependencies"] if str(x).startswith("python=")
    ]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(python)


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_requirement_is_pinned_within_its_range(name: str) -> None:
    assert declared()[name].specifier.contains(pinned()[canonicalize_name(name)])


def test_pins_allow_the_cpu_build_of_pytorch() -> None:
    for name in ("torch", "torchvision"):
        assert Requirement(f"{name}=={pinned()[name]}").specifier.contains(f"{pinned()[name]}+cpu")


def test_pins_leave_the_gpu_libraries_to_torch() -> None:
    assert [name for name in pinned() if name.startswith(("nvidia", "cuda", "triton"))] == []
    assert [x for x in pinned().values() if "+" in x] == []
