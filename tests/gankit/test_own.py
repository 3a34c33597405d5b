"""Runs on pictures of one's own, from files, and from another run's networks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gankit as gk
from gankit import commands
from gankit.recipes import Recipe, operations
from gankit.recipes.own import for_pictures, from_file
from gankit.recipes.table import recipes


def folder_of(path: Path, classes: tuple[str, ...]) -> Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (path / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)).save(path / name / f"{i}.png")
    return path


def gankit(*words: object) -> int:
    return commands.main([str(word) for word in words])


SMALL = (
    "--size",
    8,
    "--width",
    4,
    "--z-dim",
    4,
    "--batch-size",
    4,
    "--steps",
    2,
    "--quiet",
    "--device",
    "cpu",
)


@pytest.mark.parametrize(("classes", "family"), [(("a",), "sngan"), (("cat", "dog"), "projection-gan")])
def test_own_pictures_are_trained_sampled_and_gone_on_with(tmp_path, capsys, classes, family):
    pictures, run = folder_of(tmp_path / "pics", classes), tmp_path / "run"
    command = ("train", "own", "--data", pictures, "--out", run, *SMALL)
    assert gankit(*command) == 0
    saved = gk.load(run, device="cpu")
    assert (saved.recipe.networks.family, saved.classes, saved.shape) == (family, classes, (3, 8, 8))
    assert (saved.recipe.loss, saved.recipe.g_optimizer.lr, saved.recipe.d_optimizer.lr) == (
        "hinge",
        1e-4,
        4e-4,
    )
    assert gankit(*command, "--steps", 4) == 0
    assert "going on from step 2" in capsys.readouterr().out
    asked = ("--labels", classes[-1]) if len(classes) > 1 else ()
    assert (
        gankit("sample", run, "--n", 5, *asked, "--to", tmp_path / "out", "--quiet", "--device", "cpu") == 0
    )
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5


def test_the_readmes_path_with_own_pictures_is_walked(tmp_path, monkeypatch):
    """As it stands there, but for a short training of small networks."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    block = readme.partition("**Your own pictures.**")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [line.partition("#")[0].split() for line in block.splitlines()]
    assert lines[0] == ["pip", "install", "."]
    assert len(lines) <= 6
    folder_of(tmp_path / "pics", ("cat", "dog"))
    monkeypatch.chdir(tmp_path)
    for word, *words in lines[1:]:
        assert word == "gankit"
        small = ("--width", 2, "--batch-size", 2, "--steps", 1, "--quiet", "--device", "cpu")
        assert gankit(*words, *(small if words[0] == "train" else ())) == 0
    found = list(Path("cats").rglob("*.png"))
    assert len(found) == 1000
    assert {path.parent.name for path in found} == {"cat"}
    assert Image.open(found[0]).size == (64, 64)


@pytest.mark.parametrize("side", [8, 16, 28, 32, 48, 64, 128])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_there_are_networks_for_each_size(side, n_classes):
    recipe = for_pictures("pics", (3, side, side), n_classes)
    G, _ = recipe.changed({"width": 2}).networks((3, side, side), 0, n_classes)
    given = (torch.randn(2, 128), *([torch.tensor([0, 1])] if n_classes > 1 else []))
    assert G(*given).shape == (2, 3, side, side)


def test_what_own_needs_is_said(tmp_path, capsys):
    assert gankit("train", "own") == 2
    assert "needs --data" in capsys.readouterr().err
    assert gankit("train", "own", "--data", folder_of(tmp_path / "pics", ("a",)), "--size", 50) == 2
    assert "give one of these as --size" in capsys.readouterr().err


def test_a_toml_file_is_a_recipe_with_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'recipe = "ns-digits"\nsteps = 3\nr1 = 0.5\n[networks]\nwidth = 8\n[g_optimizer]\nlr = 0.01\n'
    Path("mine.toml").write_text(text)
    assert gankit("train", "mine.toml", "--batch-size", 4, "--quiet", "--device", "cpu") == 0
    changes = {"name": "mine", "steps": 3, "r1": 0.5, "width": 8, "g_optimizer.lr": 0.01, "batch_size": 4}
    assert gk.load("runs/mine-seed0", device="cpu").recipe == recipes["ns-digits"].changed(changes)


def test_the_recipe_of_a_run_trains_it_again(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    short = ("--steps", 3, "--width", 8, "--quiet", "--device", "cpu")
    assert gankit("train", "ns-digits", "--seed", 7, "--out", first, *short) == 0
    assert gankit("train", first / "recipe.json", "--out", second, "--quiet", "--device", "cpu") == 0
    assert (first / "recipe.json").read_text() == (second / "recipe.json").read_text()
    one, other = (gk.load(folder, device="cpu").sample(4) for folder in (first, second))
    assert torch.equal(one, other)


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"kind": "Recipe", "seeds": [0]})])
def test_a_file_that_is_no_recipe_is_named(tmp_path, content):
    for name in ("r.json", "r.toml"):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=name):
            from_file(tmp_path / name)
    with pytest.raises(ValueError, match="there is no file"):
        from_file(tmp_path / "none.toml")


def test_a_warm_start_has_the_networks_of_the_other_run_and_nothing_else_of_it(tmp_path):
    short = ("--width", 8, "--quiet", "--device", "cpu")
    assert gankit("train", "ns-digits", "--steps", 3, "--out", tmp_path / "old", *short) == 0
    built: Recipe = recipes["mm-digits"].changed({"width": 8, "steps": 2})
    run = built.build((5,), device="cpu").start_from(tmp_path / "old" / "checkpoint-00000003.pt")
    old = gk.load(tmp_path / "old", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(run.G.parameters(), old.G.parameters(), strict=True))
    assert (run.steps, len(run.g_opt.state)) == (0, 0)
    run.fit(2, progress=False)
    command = ("train", "mm-digits", "--steps", 2, "--seed", 5, "--out", tmp_path / "new", *short)
    assert gankit(*command, "--from", tmp_path / "old") == 0
    new = gk.load(tmp_path / "new", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(run.G.parameters(), new.G.parameters(), strict=True))
    with pytest.raises(gk.checkpoints.CheckpointError, match="another architecture"):
        built.changed({"width": 9}).build((5,), device="cpu").start_from(
            tmp_path / "old" / "checkpoint-00000003.pt"
        )


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_dry_run_says_what_a_run_costs_and_writes_nothing(tmp_path, monkeypatch, capsys, seeds):
    monkeypatch.chdir(tmp_path)
    command = (
        "train",
        "ns-digits",
        "--width",
        8,
        "--steps",
        3600,
        "--device",
        "cpu",
        "--dry-run",
        "--seed",
        *seeds,
    )
    assert gankit(*command) == 0
    said = capsys.readouterr().out
    run = recipes["ns-digits"].changed({"width": 8, "steps": 3600}).build(seeds, device="cpu")
    step = operations.of_recipe(recipes["ns-digits"].changed({"width": 8})).step * len(seeds)
    assert f"weights: G {sum(p.numel() for p in run.G.parameters()):,}, D " in said
    assert f"step: {step / 1e9:.3g} GFLOP, counted" in said
    seconds, hours = (float(re.search(rf"([\d.e-]+) {unit}", said)[1]) for unit in ("s here", "hours"))
    assert hours == pytest.approx(seconds, rel=0.02)  # 3,600 steps
    for _ in range(3):
        seen = run.step()
    assert f"G {seen['g_loss'].mean().item():.4g}" in said
    assert re.search(r"memory: [\d.]+ GiB of this process", said)
    assert list(tmp_path.iterdir()) == []
