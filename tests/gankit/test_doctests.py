"""The examples in docstrings run: what a reader copies must work, if not for as long as written."""

import ast
import dataclasses
import doctest
import inspect
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

import gankit as gk
from gankit import metrics, study
from gankit.classifiers import Classifier, synthetic
from gankit.metrics import ConsecutiveDistance, evaluate, features
from gankit.metrics.measures import METRICS, Metric
from gankit.metrics.protocol import table
from gankit.metrics.similarity import squared_distance
from gankit.models.ensemble import Ensemble, pair

ROOT = Path(gk.__file__).parent
NEEDS_FILES = {
    "models/biggan_weights.py": "needs the authors' files",
    "models/stylegan2_weights.py": "needs the authors' files",
    "recipes/saved.py": "needs a run of pictures with a class of cats",
}


def examples() -> list[tuple[str, list[doctest.Example]]]:
    """Of each docstring, and each paragraph of a module's own, the examples."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            if parts := doctest.DocTestParser().get_examples(text):
                found.append((f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'name', '')}", parts))
    return found


def short_of(module: ModuleType) -> SimpleNamespace:
    """`gankit.classifiers.synthetic` as its example uses it, on digits and for one epoch."""
    short = dataclasses.replace(module.QUICK, epochs=1, batches=2)
    fixed = lambda x, y: module.FixedSet(x, y)  # noqa: E731
    source = lambda G: SimpleNamespace(draw=lambda n: (gk.sampling.sample(G, 100), torch.arange(100) % 10))  # noqa: E731
    train = lambda source, net, data, _: module.train(source, net, data, short, progress=False)  # noqa: E731
    return SimpleNamespace(
        Generated=source, FixedSet=fixed, train=train, PAPER=module.PAPER,
        resnet20=lambda shape, classes: module.resnet20((1, 8, 8), classes, width=2),
    )  # fmt: skip


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What examples take for granted; training is cut short, and judges need not have learnt."""
    monkeypatch.chdir(tmp_path)
    fit, run_study = gk.Trainer.fit, study.run

    def short(run: gk.Trainer, steps: int, **more: Any) -> gk.Trainer:
        return fit(run, max(3, more.get("callback_every", 0)), **more | {"progress": False})

    monkeypatch.setattr(gk.Trainer, "fit", short)
    few = lambda *a, **more: run_study(*a, **more | {"seeds": range(2), "steps": 3, "progress": False})  # noqa: E731
    monkeypatch.setattr(study, "run", few)
    monkeypatch.setattr(gk.classifiers, "load", lambda *a, **k: Classifier((1, 8, 8), 10))
    data = gk.data.load("digits", n=300)
    run = gk.Trainer(*gk.models.mlp(data.shape), data, device="cpu")
    images, labels = data.batch(torch.arange(40))
    measured = lambda seed: lambda n: run.teacher.sample(n, seed=seed)  # noqa: E731
    test = gk.data.load("digits", n=40, seed=1)
    return {
        "synthetic": short_of(synthetic), "data_test": test,
        "gk": gk, "torch": torch, "data": data, "run": run, "images": images, "labels": labels, "features": features,
        "space": features.classifier("digits"), "METRICS": dict(METRICS), "Metric": Metric, "table": table,
        "ConsecutiveDistance": ConsecutiveDistance, "squared_distance": squared_distance, "Ensemble": Ensemble,
        "pair": pair, "metrics": metrics, "ns": measured(0), "mm_nsat": measured(1),
        "evaluate": lambda *a, **k: evaluate(*a, **k | {"n": 300, "progress": False}),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "parts"), examples(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_run(where: str, parts: list[doctest.Example], names: dict[str, Any]) -> None:
    if reason := NEEDS_FILES.get(where.partition(":")[0]):
        pytest.skip(reason)
    for example in parts:
        if example.want:
            shown = repr(eval(example.source, names))
            assert doctest.OutputChecker().check_output(example.want, shown + "\n", doctest.ELLIPSIS), (
                example.source
            )
        else:
            exec(compile(example.source, where, "exec"), names)
    plt.close("all")


def test_there_are_examples() -> None:
    assert len(examples()) > 10
