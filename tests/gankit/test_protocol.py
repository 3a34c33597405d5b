"""Scores with their protocols, and the tables that refuse to mix them."""

import dataclasses

import pytest
import torch

from gankit.metrics.protocol import Protocol, Score, Scores, mixed_table, table

FID = Protocol(
    50_000, None, "cifar10", "train", 50_000, "Inception", "rounded to 256 levels", k=None, splits=None
)


def score(value, error=None, unit="", **changes) -> Score:
    error = None if error is None else torch.tensor(error)
    return Score(torch.tensor(value), error, dataclasses.replace(FID, **changes), unit)


OTHER = {
    "n_fake": 5_000, "truncation": 0.5, "reference": "cifar10-jpeg", "split": "test", "n_real": 10_000,
    "space": "pixels", "rule": "truncated to 256 levels", "k": 3, "splits": 10, "pairs": 200,
}  # fmt: skip


def test_every_field_of_the_protocol_is_tried_below():
    assert list(OTHER) == [f.name for f in dataclasses.fields(Protocol)]


@pytest.mark.parametrize("field", OTHER)
def test_scores_of_different_protocols_refuse_one_table(field):
    rows = {"ours": {"FID": score(12.5)}, "theirs": {"FID": score(11.0, **{field: OTHER[field]})}}
    with pytest.raises(
        ValueError, match="FID of 'ours' and 'theirs' was measured by different protocols"
    ) as caught:
        table(rows)
    assert f": {field} ({getattr(FID, field)!r} and {OTHER[field]!r}); mixed_table" in str(caught.value)
    assert len(mixed_table(rows).splitlines()) == 1 + 2 * 3  # a head; a score, and its protocol on two lines


def test_all_fields_that_differ_are_named():
    with pytest.raises(ValueError, match=r"n_fake \(50000 and 5000\), split \('train' and 'test'\);"):
        table({"a": {"FID": score(1.0)}, "b": {"FID": score(1.0, n_fake=5_000, split="test")}})


def test_equal_protocols_share_a_table():
    rows = {
        "NS": {"FID": score(12.34567, 0.0456), "classes": score(9.0, 0.3, "of 10", k=None)},
        "MM-nsat": {"FID": score(8.0)},
    }
    assert table(rows) == (
        "         FID            classes (of 10)\n"
        "NS       12.35 ± 0.046  9 ± 0.3\n"
        "MM-nsat  8              -\n"
        "protocol: 50,000 samples against 50,000 of cifar10 (split train), Inception: rounded to 256 levels"
    )
    with pytest.raises(ValueError, match="rows must hold at least one score"):
        table({"a": {}})


def test_metrics_of_different_protocols_may_stand_beside_each_other():
    one = {"FID": score(1.0), "recall[Inception]": score(0.5, k=3)}
    *_, first, second = table({"a": one}).splitlines()
    assert first.startswith("FID: 50,000 samples")
    assert second.startswith("recall[Inception]: 50,000 samples")
    assert second.endswith(", k = 3")


def test_a_mixed_table_prints_each_protocol():
    rows = {"ours": {"FID": score(12.0, 0.1)}, "theirs": {"FID": score(11.0, n_fake=5_000, truncation=0.5)}}
    head, *parts = mixed_table(rows).splitlines()
    assert head.split() == ["metric", "value", "±", "error"]
    where = next(i for i, line in enumerate(parts) if line.startswith("theirs  FID     11"))
    ours, theirs = parts[:where], parts[where:]
    assert ours[0] == "ours    FID     12 ± 0.1"
    assert " ".join(line.strip() for line in ours[1:]) == str(FID)
    assert "5,000 samples against 50,000" in theirs[1]
    assert theirs[-1].endswith("truncation = 0.5")
    assert all(len(line) <= 88 for line in parts)


def test_a_missing_split_is_said_and_an_unused_reference_is_not():
    assert "(split not stated)" in str(dataclasses.replace(FID, split=None))
    assert str(Protocol(100, splits=10)) == "100 samples, splits = 10"


def test_scores_print_as_a_table_of_values_or_of_ranges():
    one = Scores({"D_JS": score(0.25, 0.01, "bits")})
    assert str(one).splitlines()[:2] == ["metric  value ± error", "D_JS    0.25 ± 0.01    bits"]
    many = Scores({"D_JS": score([0.1, 0.4, 0.2], [0.01, 0.02, 0.03], "bits")})
    assert str(many).splitlines()[:2] == [
        "metric  median [range of 3 replicas] ± error",
        "D_JS    0.2 [0.1, 0.4] ± 0.02                 bits",
    ]
    assert torch.equal(many.values_only()["D_JS"], torch.tensor([0.1, 0.4, 0.2]))
