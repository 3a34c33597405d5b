"""The README shows what the book makes."""

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]

spec = importlib.util.spec_from_file_location("readme_figure", ROOT / "book" / "readme_figure.py")
assert spec is not None
assert spec.loader is not None
readme_figure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_figure)


def test_the_picture_is_that_of_the_first_chapter() -> None:
    """Up to the curves' last digits: another processor runs another chaotic training to the same conclusion."""
    stored = readme_figure.stored_figure(ROOT / "book" / "01_the_game.ipynb", readme_figure.FIGURE)
    theirs, ours = (
        np.asarray(Image.open(picture).convert("L"), dtype=float)
        for picture in (io.BytesIO(stored), readme_figure.TARGET)
    )
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).mean() < 8, "run `python book/readme_figure.py`"


def test_a_figure_that_is_not_there_is_missed() -> None:
    with pytest.raises(ValueError, match="no figure named 'nothing'"):
        readme_figure.stored_figure(ROOT / "book" / "01_the_game.ipynb", "nothing")


def test_links_and_pictures_of_the_readme_exist() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert "book/_static/the_game.png" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_commands_for_researchers_are_commands() -> None:
    from gankit.commands import main

    text = (ROOT / "README.md").read_text("utf-8")
    for command in re.findall(r"^gankit ([\w-]+)", text, flags=re.MULTILINE):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
