"""Who judges pictures that have no classifier of the book's."""

from __future__ import annotations

import dataclasses

import torch

from figures import judging
from gankit import classifiers
from gankit.data import Dataset


def pictures(seed: int = 0) -> Dataset:
    """Pictures of ten classes, brighter from class to class."""
    labels = torch.arange(300) % 10
    noise = torch.randint(0, 40, (300, 3, 8, 8), generator=torch.Generator().manual_seed(seed))
    return Dataset("own", (noise + 20 * labels[:, None, None, None]).byte(), labels, tuple("0123456789"))


def test_a_set_of_ones_own_gets_a_classifier_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path))
    trained = []
    train = classifiers.train
    monkeypatch.setattr(
        classifiers, "train", lambda *a, **k: trained.append(a) or train(*a, **k | {"epochs": 2})
    )
    first, second = (judging.classifier_of(pictures()) for _ in range(2))
    assert len(trained) == 1
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    # Others under the same name are not judged by it.
    judging.classifier_of(pictures(1))
    judging.classifier_of(dataclasses.replace(pictures(), classes=tuple("abcdefghij")))
    assert len(trained) == 3
    kept = sorted(path.name for path in (tmp_path / "classifiers").glob("*.pt"))
    assert len(kept) == 3
    assert all(name.startswith("own-") for name in kept)
