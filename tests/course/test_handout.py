"""Students' notebooks, settings, workflows and what makes chapters importable elsewhere."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import nbformat
import pytest
import yaml

from book import build
from course import handout, settings
from course.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
PLAIN = settings.load()


def chosen(**other) -> Settings:
    return Settings(**{**vars(PLAIN), **other})


def test_students_notebooks_have_no_outputs_pairing_or_solutions(tmp_path: Path) -> None:
    written = handout.course(chosen(chapters=(1, 4)), tmp_path, build.BOOK)
    assert [path.name for path in written] == ["01_the_game.ipynb", "04_dirac_gan.ipynb"]
    text = (build.BOOK / "04_dirac_gan.md").read_text("utf-8")
    for path in written:
        notebook = nbformat.read(path, as_version=4)
        assert "jupytext" not in notebook.metadata
        assert not any(cell.get("outputs") for cell in notebook.cells)
        whole = "\n".join(cell.source for cell in notebook.cells)
        assert "{solution" not in whole
        assert "{exercise-start}" in whole
    assert "0.99 / omega" in text
    assert "0.99 / omega" not in whole
    assert "(01_the_game.ipynb)" in whole
    with_all = handout.chapter_notebook(text, chosen(solutions=True), build.BOOK)
    assert any("0.99 / omega" in cell.source for cell in with_all.cells)


def test_links_to_chapters_that_are_not_taught_are_words(tmp_path: Path) -> None:
    text = (build.BOOK / "07_leakyema.md").read_text("utf-8")
    notebook = handout.chapter_notebook(text, chosen(chapters=(7,)), build.BOOK)
    assert "05_mean_teacher.ipynb" not in "\n".join(cell.source for cell in notebook.cells)
    away = handout.chapter_notebook(text, chosen(chapters=(7,), site="https://example.org"), build.BOOK)
    assert "https://example.org/05_mean_teacher.html" in "\n".join(cell.source for cell in away.cells)


def test_a_repository_makes_a_first_cell_for_colab(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n', "utf-8")
    assert handout.repository(tmp_path) == ""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nurls = {Repository = "https://h.org/o/r/"}\n', "utf-8"
    )
    assert handout.repository(tmp_path) == "https://h.org/o/r"
    text = (build.BOOK / "01_the_game.md").read_text("utf-8")
    cell = handout.chapter_notebook(text, PLAIN, build.BOOK, "https://h.org/o/r").cells[1]
    assert "git+https://h.org/o/r#subdirectory=book/distribution" in cell.source
    assert "google.colab" in cell.source
    assert not any(
        "google.colab" in c.source for c in handout.chapter_notebook(text, PLAIN, build.BOOK).cells
    )


def test_the_readmes_badges_are_those_of_the_repository() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert handout.with_badges(readme, handout.repository()) == readme, "run `python -m course badges`"
    with_two = handout.with_badges(readme, "https://github.com/o/r")
    assert with_two.count("[![") == 2
    assert "mybinder.org/v2/gh/o/r/main" in with_two
    assert handout.with_badges(with_two, "") == handout.with_badges(readme, "")
    with pytest.raises(handout.HandoutError, match="OWNER/NAME"):
        handout.badges("https://example.org")


def test_a_chapter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(handout.HandoutError, match=r"chapters names \[99\]"):
        handout.course(chosen(chapters=(99,)), tmp_path, build.BOOK)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("yaer = 1", "has yaer; known are"),
        ("year = -1", "a whole number from 0"),
        ('chapters = "all"', "a list of numbers"),
        ("chapters = [", "cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "course.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(settings.SettingsError, match=complaint):
        settings.load(path)


def test_other_points_and_another_year_reach_the_assignment(tmp_path: Path) -> None:
    path = tmp_path / "course.toml"
    path.write_text("year = 1\n[assignments.01_the_game.points]\nd-cost-any = 4\n", "utf-8")
    one = settings.assignment("1", settings.load(path))
    assert one.variant == {"cost": "mm-nsat-add-0.1"}
    assert one.points == settings.assignment("1", PLAIN).points + 3


def test_slides_have_every_section_once(tmp_path: Path) -> None:
    page = tmp_path / "book" / "_build" / "html" / "01_the_game.html"
    (tmp_path / "book" / "01_the_game.md").parent.mkdir()
    (tmp_path / "book" / "01_the_game.md").write_text("# T", "utf-8")
    page.parent.mkdir(parents=True)
    page.write_text(
        "<html><head></head><body><article class='bd-article'><section id='t'><h1>T</h1><p>card</p>"
        "<section id='a'><h2>A</h2><p>one</p><section id='b'><h3>B</h3><p>two</p></section></section>"
        "<section id='c'><h2>C</h2></section></section></article></body></html>",
        "utf-8",
    )
    from bs4 import BeautifulSoup

    shown = BeautifulSoup(handout.slides("1", tmp_path / "book").read_text("utf-8"), "html.parser")
    assert [slide.get_text() for slide in shown.select("section.slide")] == ["Tcard", "Aone", "Btwo", "C"]
    assert shown.find(id="a") is not None
    (tmp_path / "book" / "02_b.md").write_text("# B", "utf-8")
    with pytest.raises(handout.HandoutError, match="make book"):
        handout.slides("2", tmp_path / "book")


# --- for other people's machines -----------------------------------------------------------------

WORKFLOW = {
    "type": "object",
    "required": ["name", "on", "jobs", "permissions"],
    "properties": {
        "jobs": {
            "additionalProperties": {
                "required": ["runs-on", "timeout-minutes", "steps"],
                "properties": {
                    "steps": {
                        "items": {
                            "oneOf": [{"required": ["run"]}, {"required": ["uses"]}],
                            "properties": {"uses": {"pattern": r"^[\w-]+/[\w-]+@v\d+$"}},
                        }
                    }
                },
            }
        }
    },
}


@pytest.mark.parametrize("name", ["test", "chapters"])
def test_workflows_are_workflows(name: str) -> None:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text("utf-8")
    workflow = yaml.load(text, yaml.BaseLoader)  # SafeLoader would read the key `on` as true
    jsonschema.validate(workflow, WORKFLOW)
    if name == "chapters":
        inputs = workflow["on"]["workflow_call"]["inputs"]
        assert all(f"inputs.{given}" in text for given in inputs)
        assert "whl/cpu" in text
        assert "${{" not in workflow["jobs"]["chapter"]["steps"][-1]["run"], (
            "an input in a script can be a command"
        )


def test_the_dev_container_installs_what_constraints_pin() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert "--constraint constraints.txt" in container["postCreateCommand"]


@pytest.mark.full
def test_chapters_import_from_a_distribution_of_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(ROOT / "book" / "distribution")], check=True)
    [wheel] = tmp_path.glob("gankit_book-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"toy", "figures"}
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "toy", "figures"], check=True, capture_output=True, text=True
    ).stdout.split()
    assert names >= set(tracked)
