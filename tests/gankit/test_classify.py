"""`gankit classify` and `gankit sequence`, on runs of a few steps."""

import json

import numpy as np
import pytest
import torch

import gankit as gk
from gankit import commands
from gankit.classifiers import weights
from gankit.data import packs
from gankit.training import checkpoints

TINY = (
    "--data",
    "digits",
    "--width",
    "2",
    "--z-dim",
    "8",
    "--y-dim",
    "4",
    "--steps",
    "3",
    "--quiet",
    "--device",
    "cpu",
)


def call(*arguments):
    return commands.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Two conditional runs of three steps."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        status = call(
            "train",
            "incremental-biggan-cifar10",
            *TINY,
            "--batch-size",
            8,
            "--seed",
            seed,
            "--out",
            root / str(seed),
        )
        assert status == 0
    return root / "0", root / "1"


SHORT = (
    "--epochs",
    2,
    "--batches",
    3,
    "--batch-size",
    10,
    "--quiet",
    "--device",
    "cpu",
    "--network",
    "generator",
)


def test_classify_prints_and_writes_the_same_and_repeats_itself(conditional, capsys, tmp_path):
    first, second = conditional
    call_it = (
        "classify",
        "--from",
        first,
        "--from",
        second,
        "--shares",
        3,
        1,
        *SHORT,
        "--to",
        tmp_path / "a.json",
    )
    assert call(*call_it) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "a.json").read_text())
    assert f"accuracy {result['last']:.2%} (best epoch {result['best']:.2%})" in printed
    assert result["steps"] == 6
    assert result["test images"] == 355
    assert result["best"] >= result["last"]
    assert call(*call_it) == 0
    assert {**json.loads((tmp_path / "a.json").read_text()), "seconds": 0} == {**result, "seconds": 0}


def test_a_fixed_set_is_kept_as_a_pack(conditional, tmp_path):
    folder = tmp_path / "set"
    made = ("--fixed", 25, "--keep", folder, "--precision", "bfloat16")
    assert call("classify", "--from", conditional[0], *made, *SHORT) == 0
    kept = gk.data.load(str(folder))
    assert len(kept) == 25
    assert kept.shape == (1, 8, 8)
    assert kept.n_classes == 10
    assert packs.is_pack(folder)


def test_real_images_teach_more_than_three_steps_of_a_gan(conditional, tmp_path):
    rows = {}
    for name, flags in {"real": ("--real",), "generated": ()}.items():
        out = tmp_path / f"{name}.json"
        long = ("--epochs", 3, "--batches", 40, "--batch-size", 32, "--quiet", "--device", "cpu")
        assert call("classify", "--from", conditional[0], *flags, *long, "--to", out) == 0
        rows[name] = json.loads(out.read_text())["last"]
    assert rows["real"] > 0.9 > 0.5 > rows["generated"]


def test_a_class_that_never_passes_is_one_line(conditional, capsys):
    assert call("classify", "--from", conditional[0], "--filter", "--threshold", 0.999, *SHORT) == 2
    error = capsys.readouterr().err
    assert "passes the filter too seldom" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--keep", "x"), "--keep keeps the images of --fixed"),
        (("--shares", 1, 2), "one positive number for each of 1 generators"),
    ],
)
def test_classify_refuses(conditional, capsys, flags, message):
    assert call("classify", "--from", conditional[0], *flags, *SHORT) == 2
    assert message in capsys.readouterr().err


def test_an_unconditional_run_is_refused(tmp_path, capsys):
    assert (
        call("train", "ns-digits", "--steps", 2, "--out", tmp_path / "a", "--quiet", "--device", "cpu") == 0
    )
    assert call("classify", "--from", tmp_path / "a", *SHORT) == 2
    assert "must be conditional" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["B", "D", "none"])
def test_sequence_weighs_by_what_came_before_and_goes_on_where_it_stopped(method, tmp_path, capsys):
    def train(out, gans, steps):
        flags = ("--method", method, "--features", "pixels", "--quiet", "--device", "cpu", "-n", 200)
        assert call("sequence", "ns-digits", "--gans", gans, "--steps", steps, "--out", out, *flags) == 0

    train(tmp_path / "whole", 3, 4)
    assert "3: step 4, trained on an effective" in capsys.readouterr().out
    w = [np.load(tmp_path / "whole" / str(k) / "weights.npy") for k in (1, 2, 3)]
    assert w[0].tolist() == [1.0] * len(w[0])
    size = float(weights.effective_sample_size(torch.from_numpy(w[1])))
    assert (size == len(w[1])) == (method == "none")
    # Stopped after two GANs, and inside the third.
    train(tmp_path / "parts", 2, 4)
    train(tmp_path / "parts", 3, 4)
    for k in (1, 2, 3):
        found = [
            checkpoints.read(checkpoints.latest(tmp_path / name / str(k)))["G"] for name in ("whole", "parts")
        ]
        assert all(torch.equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))
        assert np.array_equal(w[k - 1], np.load(tmp_path / "parts" / str(k) / "weights.npy"))


def test_weights_of_other_images_are_refused(tmp_path, capsys):
    (tmp_path / "a" / "1").mkdir(parents=True)
    np.save(tmp_path / "a" / "1" / "weights.npy", np.ones(3))
    flags = ("--features", "pixels", "--steps", 2, "--quiet", "--device", "cpu")
    assert call("sequence", "ns-digits", "--out", tmp_path / "a", *flags) == 2
    assert "3 weights for 1797 images" in capsys.readouterr().err
