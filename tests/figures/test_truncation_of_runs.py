"""Figures 9, 14 and 15 of the LeakyEMA paper on any run: curves under truncation, and scores inside classes."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import gankit as gk
from figures.leakyema import fig09_truncation, fig14_classes
from gankit import metrics
from gankit.commands import main
from gankit.models.sampling import sample

matplotlib.use("Agg")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def curve(recall: list[float], precision: list[float]) -> dict[str, np.ndarray]:
    return {"recall": np.array(recall)[:, None], "precision": np.array(precision)[:, None]}


def test_better_counts_what_both_curves_reach():
    def shares(first: dict, second: dict, sign: int = 1) -> list:
        return fig09_truncation.better(first, second, "recall", "precision", sign)

    low, high = curve([0.8, 0.4, 0.0], [0.5, 0.7, 0.9]), curve([0.8, 0.4, 0.0], [0.6, 0.8, 1.0])
    assert shares(high, low) == shares(low, high, -1) == [1.0]
    assert shares(low, high) == [0.0]
    assert shares(low, low) == [0.0]  # equal is not better
    crossing = curve([0.8, 0.0], [0.4, 1.0])
    assert shares(crossing, low)[0] == pytest.approx(0.5, abs=0.02)
    assert shares(curve([0.2, 0.1], [0.5, 0.6]), curve([0.9, 0.5], [0.5, 0.6])) == [None]


@pytest.fixture(scope="module")
def digits_gans() -> dict[str, fig09_truncation.Player]:
    return fig09_truncation.train(seeds=2, steps=20)


def test_small_gans_are_paired_until_leaking_begins():
    of = fig09_truncation.train(seeds=2, steps=1)  # one step, before a quarter of more
    assert list(of) == ["baseline", "LeakyEMA"]
    short = [player.net.state_dict() for player in of.values()]
    assert all(a.shape == b.shape for a, b in zip(*(state.values() for state in short), strict=True))
    initial = fig09_truncation.train(seeds=2, steps=0)
    first, second = (player.net.state_dict() for player in initial.values())
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_curves_of_small_gans(digits_gans, monkeypatch):
    monkeypatch.setattr(fig09_truncation, "players", lambda *_: digits_gans)
    monkeypatch.setattr(fig09_truncation, "LIMITS", (None, 0.5))
    result = fig09_truncation.compute(n=100)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["space"] == "digits classifier"
    for of in result["players"].values():
        assert all(np.shape(of[name]) == (2, 2) for name in fig09_truncation.NAMES)
    # The same number, straight from its parts.
    player = digits_gans["baseline"]
    space = metrics.features.classifier("digits", train=True)
    fake = space(sample(player.net, 100, seed=1, truncation=0.5))[1]
    expected = metrics.frechet_distance(fake, space(player.data.normalise(player.data.images)))
    assert result["players"]["baseline"]["FD"][1][1] == pytest.approx(float(expected), rel=1e-3)
    fig09_truncation.draw(result)
    plt.close("all")


def test_scores_of_one_class(digits_gans, monkeypatch):
    monkeypatch.setattr(fig14_classes, "players", lambda *_: digits_gans)
    result = fig14_classes.compute(classes="3,8", n=60)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["classes"] == ["3", "8"]
    assert 0 <= result["summary"]["better_fd"] <= 2
    fig14_classes.draw(result)
    plt.close("all")
    space = metrics.features.classifier("digits", train=True)
    with pytest.raises(ValueError, match=r"0\.\.9, got 10"):
        fig14_classes.scores(digits_gans["baseline"], space, 10, 20)


def test_a_generator_that_repeats_real_images_is_perfect_in_its_class():
    data = gk.data.load("digits")

    class Memory(torch.nn.Module):
        z_dim, n_classes, shape = 1, 10, data.shape

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))  # says on which device it is

        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return data.normalise(data.images[data.labels == labels[0]][: len(z)])

    space = metrics.features.classifier("digits", train=True)
    player = fig09_truncation.Player(Memory(), data, (0,))
    found = fig14_classes.scores(player, space, 4, int((data.labels == 4).sum()))
    assert found["FD"][0] == pytest.approx(0, abs=1e-3)
    assert found["precision"] == found["recall"] == [1.0]


def test_runs_of_the_command_line(tmp_path, monkeypatch):
    """Folders that `gankit train` wrote: a small BigGAN of two seeds, a generator without classes, and nothing."""
    monkeypatch.setattr(fig09_truncation, "LIMITS", (None, 1.0))
    quiet = ["--steps", "2", "--batch-size", "4", "--width", "2", "--quiet"]
    folders = {name: str(tmp_path / name) for name in ("biggan", "plain", "nothing")}
    wanted = ["--data", "digits", "--seed", "3", "4"]
    assert main(["train", "biggan-cifar10", *wanted, *quiet, "--out", folders["biggan"]]) == 0
    assert main(["train", "ns-digits", *quiet, "--out", folders["plain"]]) == 0

    result = fig09_truncation.compute(run=f"{folders['biggan']},{folders['plain']}", n=40)
    for name, seeds in (("biggan", 2), ("plain", 1)):
        of = result["players"][folders[name]]
        assert all(np.shape(of[score]) == (2, seeds) for score in fig09_truncation.NAMES)
    assert result["summary"] == {}  # of unequal numbers of seeds no pairs can be made
    assert result["provenance"]["seeds"] == [3, 4]
    fig09_truncation.draw(result)

    inside = fig14_classes.compute(run=folders["biggan"], data="digits", classes="7", n=20)
    assert np.shape(inside["players"][folders["biggan"]]["recall"]) == (1, 2)
    plt.close("all")
    with pytest.raises(ValueError, match="conditional"):
        fig14_classes.compute(run=folders["plain"], classes="7", n=20)
    with pytest.raises(ValueError, match="shape"):
        fig09_truncation.players(run=folders["plain"], data="ring")
    with pytest.raises(gk.checkpoints.CheckpointError, match="no checkpoint"):
        fig09_truncation.players(run=folders["nothing"])
