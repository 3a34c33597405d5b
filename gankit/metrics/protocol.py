"""A score is a value, an error and the protocol it was measured by; scores of different protocols do not compare.

A Frechet distance changes by a factor of two with the number of images, with the split of the reference and with the
way images are resized. So every score carries its protocol, and `table` refuses to put two scores of one metric below
each other when theirs differ. `mixed_table` prints them all the same, each with its protocol.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Protocol:
    """What a value depends on besides the generator. None: the metric does not depend on it.

    Attributes:
        n_fake: number of samples, of each replica.
        truncation: largest |z|; None draws from the whole normal distribution.
        reference: name of the data set compared with.
        split: the part of it, as `gankit.data.load` was told; None where nobody said.
        n_real: number of its images.
        space: name of the feature space.
        rule: what happens to images before its network: rounding, resizing.
        k: neighbours (precision, recall, density, coverage).
        splits: parts of the samples that are scored by themselves (Inception Score).
        pairs: pairs of images of each class (MS-SSIM).
    """

    n_fake: int
    truncation: float | None = None
    reference: str | None = None
    split: str | None = None
    n_real: int | None = None
    space: str | None = None
    rule: str | None = None
    k: int | None = None
    splits: int | None = None
    pairs: int | None = None

    def __str__(self) -> str:
        text = f"{self.n_fake:,} samples"
        if self.reference is not None:
            split = f"split {self.split}" if self.split else "split not stated"
            text += f" against {self.n_real:,} of {self.reference} ({split})"
        if self.space is not None:
            text += f", {self.space}: {self.rule}"
        text += "".join(
            f", {name} = {getattr(self, name):g}"
            for name in ("truncation", "k", "splits", "pairs")
            if getattr(self, name) is not None
        )
        return text

    def differences(self, other: Protocol) -> list[str]:
        """The fields in which two protocols differ, each as text with both values."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name} ({mine!r} and {theirs!r})" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, eq=False)
class Score:
    """One measured quantity.

    Attributes:
        value: float64 `[]`, or `[S]` for S replicas, on the CPU.
        error: its standard error, of the same shape: how far the value would move with other samples of the same
            generator. The reference counts as fixed, and so does training: the spread between seeds is larger.
            None where none was estimated.
        protocol: how it was measured.
        unit: such as "bits" or "of 10".
    """

    value: Tensor
    error: Tensor | None
    protocol: Protocol
    unit: str = ""

    def __str__(self) -> str:
        """Value and error; of several replicas, the median with the range, and the median error."""
        value = self.value.double()
        text = f"{torch.quantile(value, 0.5).item():.4g}"
        if value.ndim:
            text += f" [{value.min().item():.4g}, {value.max().item():.4g}]"
        if self.error is not None:
            text += f" ± {torch.quantile(self.error.double(), 0.5).item():.2g}"
        return text


class Scores(dict[str, Score]):
    """The scores of one generator by name; `str` of it (and so `print`) is a table with errors and protocol."""

    def __str__(self) -> str:
        replicas = max((score.value.numel() for score in self.values() if score.value.ndim), default=0)
        head = (
            "metric",
            f"median [range of {replicas} replicas] ± error" if replicas else "value ± error",
            "",
        )
        lines = [(name, str(score), score.unit) for name, score in self.items()]
        return "\n".join([*_columns([head, *lines]), *_legend(self)])

    def values_only(self) -> dict[str, Tensor]:
        """The values by name, `[*lead]` each, without errors and protocols."""
        return {name: score.value for name, score in self.items()}


def table(rows: Mapping[str, Mapping[str, Score]]) -> str:
    """Several evaluations below each other: a line for each row, a column for each metric.

    >>> print(table({"NS": evaluate(ns, data), "MM-nsat": evaluate(mm_nsat, data)}))

    Args:
        rows: name of a row -> what `evaluate` returned for it. A metric may be missing in some rows.

    Returns:
        The table, with the protocol of each column below.

    Raises:
        ValueError: two scores of one metric have different protocols; the message names the fields that differ.
            Also if there is nothing to show.
    """
    if not any(rows.values()):
        raise ValueError("rows must hold at least one score, got none")
    metrics: dict[str, tuple[str, Score]] = {}  # the first row that has it, and its score
    for row, scores in rows.items():
        for metric, score in scores.items():
            first_row, first = metrics.setdefault(metric, (row, score))
            if differing := first.protocol.differences(score.protocol):
                raise ValueError(
                    f"{metric} of {first_row!r} and {row!r} was measured by different protocols and does not compare: "
                    f"{', '.join(differing)}; mixed_table prints each score with its protocol"
                )
    head = ("", *(f"{name} ({score.unit})" if score.unit else name for name, (_, score) in metrics.items()))
    lines = [
        (row, *(str(scores[metric]) if metric in scores else "-" for metric in metrics))
        for row, scores in rows.items()
    ]
    return "\n".join(
        [*_columns([head, *lines]), *_legend({name: score for name, (_, score) in metrics.items()})]
    )


def mixed_table(rows: Mapping[str, Mapping[str, Score]]) -> str:
    """Scores that may have different protocols, each with its own below it: they do not compare.

    Args:
        rows: as for `table`.
    """
    found = [(row, metric, score) for row, scores in rows.items() for metric, score in scores.items()]
    head, *lines = _columns(
        [
            ("", "metric", "value ± error"),
            *((row, metric, f"{score} {score.unit}".strip()) for row, metric, score in found),
        ]
    )
    below = (textwrap.fill(str(score.protocol), 84) for *_, score in found)
    parts = (f"{line}\n{textwrap.indent(text, '    ')}" for line, text in zip(lines, below, strict=True))
    return "\n".join([head, *parts])


def _columns(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _legend(scores: Mapping[str, Score]) -> list[str]:
    """One line for each protocol among the scores, with the metrics it belongs to unless it is that of all."""
    groups: dict[Protocol, list[str]] = {}
    for name, score in scores.items():
        groups.setdefault(score.protocol, []).append(name)
    if len(groups) == 1:
        return [f"protocol: {next(iter(groups))}"]
    return [f"{', '.join(names)}: {protocol}" for protocol, names in groups.items()]
