"""The command line: what a run leaves behind, what the other commands make of it, and how bad input is refused."""

import dataclasses
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gankit as gk
from gankit import classifiers, commands, plotting
from gankit.classifiers.training import PICTURES
from gankit.commands import evaluate as evaluating
from gankit.metrics import evaluate, features
from gankit.recipes import Recipe, from_dict, recipes, register
from gankit.recipes import recipe as settings
from gankit.training import checkpoints

COMMANDS = (
    "train",
    "sample",
    "export",
    "evaluate",
    "plot",
    "recipes",
    "classifier",
    "classify",
    "sequence",
    "pack",
    "verify",
    "import-biggan",
)
FLAGS = [field.name for field in commands.flags.fields()]
SHORT_NAMES = (
    "data", "size", "model", "z_dim", "depth", "width", "y_dim", "d_depth", "loss", "steps", "batch_size", "n_dis",
    "accumulate", "precision", "optimizer", "lr", "d_lr", "beta1", "beta2", "d_beta2", "adam_eps", "schedule",
    "schedule_end", "ema_decay",
    "ema_start", "leak_beta", "leak_start", "leak_source", "r1", "wgan_gp", "dragan", "orthogonal", "clip",
    "g_condition", "d_condition", "learn_classes", "show_classes",
)  # fmt: skip
# Eight steps of a narrow network, with checkpoints at 2, 4, 6 and 8.
SHORT = (
    "--steps",
    "8",
    "--width",
    "8",
    "--save-every",
    "2",
    "--log-every",
    "2",
    "--quiet",
    "--device",
    "cpu",
)


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


Gankit = Callable[..., Outcome]


@pytest.fixture
def gankit(capsys) -> Gankit:
    """Run a command in this process: exit status, stdout and stderr."""

    def run(*arguments: object) -> Outcome:
        try:
            status = commands.main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse leaves in this way
            status = end.code
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def done(gankit, tmp_path) -> Path:
    """The folder of a finished short run."""
    folder = tmp_path / "run"
    assert gankit("train", "ns-digits", "--out", folder, *SHORT).status == 0
    return folder


def refused(outcome: Outcome, *pieces: str, status: int = 2) -> None:
    """The command failed, with nothing but one line on stderr that holds every piece."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert re.fullmatch(r"gankit[^\n]*\n", outcome.err), outcome.err
    for piece in pieces:
        assert piece in outcome.err


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def leaves(value: Any, at: str = "") -> dict[str, Any]:
    """Tensors and plain values of nested dicts and lists, by their place."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in leaves(inner, f"{at}/{key}").items()}
    return {at: value}


def assert_same_run(a: Path, b: Path) -> None:
    """The newest checkpoints of two runs agree in every bit but the clock's."""
    ours, theirs = (leaves(checkpoints.read(checkpoints.latest(folder))) for folder in (a, b))
    assert ours.keys() == theirs.keys()
    for part in ("G", "D", "teacher", "g_opt", "d_opt", "streams"):
        assert any(isinstance(ours[at], Tensor) for at in ours if at.startswith(f"/{part}/")), part
    for at, value in ours.items():
        if at in ("/seconds", "/history"):
            continue
        if isinstance(value, Tensor):
            assert value.dtype == theirs[at].dtype, at
            assert torch.equal(value, theirs[at]), at
        else:
            assert value == theirs[at], at

    def timeless(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows(folder)]

    assert timeless(a) == timeless(b)


# --- Training, and going on with it -----------------------------------------------------------------------------


def test_a_killed_run_started_again_ends_as_if_never_killed(gankit, tmp_path, monkeypatch):
    """The issue's command, with SIGKILL half way: bit-identical parameters, and each step logged once."""
    monkeypatch.chdir(tmp_path)
    command = ["train", "mm-nsat-digits", "--out", "runs/a", "--steps", "2000", "--device", "cpu", "--quiet"]
    half_way = checkpoints.path_of(Path("runs/a"), 1000)
    process = subprocess.Popen([sys.executable, "-m", "gankit", *command])
    deadline = time.monotonic() + 120
    # Past the checkpoint, so that some logged steps are lost and have to be done and logged again.
    while not (half_way.exists() and '"step": 1200,' in Path("runs/a/log.jsonl").read_text()):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    last = checkpoints.latest(Path("runs/a"))
    assert half_way <= last < checkpoints.path_of(Path("runs/a"), 2000)

    again = gankit(*command)
    assert again.status == 0
    assert f"going on from step {int(last.stem[-8:]):,}" in again.out
    command[3] = "runs/b"
    assert gankit(*command).status == 0

    assert [row["step"] for row in rows(Path("runs/a"))] == list(range(50, 2001, 50))
    assert_same_run(Path("runs/a"), Path("runs/b"))
    names = {path.name for path in Path("runs/a").iterdir()}
    assert names - {".lock"} == {
        "checkpoint-00001500.pt",
        "checkpoint-00002000.pt",
        "log.jsonl",
        "recipe.json",
    }


@pytest.mark.parametrize(
    "changes", [[], ["--seed", "3", "1"], ["--optimizer", "rmsprop", "--leak-beta", "0.5"]]
)
def test_a_larger_steps_goes_on_with_a_finished_run(gankit, tmp_path, changes):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    gankit("train", "ns-digits", "--out", parts, *SHORT, *changes, "--steps", "4")
    outcome = gankit("train", "ns-digits", "--out", parts, *SHORT, *changes)
    assert outcome.status == 0
    assert "going on from step 4" in outcome.out
    assert json.loads((parts / "recipe.json").read_text())["steps"] == 8
    gankit("train", "ns-digits", "--out", whole, *SHORT, *changes)
    assert_same_run(parts, whole)


def test_a_finished_run_is_left_alone(gankit, done):
    before = files(done)
    for steps in ("8", "5"):
        outcome = gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", steps)
        assert outcome.status == 0
        assert "the run is already at step" in outcome.out
    assert files(done) == before


def test_the_folder_is_named_after_recipe_and_seeds(gankit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gankit("train", "ns-ring", *SHORT, "--steps", "2", "--seed", "4", "7")
    stored = json.loads(Path("runs/ns-ring-seed4-7/recipe.json").read_text())
    assert (stored["name"], stored["seeds"], stored["networks"]["width"]) == ("ns-ring", [4, 7], 8)


@pytest.fixture
def trained(gankit, monkeypatch) -> Callable[..., Recipe]:
    """The recipe that `gankit train` would build."""
    built = []

    def capture(recipe: Recipe, seeds: tuple[int, ...], **_: Any) -> None:
        built.append(recipe)
        raise ValueError("stop here")

    def train(*words: object) -> Recipe:
        refused(gankit("train", *words), "stop here")
        return built.pop()

    monkeypatch.setattr(Recipe, "build", capture)
    return train


def test_every_field_of_a_recipe_has_a_flag(trained):
    """Under each of its names, and sets what `Recipe.changed` sets under that name."""
    values = {
        "data": "ring", "size": 7, "networks.family": "conv", "networks.z_dim": 5, "networks.depth": 7,
        "networks.width": 11, "networks.y_dim": 9, "networks.d_depth": 6, "loss": "hinge", "steps": 12,
        "batch_size": 13, "n_dis": 2, "accumulate": 3, "precision": "bfloat16", "optimizer": "sgd", "lr": 0.25,
        "schedule": "cosine_decay", "schedule_end": 60, "share_fakes": True,
        "beta1": 0.75, "beta2": 0.875, "adam_eps": 0.0625, "ema.decay": 0.625, "ema.half_life": 64.0, "ema.start": 8,
        "leak": None, "leak.beta": 0.375, "leak.start": 9, "leak.source": "generator", "leak.precision": "bfloat16",
        "d_terms.r1.gamma": 1.5, "d_terms.wgan_gp.weight": 2.5, "d_terms.dragan.weight": 3.5,
        "d_terms.dragan.spread": 4.5, "g_terms.orthogonal.weight": 0.5, "projections.clip_weights.limit": 0.0625,
        "d_terms.r1.every": 2, "d_terms.wgan_gp.every": 3, "d_terms.dragan.every": 4,
        "d_terms.r2.gamma": 1.25, "d_terms.r2.every": 6, "g_terms.orthogonal.every": 5,
        "rules.began_balance.gamma": 0.625, "rules.began_balance.rate": 0.25,
        "networks.g_condition": "skip-z", "networks.d_condition": "concat-hidden", "d_terms.learn_classes.weight": 1.75,
        "d_terms.learn_classes.fake": 0.25, "d_terms.learn_classes.every": 7, "g_terms.show_classes.weight": 2.25,
        "g_terms.show_classes.every": 8, "networks.normalisation": "layer", "d_terms.l2.weight": 0.75,
        "d_terms.l2.every": 9,
        "d_terms.drift.weight": 0.25, "d_terms.drift.every": 7, "g_terms.path_length.weight": 1.5,
        "g_terms.path_length.decay": 0.5, "g_terms.path_length.part": 0.25, "g_terms.path_length.every": 8,
        "rules.mean_path_length.decay": 0.75, "networks.w_dim": 17, "networks.mapping": 3,
        "networks.max_width": 19, "networks.group": 2, "networks.phase": 21, "networks.conditional": True,
        "subset": 150, "freeze_d": 1, "data_augment": "flips", "data_augment.p": 0.25, "augment": "ada",
        "augment.policy": "cutout", "augment.parts": "blit", "augment.steps": "turn", "augment.p": 0.25,
        "d_terms.cr.weight": 2.5, "d_terms.cr.steps": "cutout", "d_terms.cr.every": 2, "d_terms.bcr.real": 2.5,
        "d_terms.bcr.fake": 2.5, "d_terms.bcr.steps": "cutout", "d_terms.bcr.every": 2, "d_terms.zcr.weight": 2.5,
        "d_terms.zcr.sigma": 0.5, "d_terms.zcr.every": 2, "g_terms.diversity.weight": 2.5,
        "g_terms.diversity.sigma": 0.5, "g_terms.diversity.every": 2, "rules.adapt_p.target": 0.5,
        "rules.adapt_p.images": 70, "rules.adapt_p.interval": 2, "rules.adapt_p.start": 0.5,
    } | {
        f"{player}_optimizer{field}": value for player in "gd" for field, value in {
            "": "sgd", ".lr": 0.375, ".beta1": 0.25, ".beta2": 0.375, ".eps": 0.5, ".momentum": 0.25, ".decay": 0.125,
            ".schedule": "cosine_decay", ".schedule.end": 70, ".schedule.start": 7, ".schedule.last": 0.25,
        }.items()
    }  # fmt: skip
    # Kinds that others registered in this process (a family of networks, an augmentation) add flags of theirs.
    assert {name.partition(".")[0] for name in set(FLAGS) - set(values)} <= {"networks", "augment", "rules"}
    assert set(values) <= set(FLAGS)
    beside = {
        "networks.family": {"d_depth": None}, "networks.y_dim": {"model": "biggan", "depth": None, "d_depth": None},
        "rules.began_balance.rate": {"rules.began_balance.gamma": 0.5},
        "ema.half_life": {"ema.decay": None}, "d_terms.dragan.spread": {"dragan": 1.0},
        "d_terms.r1.every": {"r1": 1.0}, "d_terms.r2.every": {"r2": 1.0}, "d_terms.wgan_gp.every": {"wgan_gp": 1.0},
        "networks.g_condition": {"d_condition": "concat"}, "networks.d_condition": {"g_condition": "one-hot"},
        "d_terms.learn_classes.every": {"learn_classes": 1.0}, "g_terms.show_classes.every": {"show_classes": 1.0},
        "d_terms.dragan.every": {"dragan": 1.0}, "g_terms.orthogonal.every": {"orthogonal": 1.0},
        "d_terms.l2.every": {"l2": 1.0}, "d_terms.drift.every": {"drift": 1.0},
        "g_terms.path_length.every": {"path_length": 1.0},
        **{f"networks.{name}": {"model": "stylegan", "depth": None, "d_depth": None} for name in (
            "w_dim", "mapping", "max_width", "group", "phase", "conditional"
        )},
        "augment.policy": {"augment": "diff_augment"}, "augment.parts": {"augment": "ada"},
        "augment.steps": {"augment": "chain"}, "augment.p": {"augment": "chain"},
        **{f"d_terms.{t}.{f}": {t: 1.0} for t in ("cr", "bcr", "zcr") for f in ("steps", "every", "fake", "sigma")},
        "g_terms.diversity.sigma": {"diversity": 1.0}, "g_terms.diversity.every": {"diversity": 1.0},
        **{f"{p}_optimizer.momentum": {f"{p}_optimizer": "sgd"} for p in "gd"},
        **{f"{p}_optimizer.decay": {f"{p}_optimizer": "rmsprop"} for p in "gd"},
        "schedule": {"schedule_end": 50}, "schedule_end": {"schedule": "linear_decay"},
        **{f"{p}_optimizer.schedule": {f"{p}_optimizer.schedule.end": 50} for p in "gd"},
        **{f"{p}_optimizer.schedule.{name}":
           {f"{p}_optimizer.schedule": "linear_decay", f"{p}_optimizer.schedule.end": 80}
           for p in "gd" for name in ("end", "start", "last")},
    }  # fmt: skip

    def words(changes: dict[str, Any]) -> list[str]:
        return [w for name, v in changes.items() for w in (f"--{name.replace('_', '-')}", str(v).lower())]

    named = recipes["leakyema-digits"]
    assert trained("leakyema-digits") == named
    reached = set()
    for field in (field for field in commands.flags.fields() if field.name in values):
        for name in field.names:
            changes = beside.get(field.name, {}) | {name: values[field.name]}
            changed = trained("leakyema-digits", *words(changes))
            assert changed == named.changed(changes) != named, name
            reached.add(name)
    assert reached >= set(SHORT_NAMES)
    first = ("--d-lr", 0.5, "--lr", 0.25)
    changed = trained("leakyema-digits", *first)
    assert (changed.g_optimizer.lr, changed.d_optimizer.lr) == (0.25, 0.5), "in any order"


@dataclasses.dataclass(frozen=True)
class MeanLogit:
    """weight times the squared mean logit of real samples.

    Attributes:
        weight: strength of the pull, at least 0 %.
        at: where it pulls to.
    """

    weight: float = 1.0
    at: float = 0.0


def test_a_term_registered_by_a_user_has_flags(gankit, trained):
    register("d_terms")(MeanLogit)
    try:
        changed = trained("ns-digits", "--mean-logit", 0.5, "--d-terms.mean-logit.at", 2)
        assert changed.d_terms == (MeanLogit(0.5, 2.0),)
        words = " ".join(gankit("train", "ns-digits", "--help").out.split())
        assert (
            "--mean-logit X, --d-terms.mean-logit.weight X strength of the pull, at least 0 % (none)" in words
        )
    finally:
        del settings.records.KINDS["MeanLogit"], settings.records.PLACES["d_terms"]["mean_logit"]


def test_the_help_of_a_recipe_shows_its_values(gankit):
    general = gankit("train", "--help").out
    own = gankit("train", "leakyema-digits", "--help").out
    words = " ".join(own.split())
    for field in commands.flags.fields():
        assert f"--{field.name.replace('_', '-')} X" in general
        assert f"{field.help} ({settings.value(recipes['leakyema-digits'], field.name)})" in words, field.name
    assert recipes["leakyema-digits"].about in words
    assert "(2000)" not in general, "values belong to a recipe"
    refused(gankit("train", "leakyema-digit", "--help"), "did you mean leakyema-digits")


def test_ctrl_c_says_how_to_go_on(gankit, tmp_path, monkeypatch):
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gk.Trainer, "fit", interrupted)
    outcome = gankit("train", "ns-digits", "--out", tmp_path / "run", *SHORT)
    refused(outcome, "goes on from what is saved", status=130)


def test_ctrl_c_while_pytorch_loads_is_one_line():
    """`-X importtime` tells on stderr what is loaded, as soon as it is."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "gankit", "train", "ns-digits", "--out", os.devnull],
        stderr=subprocess.PIPE,
        text=True,
        # Whatever this process was started with: a shell script's & ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert any(" torch." in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("gankit: stopped")


def test_a_damaged_recipe_json_harms_nothing(gankit, done):
    """The checkpoint says what the run is; the file beside it is for people, and is written anew."""
    before = (done / "recipe.json").read_text()
    (done / "recipe.json").write_text(before[:40])
    assert gankit("sample", done).status == 0
    assert gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", "10").status == 0
    assert json.loads((done / "recipe.json").read_text()) == json.loads(before) | {"steps": 10}


def test_the_best_checkpoint_is_kept_and_read(gankit, tmp_path, quick_judge):
    """It is the lowest of the log; a watched run trains as an unwatched one does."""
    run, plain = tmp_path / "run", tmp_path / "plain"
    watched = ("--best", "fd", "--best-every", 2, "--best-n", 60, "--lr", 0.01)
    assert gankit("train", "ns-digits", "--out", run, *SHORT, *watched).status == 0
    measured = {row["step"]: row["FD[digits classifier]"] for row in rows(run)}
    assert list(measured) == [2, 4, 6, 8]
    best = checkpoints.read(run / "best.pt")["step"]
    assert measured[best] == min(measured.values())
    assert gankit("evaluate", run, "--best", "-n", 60, "--metrics", "fd", "--quiet").status == 0
    result = json.loads((run / "evaluation.json").read_text())
    assert result["step"] == best
    assert result["scores"]["FD[digits classifier]"] == pytest.approx(measured[best], rel=1e-5)
    assert f"at step {best}" in gankit("sample", run, "--best", "-n", 4).out
    gankit("train", "ns-digits", "--out", plain, *SHORT, "--lr", 0.01)
    a, b = (checkpoints.read(checkpoints.latest(folder)) for folder in (run, plain))
    assert all(torch.equal(a["G"][key], b["G"][key]) for key in a["G"])
    refused(gankit("sample", plain, "--best"), "there is no checkpoint", "best.pt")


# --- Sampling ---------------------------------------------------------------------------------------------------


def restored(folder: Path) -> gk.Trainer:
    """The run in a folder, built without the command line."""
    state = checkpoints.read(checkpoints.latest(folder))
    recipe, seeds = from_dict(json.loads(state["recipe"]))
    return recipe.build(seeds, device="cpu").load(checkpoints.latest(folder))


def test_a_grid_of_images_is_the_teachers_samples(gankit, done):
    outcome = gankit("sample", done)
    assert outcome.status == 0
    assert outcome.out == (
        f"{done / 'samples.png'}: 64 samples of the averaged generator (teacher) at step 8; it still remembers "
        "its initial weights, and --network generator may look better\n"
    )
    picture = np.asarray(Image.open(done / "samples.png"))
    tiles = plotting.tile(restored(done).teacher.sample(64), pad=2)
    zoom = 512 // len(tiles)
    assert picture.shape == (82 * zoom, 82 * zoom, 3)
    assert np.array_equal(picture[::zoom, ::zoom], np.repeat(tiles[..., None], 3, axis=2))
    assert np.array_equal(picture, picture[::zoom, ::zoom].repeat(zoom, 0).repeat(zoom, 1))


def test_the_flags_of_sample_choose_network_seed_number_and_file(gankit, done, tmp_path):
    def picture(*flags: object) -> np.ndarray:
        assert gankit("sample", done, "--to", tmp_path / "new" / "x.png", "-n", 9, *flags).status == 0
        return np.asarray(Image.open(tmp_path / "new" / "x.png"))

    pictures = [
        picture(),
        picture("--network", "generator"),
        picture("--sample-seed", 1),
        picture("--truncation", 0.1),
    ]
    assert {p.shape for p in pictures} == {(512 // 32 * 32,) * 2 + (3,)}
    assert len({p.tobytes() for p in pictures}) == 4
    assert np.array_equal(picture(), pictures[0])
    assert not (done / "samples.png").exists()


def test_ways_between_samples(gankit, done, tmp_path):
    folder, target = tmp_path / "by-class", tmp_path / "x.npz"
    assert gankit("train", "projection-digits", "--out", folder, *SHORT).status == 0
    saved = gk.load(folder, device="cpu")

    def made(*flags: object) -> dict[str, np.ndarray]:
        assert gankit("sample", folder, "--to", target, *flags).status == 0
        return dict(np.load(target))

    found = made("-n", 12, "--interpolate", "class", "--ways", 3, "--labels", "3,8,1")
    ways = saved.interpolate("class", rows=3, steps=4, labels=["3", "8", "1"])
    assert np.array_equal(
        found["images"], gk.metrics.features.to_uint8(ways.flatten(0, 1)).movedim(1, -1).numpy()
    )
    assert found["labels"].shape == (12, 10)
    found = made("-n", 6, "--interpolate", "z", "--ways", 2, "--labels", "3,8", "--sample-seed", 4)
    ways = saved.interpolate("z", rows=2, steps=3, labels=["3", "8"], seed=4)
    assert np.array_equal(
        found["images"], gk.metrics.features.to_uint8(ways.flatten(0, 1)).movedim(1, -1).numpy()
    )
    assert found["labels"].tolist() == [3, 3, 3, 8, 8, 8]
    # Samples between classes belong to no class's folder; a grid has a row for each way.
    assert gankit("sample", folder, "--to", tmp_path / "pngs", "-n", 4, "--interpolate", "class", "--ways", 2,
                  "--labels", "0,1").status == 0  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "pngs").iterdir()) == [f"{i:06d}.png" for i in range(4)]
    assert gankit("sample", folder, "-n", 6, "--interpolate", "z", "--ways", 2).status == 0
    picture = np.asarray(Image.open(folder / "samples.png"))
    assert picture.shape[0] / picture.shape[1] == pytest.approx(22 / 32)
    assert gankit("sample", done, "-n", 6, "--interpolate", "z", "--ways", 2).status == 0, (
        "without classes, too"
    )
    refused(
        gankit("sample", folder, "-n", 7, "--interpolate", "z", "--ways", 2),
        "--n must be a multiple of --ways",
    )
    refused(gankit("sample", folder, "-n", 16, "--interpolate", "class"), "needs labels, at least 2")
    refused(gankit("sample", folder, "--interpolate", "z", "--truncation", 0.5), "leave out --truncation")


def test_several_seeds_stand_side_by_side(gankit, tmp_path):
    folder = tmp_path / "run"
    gankit("train", "ns-digits", "--out", folder, *SHORT, "--seed", 0, 1, 2)
    assert gankit("sample", folder, "-n", 4).status == 0
    picture = np.asarray(Image.open(folder / "samples.png"))
    tiles = [plotting.tile(images, pad=2) for images in restored(folder).teacher.sample(4)]
    zoom = 512 // 22
    assert np.array_equal(picture[::zoom, ::zoom, 0], np.concatenate(tiles, axis=1))
    assert not np.array_equal(tiles[0], tiles[1])


@pytest.mark.parametrize(("model", "seeds"), [("conv", [0]), ("projection-gan", [0, 1]), ("biggan", [0, 1])])
def test_pictures_need_not_be_there_to_be_sampled(gankit, tmp_path, picture_folder, model, seeds):
    """A run can be sampled on a machine that does not have its data; measuring it needs them."""
    run, moved = tmp_path / "run", tmp_path / "moved"
    flags = ("--model", model, "--size", 8, "--depth", "none", "--d-depth", "none", "--z-dim", 12, *SHORT)
    command = ("train", "ns-digits", "--data", picture_folder, "--out", run, *flags, "--batch-size", 4)
    assert gankit(*command, "--seed", *seeds).status == 0
    assert gankit("sample", run, "-n", 4).status == 0
    with_data = (run / "samples.png").read_bytes()
    picture_folder.rename(moved)
    assert gankit("sample", run, "-n", 4).status == 0
    assert (run / "samples.png").read_bytes() == with_data
    refused(gankit("evaluate", run, "-n", 20), "there is no folder or .zip file")


def test_standing_statistics_are_those_of_the_samples_that_are_asked_for(gankit, tmp_path, picture_folder):
    run = tmp_path / "run"
    flags = ("--model", "biggan", "--size", 8, "--depth", "none", "--d-depth", "none", "--z-dim", 12, *SHORT)
    assert (
        gankit("train", "ns-digits", "--data", picture_folder, "--out", run, *flags, "--batch-size", 4).status
        == 0
    )
    assert gankit("sample", run, "-n", 4, "--truncation", 0.5).status == 0
    plain = (run / "samples.png").read_bytes()
    outcome = gankit("sample", run, "-n", 4, "--truncation", 0.5, "--standing", 3)
    assert "with statistics of 3 batches" in outcome.out
    assert (run / "samples.png").read_bytes() != plain
    net = gk.sampling.standing_statistics(restored(run).teacher.net, batches=3, truncation=0.5)
    tiles = plotting.tile(gk.sampling.sample(net, 4, truncation=0.5), pad=2)
    picture = np.asarray(Image.open(run / "samples.png"))
    zoom = 512 // len(tiles)
    shown = picture[::zoom, ::zoom]
    assert np.array_equal(shown if tiles.ndim == 3 else shown[..., 0], tiles)


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_points_are_scattered_one_panel_per_seed(gankit, tmp_path, seeds):
    folder = tmp_path / "run"
    gankit("train", "ns-ring", "--out", folder, *SHORT, "--seed", *seeds)
    outcome = gankit("sample", folder)
    assert outcome.status == 0
    assert "2,000 samples" in outcome.out
    picture = np.asarray(Image.open(folder / "samples.png").convert("RGB")).astype(int)
    height, width, _ = picture.shape
    assert width / height == pytest.approx(len(seeds), rel=0.15)
    blue = (picture[..., 2] - picture[..., 0]) > 100  # generated points
    for panel in np.array_split(blue, len(seeds), axis=1):
        assert panel.sum() > 50


def test_an_interrupted_sample_leaves_the_earlier_picture(gankit, done, monkeypatch):
    gankit("sample", done)
    before = files(done)

    def half(self: Image.Image, path: Path, **_: Any) -> None:
        path.write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half)
    assert gankit("sample", done, "--sample-seed", 1).status == 130
    assert gankit("sample", done, "--to", done / "new.png").status == 130
    assert files(done) == before


# --- Evaluating -------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_judge(monkeypatch, tmp_path_factory) -> Path:
    """A cache of its own, and a classifier of digits that is trained for one epoch."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GANKIT_CACHE", str(cache))
    monkeypatch.setitem(classifiers.RECIPES, "digits", classifiers.RECIPES["digits"] | {"epochs": 1})
    return cache


def test_digits_are_measured_by_a_classifier_that_is_trained_once(gankit, done, quick_judge):
    first = gankit("evaluate", done, "-n", 200, "--quiet")
    assert first.status == 0
    assert first.err == "training the digits classifier, once\n"
    [kept] = (quick_judge / "classifiers").glob("digits-*.pt")
    trained = kept.read_bytes()
    second = gankit("evaluate", done, "-n", 200, "--quiet")
    assert second.err == ""
    assert second.out == first.out
    assert kept.read_bytes() == trained

    heading, head, covered, *others, protocol, _ = first.out.splitlines()
    assert heading == "ns-digits, step 8, teacher, 200 samples against 1,797 of digits"
    assert head.split() == ["metric", "value", "±", "error"]
    assert protocol == (
        "protocol: 200 samples against 1,797 of digits (split all), digits classifier: images as they are"
    )
    result = json.loads((done / "evaluation.json").read_text())
    names = ["classes_covered", "D_JS[classes]", "FD[digits classifier]"]
    assert list(result["scores"]) == list(result["errors"]) == list(result["protocols"]) == names
    assert covered.split()[0::4] == ["classes_covered", "of"]
    for line, name in zip([covered, *others], names, strict=True):
        assert line.startswith(name)
        shown = f"  {result['scores'][name]:.4g} ± {result['errors'][name]:.2g}"
        assert shown in line
    fields = gk.metrics.Protocol(200, None, "digits", "all", 1797, "digits classifier", "images as they are")
    assert {name: gk.metrics.Protocol(**p) for name, p in result["protocols"].items()} == dict.fromkeys(
        names, fields
    )
    expected = {
        "recipe": "ns-digits", "step": 8, "images": 8 * 32, "network": "teacher", "samples": 200,
        "reference": {"data": "digits", "images": 1797, "split": "all", "classes": 10}, "sample_seed": 0,
        "seeds": [0],
    }  # fmt: skip
    assert {key: result[key] for key in expected} == expected
    assert result["versions"]["torch"] == str(torch.__version__)
    # A network of eight steps draws noise, far from digits.
    assert result["scores"]["classes_covered"] < 10
    assert result["scores"]["D_JS[classes]"] > 0.1


def test_points_are_measured_by_their_modes_with_the_range_over_seeds(gankit, tmp_path):
    folder, target = tmp_path / "run", tmp_path / "scores.json"
    gankit("train", "mm-ring", "--out", folder, *SHORT, "--seed", 0, 5)
    outcome = gankit("evaluate", folder, "-n", 400, "--to", target, "--network", "generator")
    assert outcome.status == 0
    scores = json.loads(target.read_text())["scores"]
    run = restored(folder)
    direct = evaluate(gk.sampling.sample(run.G, 400), run.data, errors=False, progress=False).values_only()
    assert list(scores) == list(direct)
    for name, value in direct.items():
        assert scores[name] == pytest.approx(value.tolist(), rel=1e-5), name
    fd = scores["FD[points]"]
    assert len(fd) == 2
    assert f"  {np.median(fd):.4g} [{min(fd):.4g}, {max(fd):.4g}] ± " in outcome.out
    assert not (folder / "evaluation.json").exists()


def test_one_gaussian_that_is_missed_altogether_scores_the_bound(gankit, tmp_path):
    """A single mode has no other mode to compare with, and a generator may hit none."""
    data = gk.data.load("gaussian", n=1000)
    far = torch.full((2, 50, 2), 100.0) + torch.randn(2, 50, 2)
    scores = evaluate(far, data, errors=False, progress=False).values_only()
    assert scores["D_JS[modes]"].tolist() == [1, 1]
    assert scores["modes_covered"].tolist() == [0, 0]
    scores = evaluate(data.images[:500], data, errors=False, progress=False).values_only()
    assert scores["D_JS[modes]"].item() == 0
    assert scores["modes_covered"].item() == 1


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """Class folders of small pictures; red ones sort before green ones. Called digits, which it is not."""
    folder = tmp_path / "pictures" / "digits"
    rng = np.random.default_rng(0)
    for kind, channel in (("a-red", 0), ("b-green", 1)):
        (folder / kind).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 40, (6, 6, 3), dtype=np.uint8)
            pixels[..., channel] += 200
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return folder


def test_a_folder_of_pictures_is_measured_by_its_pixels(gankit, tmp_path, picture_folder):
    run = tmp_path / "run"
    outcome = gankit("train", "ns-digits", "--data", picture_folder, "--out", run, *SHORT)
    assert outcome.status == 0
    outcome = gankit("evaluate", run, "-n", 100)
    assert outcome.status == 0
    assert "FD[pixels]" in outcome.out
    result = json.loads((run / "evaluation.json").read_text())
    assert list(result["scores"]) == ["FD[pixels]"]
    assert result["reference"] == {"data": "digits", "images": 80, "split": "all", "classes": 2}
    gankit("sample", run, "-n", 4)
    assert np.ptp(np.asarray(Image.open(run / "samples.png")).astype(int), axis=2).max() > 0  # in colour


def test_the_references_of_a_large_folder_are_a_random_choice(gankit, tmp_path, picture_folder, monkeypatch):
    """The first ones of a folder would be those of its first class."""
    monkeypatch.setattr(evaluating.spaces, "PIXEL_REFERENCES", 40)
    run = tmp_path / "run"
    gankit("train", "ns-digits", "--data", picture_folder, "--out", run, *SHORT)
    assert gankit("evaluate", run, "-n", 50).status == 0
    first = json.loads((run / "evaluation.json").read_text())
    assert first["reference"]["images"] == first["protocols"]["FD[pixels]"]["n_real"] == 40
    data = gk.data.load(picture_folder)
    apart = [
        evaluate(restored(run).teacher.sample, data.subset(data.labels == c), n=50, progress=False)
        for c in (0, 1)
    ]
    mixed = first["scores"]["FD[pixels]"]
    assert mixed < min(scores["FD[pixels]"].value.item() for scores in apart)
    assert gankit("evaluate", run, "-n", 50).status == 0
    assert json.loads((run / "evaluation.json").read_text()) == first
    assert gankit("evaluate", run, "-n", 50, "--n-real", 60).status == 0
    assert json.loads((run / "evaluation.json").read_text())["reference"]["images"] == 60


def test_the_flags_of_evaluate_choose_metrics_space_and_protocol(gankit, done, quick_judge):
    flags = ["--n", 60, "--quiet", "--metrics", "is", "fd", "--splits", 3, "--truncation", 0.5]
    assert gankit("evaluate", done, *flags, "--split", "test", "--n-real", 99).status == 0
    result = json.loads((done / "evaluation.json").read_text())
    assert list(result["scores"]) == ["IS[digits classifier]", "FD[digits classifier]"]
    assert result["protocols"]["IS[digits classifier]"]["splits"] == 3
    protocol = result["protocols"]["FD[digits classifier]"]
    wanted = {"n_fake": 60, "n_real": 99, "split": "test", "truncation": 0.5, "splits": None}
    assert {key: protocol[key] for key in wanted} == wanted
    sampler = gk.sampling.Sampler(restored(done).teacher.net, truncation=0.5)
    judge, test = features.classifier("digits"), gk.data.load("digits", split="test")
    direct = evaluate(sampler, test, ["fd"], judge, n=60, n_real=99, progress=False)
    assert result["scores"]["FD[digits classifier]"] == direct["FD[digits classifier]"].value
    assert gankit("evaluate", done, "--n", 60, "--features", "pixels", "--no-errors", "--quiet").status == 0
    result = json.loads((done / "evaluation.json").read_text())
    assert result["errors"] == {"FD[pixels]": None}


def test_weights_without_their_space_are_refused(gankit, done):
    for chosen in ([], ["--features", "pixels"]):
        outcome = gankit("evaluate", done, "-n", 20, "--weights", done / "recipe.json", *chosen)
        refused(outcome, "--weights", "give --features classifier or inception, got --features")


def test_inception_weights_are_read_or_asked_for(gankit, done, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    pytest.importorskip("torch_fidelity")
    outcome = gankit("evaluate", done, "-n", 20, "--features", "inception")
    refused(outcome, "no Inception weights at", "--download", "--weights", "weights-inception-2015-12-05")
    outcome = gankit("evaluate", done, "-n", 20, "--features", "inception", "--weights", done / "recipe.json")
    refused(outcome, "recipe.json does not hold weights of the Inception network")
    asked = []

    def space(weights: Path | None, *, download: bool) -> features.FeatureSpace:
        asked.append((weights, download))
        return features.FeatureSpace("Inception", lambda x: x.flatten(1), short={"FD": "FID"})

    monkeypatch.setattr(features, "inception", space)
    outcome = gankit(
        "evaluate", done, "-n", 20, "--features", "inception", "--weights", "w.pth", "--download"
    )
    assert outcome.status == 0
    assert asked == [(Path("w.pth"), True)]
    assert "\nFID " in outcome.out
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    outcome = gankit("evaluate", done, "-n", 20, "--features", "inception")
    refused(outcome, 'pip install "gankit[metrics]"')


@pytest.mark.parametrize(
    ("flags", "pieces"),
    [
        (["--metrics", "fid"], ["metric 'fid' is unknown; did you mean", "class_divergence"]),
        (["--metrics", "modes_covered"], ["needs a mixture"]),
        (["--metrics", "is", "--features", "pixels"], ["the space 'pixels' has none"]),
        (["--metrics", "is", "-n", "10"], ["at least 20 samples", "splits may be smaller"]),
        (["--features", "vgg"], ["--features: invalid choice: 'vgg'"]),
        (["--split", "valid"], ["split must be 'train', 'test' or 'all' for 'digits', got 'valid'"]),
        (["--splits", "0"], ["--splits", "at least 1, got '0'"]),
    ],
)
def test_what_cannot_be_measured_is_one_line(gankit, done, quick_judge, flags, pieces):
    classifiers.train_and_cache("digits", progress=False)
    refused(gankit("evaluate", done, "--quiet", *flags), *pieces)
    assert not (done / "evaluation.json").exists()


def test_processes_of_torchrun_share_an_evaluation_and_one_reports(gankit, done, quick_judge, tmp_path):
    """The same file to 1e-6, written and printed once; the classifier that is missing is trained once."""
    flags = ["-n", "600", "--quiet", "--device", "cpu"]
    script = tmp_path / "command.py"  # the command with the short training of this test's classifier
    script.write_text(
        "import sys\n"
        "from gankit import classifiers, commands\n"
        "classifiers.RECIPES['digits']['epochs'] = 1\n"
        "sys.exit(commands.main())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run(
        [*torchrun, str(script), "evaluate", str(done), *flags, "--to", str(tmp_path / "two.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert two.returncode == 0, two.stderr[-3000:]
    assert two.stderr.count("training the digits classifier, once") == 1
    one = gankit("evaluate", done, *flags, "--to", tmp_path / "one.json")
    assert one.err == ""
    assert two.stdout == one.out.replace("one.json", "two.json")
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    for numbers in ("scores", "errors"):
        assert ours.pop(numbers) == pytest.approx(theirs.pop(numbers), rel=1e-6, abs=1e-6)
    assert ours == theirs


# --- Bad input: one line, a status, and nothing half-written ----------------------------------------------------

TRAIN = ("train", "ns-digits", "--out", "run", "--device", "cpu", "--quiet")


@pytest.mark.parametrize(
    ("command", "pieces"),
    [
        ("train mm-nsatt-digits --out run", ["'mm-nsatt-digits' is unknown", "mm-nsat-digits"]),
        ("train xyz --out run", ["'xyz' is unknown", "`gankit recipes` lists them"]),
        ("recipes ns-digit", ["'ns-digit' is unknown; did you mean ns-digits"]),
        ("train ns-digits --out run --loss mm-nast", ["'mm-nast' is unknown; did you mean mm-nsat", "hinge"]),
        ("train ns-mnist-fc4 --out run --root .", ["'mnist' is not in .", "--download", "GANKIT_DATA"]),
        ("train ns-digits --out run --data digit", ["unknown dataset 'digit': did you mean 'digits'"]),
        ("train ns-digits --out run --data ./x.zip", ["no folder or .zip file at ./x.zip"]),
        ("train ns-digits --out run --seed -1", ["--seed", "from 0 to 4294967295, got '-1'"]),
        ("train ns-digits --out run --seed 4294967296", ["--seed", "got '4294967296'"]),
        ("train ns-digits --out run --seed 1 two", ["--seed", "got 'two'"]),
        ("train ns-digits --out run --steps 0", ["steps must be at least 1, got 0"]),
        ("train ns-digits --out run --steps many", ["--steps: invalid int value: 'many'"]),
        ("train ns-digits --out run --depth some", ["--depth/--networks.depth: invalid int value: 'some'"]),
        ("train ns-digits --out run --save-every 0", ["--save-every", "at least 1, got '0'"]),
        ("train ns-digits --out run --batch-size 0", ["batch_size must be at least 1, got 0"]),
        ("train ns-digits --out run --d-depth 0", ["d_depth must be at least 1, got 0"]),
        ("train ns-digits --out run --size 16", ["digits are 8x8 images"]),
        ("train ns-digits --out run --lr nan", ["lr must lie in (0, inf), got nan"]),
        ("train ns-digits --out run --beta1 1", ["beta1 must lie in [0, 1), got 1.0"]),
        ("train ns-digits --out run --leak-beta 2", ["beta is the share", "got 2.0"]),
        ("train leakyema-digits --out run --leak-source nowhere", ["source must be one of sync", "'nowhere'"]),
        ("train ns-digits --out run --r1 -1", ["gamma is the penalty's strength", "got -1.0"]),
        ("train ns-digits --out run --optimizer lion", ["g_optimizer must be one of adam, sgd, rmsprop, got 'lion'"]),
        ("train ns-digits --out run --model vae", ["model must be one of mlp, conv, dcgan,", "got 'vae'"]),
        ("train ns-digits --out run --model conv", ["'conv' has no d_depth, got 4; --d-depth none unsets it"]),
        ("train ns-ring --out run --model conv", ["shape must be (C, H, W) of an image, got (2,)"]),
        ("train ns-digits --out run --device gpu", ["device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
        ("train ns-digits --out run --device mps", ["device must be auto, cpu, cuda or cuda:N, got 'mps'"]),
        ("train ns-digits --out run --device cuda:99", ["cuda:99"]),
        ("train ns-digits --out file", ["file"]),
        ("train ns-digits --out run --leak-start 3", ["leak is none, and a new one needs leak.beta"]),
        ("train ns-digits --out run --optimizer sgd --beta1 0.5", ["sgd has no beta1, it has lr, momentum"]),
        ("train ns-digits --out run --g-optimizer.lrr 3", ["did you mean --g-optimizer.lr?"]),
        ("train ns-digits --out run --network.width 3", ["did you mean --networks.width?"]),
        ("train ns-digits --out run --speed 3", ["unrecognized arguments: --speed 3", "did you mean --seed?"]),
        ("train ns-digits --out run --qqqqq 3", ["unrecognized arguments: --qqqqq 3", "`gankit train --help`"]),
        ("sample run --seed 3", ["unrecognized arguments: --seed 3", "did you mean --sample-seed?"]),
        ("train ns-digits --out run --ema-decay 2", ["--ema-decay: decay must lie in", "got 2.0"]),
        ("train ns-digits --out run --optimizer rmsprop --d-optimizer.decay 2", ["--d-optimizer.decay", "got 2.0"]),
        ("train ns-digits --out run --lr 0.1 --d-lr nan", ["--d-lr: lr must lie in"]),
        ("train", ["arguments are required: recipe", "`gankit train --help`"]),
        ("tarin ns-digits", ["invalid choice: 'tarin'", "'train'"]),
        ("sample nowhere", ["there is no checkpoint in nowhere", "`gankit train"]),
        ("evaluate nowhere", ["there is no checkpoint in nowhere"]),
        ("classifier cats", ["'cats'", "digits"]),
        ("classifier mnist --root .", ["'mnist' is not in ."]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(gankit, tmp_path, monkeypatch, command, pieces):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    outcome = gankit(*command.split(), *(["--quiet"] if command.startswith("train ") else []))
    refused(outcome, *pieces)
    assert files(tmp_path) == {"file": b"in the way"}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(gankit, tmp_path):
    outcome = gankit("train", "ns-digits", "--out", tmp_path / "run", "--device", "cuda")
    refused(outcome, "PyTorch sees no GPU here")
    assert not (tmp_path / "run").exists()


def test_none_unsets_a_field(gankit, tmp_path):
    command = ("train", "ns-digits", "--out", tmp_path / "run", *SHORT, "--steps", "2")
    sizes = ("--model", "conv", "--d-depth", "none", "--depth", "none")
    assert gankit(*command, *sizes).status == 0
    networks = json.loads((tmp_path / "run" / "recipe.json").read_text())["networks"]
    assert (networks["family"], networks["depth"], networks["d_depth"]) == ("conv", None, None)


def test_a_corrupt_picture_in_an_archive_is_named(gankit, tmp_path, picture_folder):
    archive = tmp_path / "pictures.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for i in range(3):
            z.write(picture_folder / "a-red" / f"{i}.png", f"cats/{i}.png")
        z.writestr("dogs/bad.png", (picture_folder / "b-green" / "0.png").read_bytes()[:60])
    with pytest.warns(gk.data.archives.SkippedPictures, match="1 of 4 pictures were skipped") as warned:
        outcome = gankit("train", "ns-digits", "--data", archive, "--out", tmp_path / "run", *SHORT)
    assert outcome.status == 0
    assert str(archive) in str(warned[0].message)
    assert "cannot decode dogs/bad.png" in str(warned[0].message)


def test_an_archive_that_is_cut_short_is_named(gankit, tmp_path, picture_folder):
    archive = Path(shutil.make_archive(str(tmp_path / "pictures"), "zip", picture_folder))
    archive.write_bytes(archive.read_bytes()[:-200])
    outcome = gankit("train", "ns-digits", "--data", archive, "--out", tmp_path / "run", *SHORT)
    refused(outcome, f"{archive} is not a readable .zip file")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "overwritten", "one bit"])
def test_a_damaged_checkpoint_is_named_and_the_earlier_one_kept(gankit, done, damage):
    newest = checkpoints.latest(done)
    content = newest.read_bytes()
    start = content.find(restored(done).G[0].weight.detach().numpy().tobytes())
    flipped = bytearray(content)
    flipped[start + 5] ^= 1
    damaged = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "overwritten": b"something else\n" * 99,
        "one bit": bytes(flipped),
    }[damage]
    newest.write_bytes(damaged)
    before = files(done)
    longer = ("train", "ns-digits", "--out", done, *SHORT, "--steps", "10")
    for command in (longer, ("sample", done), ("evaluate", done)):
        hint = "the earlier checkpoint-00000006.pt is kept: remove the damaged file to go on from it"
        refused(gankit(*command), f"checkpoint {newest} is truncated or damaged; {hint}")
    assert files(done) == before
    newest.unlink()
    outcome = gankit(*longer)
    assert outcome.status == 0
    assert "going on from step 6" in outcome.out


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "history": lambda state: state.pop("history"),
    "seeds": lambda state: state.pop("seeds"),
    "step": lambda state: state.update(step="8"),
    "history ": lambda state: state.update(history="not JSON"),
    "history  ": lambda state: state.update(history="[1, 2]"),
    "recipe": lambda state: state.update(recipe='{"kind": "Recipe"'),
    "recipe ": lambda state: state.update(recipe='{"kind": "Recipe", "seeds": [0], "width": 3}'),
    "recipe  ": lambda state: state.update(recipe='{"seeds": [0]}'),
    "g_opt": lambda state: state.update(g_opt={}),
    "d_opt": lambda state: state["d_opt"]["state"][0].update(exp_avg=torch.zeros(3)),
    "streams": lambda state: state.update(streams={"states": [torch.zeros(3)]}),
    "streams ": lambda state: state.update(streams=[]),
    "global_streams": lambda state: state.update(global_streams=[torch.zeros(3)]),
    "states": lambda state: state.update(states={"ada_p": torch.zeros(())}),
    "teacher": lambda state: state["teacher"].popitem(),
    "data": lambda state: state.update(data={"name": "digits"}),
}


@pytest.mark.parametrize("part", DAMAGES)
def test_a_checkpoint_with_a_part_that_is_missing_or_wrong_is_one_line(gankit, done, part):
    """Files whose checksums are right, as other programs or other versions may write them."""
    newest = checkpoints.latest(done)
    state = torch.load(newest, weights_only=True)
    DAMAGES[part](state)
    torch.save(state, newest)
    before = files(done)
    refused(gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", "10"), str(newest), part.strip())
    refused(gankit("sample", done), str(newest), part.strip())
    assert files(done) == before


def test_a_checkpoint_that_is_no_mapping_is_refused(gankit, done):
    newest = checkpoints.latest(done)
    torch.save([1, 2], newest)
    refused(gankit("sample", done), f"{newest} is no checkpoint of a run")


@pytest.mark.parametrize(
    ("changes", "pieces"),
    [
        (["--width", "9"], ["of a run with networks.width 8;"]),
        (["--depth", "4", "--lr", "0.5"], ["networks.depth 3", "g_optimizer.lr 0.001"]),
        (["--seed", "1"], ["seed 0"]),
    ],
)
def test_a_run_is_not_continued_under_other_settings(gankit, done, changes, pieces):
    before = files(done)
    outcome = gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", "10", *changes)
    refused(outcome, "give the same to go on, or another --out", *pieces)
    assert files(done) == before


@pytest.mark.parametrize("width", ["8", "9"])
def test_a_checkpoint_of_another_run_is_refused(gankit, done, tmp_path, width):
    """Also one of the same architecture, which only its recipe gives away."""
    other = tmp_path / "other"
    gankit("train", "mm-digits", "--out", other, *SHORT, "--width", width)
    newest = checkpoints.latest(done)
    shutil.copy(checkpoints.latest(other), newest)
    before = files(done)
    outcome = gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", "10")
    refused(outcome, f"{newest} is of a run with name 'mm-digits'", "loss 'mm'")
    assert files(done) == before


def test_a_checkpoint_whose_networks_are_not_its_recipes_is_refused(gankit, done):
    newest = checkpoints.latest(done)
    state = checkpoints.read(newest)
    stored = json.loads(state["recipe"])
    state["recipe"] = json.dumps(stored | {"networks": stored["networks"] | {"width": 9}})
    checkpoints.write(state, newest)
    before = files(done)
    train = ("train", "ns-digits", "--out", done, *SHORT, "--steps", "10", "--width", "9")
    for command in (train, ("sample", done), ("evaluate", done)):
        refused(
            gankit(*command), f"{newest} is of another architecture: G's '0.weight' has shape (8, 16) there"
        )
    assert files(done) == before


def test_a_checkpoint_without_a_recipe_is_refused(gankit, tmp_path):
    data = gk.data.load("digits")
    run = gk.Trainer(*gk.models.mlp(data.shape, width=8), data, device="cpu")
    run.fit(1, out=tmp_path, progress=False)
    refused(gankit("sample", tmp_path), "written by a Trainer without a recipe")
    refused(gankit("train", "ns-digits", "--out", tmp_path, *SHORT), "written by a Trainer without a recipe")


def test_a_disk_that_fills_up_leaves_a_run_that_goes_on(gankit, tmp_path):
    """A limit on the size of files stands for the full disk: the log fits, a checkpoint does not."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = ("train", "ns-digits", "--out", run, *SHORT)
    gankit(*command, "--steps", "4")
    before = files(run)
    size = len(before["checkpoint-00000004.pt"]) // 2

    def full_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    process = subprocess.run(
        [sys.executable, "-m", "gankit", *map(str, command)],
        capture_output=True,
        text=True,
        preexec_fn=full_disk,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    message = f"checkpoint {checkpoints.path_of(run, 6)} could not be written"
    assert process.returncode == 2
    assert re.fullmatch(r"gankit: error: [^\n]*\n", process.stderr), process.stderr
    assert message in process.stderr
    assert "the earlier checkpoint-00000004.pt is kept" in process.stderr
    after = files(run)
    assert after.keys() == before.keys()
    assert after["checkpoint-00000004.pt"] == before["checkpoint-00000004.pt"]

    assert gankit(*command).status == 0
    gankit("train", "ns-digits", "--out", whole, *SHORT)
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    ],
)
def test_each_way_in_which_a_full_disk_shows_is_one_line(gankit, done, monkeypatch, error):
    before = files(done)
    save = torch.save

    def half(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        os.truncate(path, 1000)
        raise error

    monkeypatch.setattr(torch, "save", half)
    outcome = gankit("train", "ns-digits", "--out", done, *SHORT, "--steps", "12")
    monkeypatch.undo()
    assert outcome.status == 2
    reason = getattr(error, "strerror", None) or "the disk took only a part of it; is it full?"
    assert outcome.err == (
        f"gankit: error: checkpoint {checkpoints.path_of(done, 10)} could not be written ({reason}); "
        "the earlier checkpoint-00000008.pt is kept\n"
    )
    after = files(done)
    assert {k: v for k, v in after.items() if k.endswith(".pt")} == {
        k: v for k, v in before.items() if k.endswith(".pt")
    }
    assert after.keys() == before.keys()


def test_a_full_disk_while_evaluating_names_the_file_and_keeps_the_earlier(
    gankit, done, quick_judge, monkeypatch
):
    assert gankit("evaluate", done, "-n", 20, "--quiet").status == 0
    before = files(done)
    write_text = Path.write_text

    def half(self: Path, text: str) -> int:
        write_text(self, text[:30])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    outcome = gankit("evaluate", done, "-n", 30)
    assert "FD[digits classifier]" in outcome.out, "what was measured is printed first"
    refused(outcome._replace(out=""), f"No space left on device: '{done / 'evaluation.json'}'")
    assert files(done) == before


@pytest.mark.parametrize(
    "flags",
    [["--optimizer", "sgd", "--lr", "1e30"], ["--loss", "wgan", "--optimizer", "rmsprop", "--lr", "1e25"]],
)
def test_nan_in_training_is_said_and_no_checkpoint_written(gankit, tmp_path, flags):
    run = tmp_path / "run"
    outcome = gankit("train", "ns-digits", "--out", run, *SHORT, *flags)
    refused(outcome, "became NaN or infinite at step", "no checkpoint was written", status=1)
    assert set(files(run)) - {".lock"} == {"recipe.json", "log.jsonl"}
    assert gankit("sample", run).status == 2


def test_nan_keeps_the_checkpoints_before_it(gankit, tmp_path, monkeypatch):
    run, whole = tmp_path / "run", tmp_path / "whole"
    g_step = gk.Trainer.g_step

    def fails_at_step_5(self: gk.Trainer) -> dict[str, Tensor]:
        return g_step(self) | ({"g_loss": torch.tensor(torch.nan)} if self.steps == 4 else {})

    monkeypatch.setattr(gk.Trainer, "g_step", fails_at_step_5)
    outcome = gankit("train", "ns-digits", "--out", run, *SHORT)
    kept = run / "checkpoint-00000004.pt"
    sentence = f"the generator's cost became NaN or infinite at step 5; the last good checkpoint is {kept}"
    refused(outcome, sentence, status=1)
    assert [row["step"] for row in rows(run)] == [2, 4]
    monkeypatch.undo()
    assert gankit("train", "ns-digits", "--out", run, *SHORT).status == 0
    gankit("train", "ns-digits", "--out", whole, *SHORT)
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_line(gankit, tmp_path, monkeypatch, error):
    def build(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Recipe, "build", build)
    refused(
        gankit("train", "ns-digits", "--out", tmp_path / "run"), "out of memory", "--batch-size", status=1
    )


def test_a_bug_is_not_taken_for_bad_input(gankit, tmp_path, monkeypatch):
    def build(*_: Any, **__: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Recipe, "build", build)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        gankit("train", "ns-digits", "--out", tmp_path / "run")


# --- Learning curves --------------------------------------------------------------------------------------------


@pytest.fixture
def kept(gankit, tmp_path) -> Path:
    """The folder of a run of two seeds, with checkpoints at 3, 6, 8 and 9 of its ten steps, and 10."""
    folder = tmp_path / "kept"
    short = ["--steps", 10, "--width", 8, "--save-every", 4, "--keep-every", 3, "--log-every", 2, "--quiet"]
    assert gankit("train", "ns-digits", "--seed", 0, 1, "--out", folder, *short).status == 0
    assert [checkpoints.step_of(path) for path in checkpoints.saved(folder)] == [3, 6, 9, 10]
    return folder


def test_a_curve_is_what_each_kept_checkpoint_measures_alone(gankit, kept, quick_judge):
    outcome = gankit("evaluate", kept, "--curve", "-n", 50, "--quiet")
    assert outcome.status == 0
    assert re.findall(r"^step (\d+) ", outcome.out, re.MULTILINE) == ["3", "6", "9", "10"]
    curve = json.loads((kept / "curve.json").read_text())
    assert curve["steps"] == [3, 6, 9, 10]
    assert curve["images"] == [96, 192, 288, 320]
    assert not (kept / "evaluation.json").exists()
    for i, step in enumerate(curve["steps"]):
        assert gankit("evaluate", kept, "--step", step, "-n", 50, "--quiet").status == 0
        alone = json.loads((kept / "evaluation.json").read_text())
        assert alone["step"] == step
        for part in ("scores", "errors"):
            assert {name: values[i] for name, values in curve[part].items()} == alone[part]
        assert alone["protocols"] == curve["protocols"]


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(gankit, kept):
    for command in ("evaluate", "sample"):
        refused(gankit(command, kept, "--step", 5), "--step must be one of 3, 6, 9, 10", "got 5")
    refused(gankit("sample", kept, "--step", 3, "--best"), "not allowed with argument --step")
    refused(gankit("evaluate", kept, "--curve", "--step", 3), "leave --best and --step out")


def test_samples_of_a_kept_step_are_those_of_a_run_that_ended_there(gankit, kept, tmp_path):
    short = ["--width", 8, "--quiet", "--seed", 0, 1]
    assert gankit("train", "ns-digits", "--steps", 3, *short, "--out", tmp_path / "early").status == 0
    assert gankit("sample", tmp_path / "early").status == 0
    assert gankit("sample", kept, "--step", 3).status == 0
    assert (kept / "samples.png").read_bytes() == (tmp_path / "early" / "samples.png").read_bytes()


def test_real_images_are_looked_at_only_where_a_metric_needs_them(gankit, kept, quick_judge, monkeypatch):
    classifiers.train_and_cache("digits", progress=False)
    asked = []
    reference = gk.metrics.reference
    monkeypatch.setattr(gk.metrics, "reference", lambda *a, **b: asked.append(a) or reference(*a, **b))
    for how in ([], ["--curve"]):
        few = ["evaluate", kept, *how, "-n", 50, "--quiet", "--metrics"]
        refused(gankit(*few, "fid"), "metric 'fid' is unknown")
        refused(gankit(*few, "recall", "--k", 50), "at least 51 samples")
        assert gankit(*few, "is", "--splits", 2).status == 0
        assert asked == []
        assert gankit(*few, "is", "fd", "--splits", 2).status == 0
        assert len(asked) == 1, "once, for all checkpoints"
        asked.clear()


def test_a_curve_that_was_stopped_goes_on_and_measures_nothing_twice(gankit, kept, quick_judge, monkeypatch):
    """A full disk at the third row: two are kept, and the next call measures the other two alone."""
    asked = ["evaluate", kept, "--curve", "-n", 50]
    assert gankit(*asked, "--quiet", "--to", kept / "whole.json").status == 0
    measured, written = [], []
    evaluate_, write = gk.metrics.evaluate, evaluating.write_json

    def counted(*arguments, **settings):
        measured.append(1)
        return evaluate_(*arguments, **settings)

    def full_disk(path, value):
        written.append(value)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, value)

    monkeypatch.setattr(gk.metrics, "evaluate", counted)
    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "write_json", full_disk)
        outcome = gankit(*asked, "--quiet")
    said = re.findall(r"^(step \d+):", outcome.out, re.MULTILINE)
    refused(outcome._replace(out=""), "No space left on device")
    assert json.loads((kept / "curve.json").read_text())["steps"] == [3, 6]
    assert said == ["step 3", "step 6", "step 9"], "said before written"
    measured.clear()
    outcome = gankit(*asked, "--quiet")
    assert (outcome.status, len(measured)) == (0, 2)
    assert re.findall(r"^step (\d+) ", outcome.out, re.MULTILINE) == ["3", "6", "9", "10"]
    assert json.loads((kept / "curve.json").read_text()) == json.loads((kept / "whole.json").read_text())
    # Other questions, and other checkpoints of these steps, are measured anew.
    measured.clear()
    assert gankit(*asked, "--quiet", "--splits", 2).status == 0
    assert len(measured) == 4
    os.utime(checkpoints.path_of(kept, 6))
    measured.clear()
    assert gankit(*asked, "--quiet", "--splits", 2).status == 0
    assert len(measured) == 1


def test_scores_are_printed_before_they_are_written(gankit, done, monkeypatch):
    def read_only(path, value):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(evaluating, "write_json", read_only)
    outcome = gankit("evaluate", done, "-n", 30, "--features", "pixels", "--metrics", "fd")
    refused(outcome._replace(out=""), "Read-only file system")
    assert "FD[pixels]" in outcome.out


def test_pictures_of_any_model_are_measured(gankit, quick_judge, tmp_path):
    """Digits as PNG files, in folders of their classes, against all digits: every class is there, and FD is small."""
    digits = gk.data.load("digits", n=300)
    for i, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
        (tmp_path / "made" / str(int(label))).mkdir(parents=True, exist_ok=True)
        pixels = image[0].float().mul(255 / 16).round().byte().numpy()
        Image.fromarray(pixels).save(tmp_path / "made" / str(int(label)) / f"{i}.png")
    asked = ["evaluate", "--images", tmp_path / "made", "--data", "digits", "--quiet"]
    outcome = gankit(*asked, "--metrics", "fd", "class_divergence", "intra_fd", "--to", tmp_path / "a.json")
    assert outcome.status == 0
    assert outcome.out.startswith("made, 300 images\n")
    result = json.loads((tmp_path / "a.json").read_text())
    space = features.classifier("digits")
    direct = evaluate(digits.normalise(digits.images), gk.data.load("digits"), ["fd"], space, progress=False)
    fd = direct["FD[digits classifier]"].value.item()
    assert result["scores"]["FD[digits classifier]"] == pytest.approx(fd, abs=0.02 * fd + 0.05)
    assert result["protocols"]["FD[digits classifier]"]["n_real"] == 1797
    assert not list((tmp_path / "made").glob("*.json"))
    refused(gankit("evaluate", "--images", tmp_path / "made"), "--images needs --data NAME")
    refused(gankit("evaluate"), "give the folder of a run, or --images FOLDER")
    refused(gankit(*asked, "--curve"), "--images is no run")
    refused(gankit("evaluate", "--images", tmp_path / "made", "--data", "ring"), "holds points")


def test_features_of_real_images_are_computed_once_and_kept(gankit, done, quick_judge, monkeypatch, tmp_path):
    monkeypatch.setenv("GANKIT_CACHE", str(tmp_path / "cache"))
    classifiers.train_and_cache("digits", progress=False)
    asked = ["evaluate", done, "-n", 50, "--quiet", "--metrics", "fd", "--to"]
    seen = []
    embed = features.FeatureSpace.__call__
    monkeypatch.setattr(features.FeatureSpace, "__call__", lambda s, x: seen.append(len(x)) or embed(s, x))

    def real_images(name, *more):
        seen.clear()
        assert gankit(*asked, tmp_path / name, *more).status == 0
        return sum(seen) - 50, json.loads((tmp_path / name).read_text())["scores"]

    n, first = real_images("1.json")
    assert n == 1797
    assert real_images("2.json") == (0, first)
    # Other images, and another network, have features of their own.
    assert real_images("3.json", "--n-real", 100)[0] == 100
    assert real_images("4.json", "--n-real", 100)[0] == 0
    (tmp_path / "cache").rename(tmp_path / "old")
    classifiers.train_and_cache("digits", progress=False)
    assert real_images("5.json")[0] == 1797
    # A damaged file is computed anew.
    (kept,) = (tmp_path / "cache" / "references").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert real_images("6.json") == (1797, first)
    assert real_images("7.json") == (0, first)


def test_curves_of_runs_are_drawn(gankit, kept, done, quick_judge):
    assert gankit("evaluate", kept, "--curve", "-n", 50, "--quiet").status == 0
    outcome = gankit("plot", kept, done)
    assert (outcome.status, outcome.out) == (0, f"{kept / 'curves.png'}: kept, run\n")
    with Image.open(kept / "curves.png") as picture:
        assert picture.width > picture.height > 500  # six panels
    for suffix, head in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        target = kept / f"one{suffix}"
        assert gankit("plot", kept, "--curves", "real_logit", "--to", target).status == 0
        assert target.read_bytes().startswith(head)


def test_what_cannot_be_drawn_is_said(gankit, kept, done, tmp_path):
    refused(gankit("plot", done, "--curves", "fid"), "d_loss, real_logit", "got fid")
    refused(gankit("plot", done, "--to", "curves.gif"), ".png, .svg or .pdf", "curves.gif")
    refused(gankit("plot", done, done), "each folder must be given once")
    refused(
        gankit("plot", tmp_path / "none"), f"there is no log of a run at {tmp_path / 'none' / 'log.jsonl'}"
    )


@pytest.mark.parametrize("torn", ['{"step": 9, "d_lo', "7", '{"d_loss": 1}'])
def test_a_log_is_drawn_without_the_last_line_that_a_kill_cut_short(gankit, done, torn):
    with open(done / "log.jsonl", "a") as log:
        log.write(torn)
    assert gankit("plot", done).status == 0
    with open(done / "log.jsonl", "a") as log:
        log.write('\n{"step": 10, "d_loss": 1.0}\n')
    refused(gankit("plot", done), "line 5 of", "is damaged", torn)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"steps": [1], "scores": 3}', '{"steps": [1], "scores": {"fd": []}}']
)
def test_a_damaged_curve_is_named(gankit, done, content):
    (done / "curve.json").write_text(content)
    refused(gankit("plot", done), str(done / "curve.json"), "damaged")


def test_a_classifier_of_own_pictures_is_written_and_used(gankit, tmp_path, quick_judge):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "shades"
    for label, level in (("dark", 40), ("light", 200)):
        (pictures / label).mkdir(parents=True)
        for i in range(40):
            noise = rng.integers(-30, 30, (8, 8, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(pictures / label / f"{i}.png")
    file = tmp_path / "shades.pt"
    # Too few pictures for a batch of the recipe.
    refused(gankit("classifier", pictures, "--to", file, "--quiet"), "batch_size <= 72")
    refused(gankit("classifier", pictures), "there is no classifier", "--to FILE")
    refused(gankit("classifier", "digits", "--test", "x"), "--test goes with --to")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gankit.classifiers.PICTURES", {**PICTURES, "batch_size": 8})
        outcome = gankit("classifier", pictures, "--to", file, "--epochs", 2, "--quiet")
    assert (outcome.status, outcome.out) == (0, f"{pictures}: test accuracy 100.00%, written to {file}\n")
    run = tmp_path / "run"
    small = ["--data", pictures, "--model", "mlp", "--width", 8, "--depth", "none", "--steps", 2, "--quiet"]
    assert gankit("train", "ns-digits", "--d-depth", "none", "--out", run, *small).status == 0
    asked = ["-n", 20, "--quiet", "--features", "classifier", "--weights", file]
    outcome = gankit("evaluate", run, "--metrics", "fd", "class_divergence", *asked)
    assert outcome.status == 0
    assert "FD[shades classifier]" in outcome.out
    refused(gankit("evaluate", run, *asked[:-1], tmp_path / "none.pt"), "there is no trained classifier at")
    digits = tmp_path / "digits"
    assert gankit("train", "ns-digits", "--out", digits, *SHORT).status == 0
    refused(
        gankit("evaluate", digits, *asked),
        "a classifier for 'shades'",
        "2 classes (dark, light)",
        "10 classes (0",
    )


# --- Help and lists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("train", ["--out", "--seed", "--log-every", "--save-every", "--keep-every", "--from", "--dry-run",
                   "--download", "--device", "--root", "--quiet"]),
        ("export", ["--to", "--best", "--step", "--network"]),
        ("sample", ["-n", "--labels", "--interpolate", "--ways", "--to",
                    "--network", "--sample-seed", "--truncation", "--standing", "--device",
                    "--root"]),
        ("evaluate", ["-n", "--to", "--network", "--sample-seed", "--truncation", "--standing", "--device", "--root",
                      "--metrics",
                      "--features", "--weights", "--download", "--split", "--n-real", "--k", "--splits", "--pairs",
                      "--no-errors", "--curve", "--step", "--best", "--images", "--data", "--size"]),
        ("plot", ["--curves", "--to"]),
        ("recipes", []),
        ("classifier", ["--to", "--test", "--size", "--epochs", "--device", "--download", "--root", "--quiet"]),
    ],
)  # fmt: skip
def test_every_command_has_help_that_names_its_flags(gankit, command, flags):
    outcome = gankit(command, "--help")
    assert outcome.status == 0
    assert outcome.err == ""
    if command == "train":
        flags = [*flags, *(f"--{name.replace('_', '-')}" for name in SHORT_NAMES)]
    # A flag's own entry, with its explanation, and not only its mention in the usage.
    for flag in flags:
        assert re.search(rf"^  {flag}\b[^\n]*(\n {{20,}}|  )\S", outcome.out, re.MULTILINE), flag


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal(gankit, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    lines = gankit(*command.split(), "--help").out.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if len(line) > 80] == []


def test_the_commands_are_listed_with_examples_that_parse(gankit):
    outcome = gankit("--help")
    assert outcome.status == 0
    assert gankit() == outcome, "no command at all shows the same help"
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w", outcome.out, re.MULTILINE)
    examples = re.findall(r"^  gankit (.*)", outcome.out, re.MULTILINE)
    assert len(examples) == 13
    for example in examples:
        commands._parser().parse_args(example.split())


def test_recipes_are_listed_and_shown(gankit):
    outcome = gankit("recipes")
    assert outcome.status == 0
    heading, *lines = outcome.out.splitlines()
    assert heading.split() == ["recipe", "paper", "data", "steps", "PFLOP", "hours"]
    assert [line.split()[0] for line in lines[:-3]] == list(recipes)
    row = re.split(r"  +", next(line for line in lines if line.startswith("leakyema-sngan-church128 ")))
    assert row[:4] == ["leakyema-sngan-church128", "LeakyEMA table 3", "lsun-church128", "250,000"]
    assert float(row[4].replace(",", "")) > 1000
    assert "an estimate for one NVIDIA A100 at an assumed 40 TFLOP/s in TF32" in outcome.out
    shown = gankit("recipes", "leakyema-digits").out
    assert "an estimate for one NVIDIA A100" in " ".join(shown.split())
    for field in commands.flags.fields():
        value = settings.value(recipes["leakyema-digits"], field.name)
        line = rf"^  {field.names[0]} +{re.escape(value)} +\S"
        assert bool(re.search(line, shown, re.MULTILINE)) == (value != "none"), field.name


def test_data_of_a_recipe_that_have_to_be_packed_are_asked_for(gankit, tmp_path):
    command = ("train", "sngan-church128", "--out", tmp_path / "run", "--root", tmp_path, "--quiet")
    refused(gankit(*command), f"gankit pack FOLDER {tmp_path / 'lsun-church128'} --size 128 --unlabelled")


def test_the_version_is_the_packages(gankit):
    assert gankit("--version") == Outcome(0, f"gankit {gk.__version__}\n", "")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["recipes"]])
def test_what_needs_no_pytorch_does_not_wait_for_it(words):
    code = f"""
import sys
from gankit.commands import main
try:
    main({words!r})
except SystemExit:
    pass
print(sorted({{"torch", "numpy", "matplotlib", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_commands_are_described_alike_wherever_they_are_listed(gankit):
    """A parser of one command knows the others by a table, which must say what they say of themselves."""
    assert commands._parser().format_help() == commands._parser("").format_help()


def test_python_m_gankit_is_gankit():
    process = subprocess.run(
        [sys.executable, "-m", "gankit", "train", "nothing"], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert process.stderr.startswith("gankit: error: recipe 'nothing' is unknown")


def test_a_classifier_is_trained_and_kept(gankit, quick_judge):
    outcome = gankit("classifier", "digits", "--quiet")  # the device is "auto", as it is for most readers
    assert outcome.status == 0
    assert re.fullmatch(r"digits: test accuracy \d\d\.\d\d%\n", outcome.out)
    assert classifiers.load("digits").test_accuracy == pytest.approx(
        float(outcome.out.split()[-1].rstrip("%")) / 100, abs=1e-4
    )


def test_a_rate_that_falls_and_pictures_while_training(gankit, tmp_path):
    """The flags reach the run, and a run of other flags is another one."""
    out = tmp_path / "run"
    said = gankit(
        "train", "ns-digits", *SHORT, "--schedule", "linear_decay", "--schedule-end", "8", "--pictures-every", "4",
        "--out", out,
    )  # fmt: skip
    assert said.status == 0, said.err
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["g_lr"] for row in rows] == pytest.approx(
        [1e-3 * (1 - (row["step"] - 1) / 8) for row in rows]
    )
    assert sorted(path.name for path in (out / "pictures").iterdir()) == [
        f"samples-{step:08d}.png" for step in (2, 4, 8)
    ]
