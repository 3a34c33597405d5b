"""The page on one's own data, networks, losses and metrics: every block runs, in order, with training cut short."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gankit as gk
from gankit.game.losses import losses
from gankit.metrics.measures import METRICS
from gankit.recipes import MODELS, records

PAGE = Path(__file__).parents[2] / "book" / "own.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def as_module(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of a module that is imported, as a reader's file or session is."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    return vars(module)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the page adds to tables is taken out again, and `fit` takes three steps."""
    monkeypatch.chdir(tmp_path)
    fit = gk.Trainer.fit

    def short(run: gk.Trainer, steps: int, **more: Any) -> gk.Trainer:
        return fit(run, 3, **more | {"log_every": 1, "progress": False})

    monkeypatch.setattr(gk.Trainer, "fit", short)
    kept = [
        (table, dict(table)) for table in (losses, METRICS, MODELS, records.KINDS, records.PLACES["d_terms"])
    ]
    yield
    for table, entries in kept:
        table.clear()
        table.update(entries)


@pytest.mark.usefixtures("tables")
def test_every_block_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    session = as_module("page", monkeypatch)
    found = blocks()
    assert len(found) >= 12
    for i, block in enumerate(found):
        exec(compile(block, f"own.md, block {i + 1}", "exec"), session)
    said = capsys.readouterr().out
    assert "spread" in said  # the table of scores
    assert "d_loss" in said  # the listener
    assert session["run"].folder == Path("runs/mine").resolve()
    assert session["again"].steps == 6, "it went on"


@pytest.mark.usefixtures("tables")
def test_a_file_with_ones_own_ideas_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The page's recipe for `mine.py`: a loss and a term of one's own have flags."""
    session = as_module("mine", monkeypatch)
    for block in blocks()[:1] + [b for b in blocks() if "class Margin" in b or 'losses["squared"]' in b]:
        exec(compile(block.replace(".build().fit(300)", ""), "mine.py", "exec"), session)
    from gankit.commands import main

    arguments = "train ns-digits --loss squared --margin 0.1 --width 8 --steps 2 --quiet --device cpu --out r"
    assert main(arguments.split()) in (0, None)
    assert "Margin" in Path("r/recipe.json").read_text()
