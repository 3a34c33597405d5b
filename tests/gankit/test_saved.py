"""What comes out of a run's folder without its training data: networks, samples, files for other programs."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gankit as gk
from gankit import commands
from gankit.commands.export import inputs, write_program
from gankit.metrics.features import to_uint8
from gankit.recipes import Networks, Recipe

CLASSES = ("cat", "dog", "eel")


def pictures(side: int = 32) -> gk.data.Dataset:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (12, 3, side, side), generator=generator, dtype=torch.uint8)
    return gk.data.Dataset("zoo", images, torch.arange(12) % 3, CLASSES)


def trained(
    folder: Path, family: str = "biggan-cifar", seeds: tuple[int, ...] = (0,), side: int = 32
) -> gk.Trainer:
    networks = Networks(family, z_dim=8, width=8 if family == "sagan" else 4)
    recipe = Recipe("small", "", data="zoo", size=side, networks=networks, batch_size=4, ema=gk.EMA(0.5))
    return recipe.build(seeds, data=pictures(side), device="cpu").fit(3, out=folder, progress=False)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "run"
    trained(folder)
    return folder


@pytest.mark.parametrize(("family", "seeds"), [("biggan-cifar", (0,)), ("mlp", (4,)), ("mlp", (3, 5))])
def test_a_folder_is_enough_to_sample_a_run(tmp_path, family, seeds):
    run = trained(tmp_path, family, seeds)
    saved = gk.load(tmp_path, device="cpu")
    assert torch.equal(saved.sample(5, seed=2), run.teacher.sample(5, seed=2))
    z = torch.randn(*run.lead, 4, 8)
    given = (z, torch.arange(4) % 3) if family == "biggan-cifar" else (z,)
    assert torch.equal(saved.G(*given), run.G.eval()(*given))
    assert (saved.classes, saved.shape, saved.step, saved.seeds) == (CLASSES, (3, 32, 32), 3, seeds)
    assert saved.recipe.networks.family == family
    if family == "mlp":
        with pytest.raises(ValueError, match="learned no classes"):
            saved.sample(2, labels="cat")


def test_labels_are_names_or_numbers_that_take_turns(zoo):
    saved = gk.load(zoo, device="cpu")
    by_number = gk.sampling.sample(saved.teacher, 5, labels=torch.tensor([1, 0, 1, 0, 1]))
    for labels in (["dog", "cat"], [1, 0], ["1", "cat"], torch.tensor([1, 0]), torch.tensor([1, 0, 1, 0, 1])):
        assert torch.equal(saved.sample(5, labels=labels), by_number)
    assert torch.equal(saved.sample(3, labels="eel"), saved.sample(3, labels=[2, 2, 2]))
    for wrong in ("cow", 3, [0, -1], []):
        with pytest.raises(ValueError, match="labels must"):
            saved.sample(5, labels=wrong)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(gk.checkpoints.CheckpointError, match="there is no checkpoint"):
        gk.load(tmp_path)


def test_each_sample_is_written_as_a_picture_of_its_class(zoo, tmp_path, capsys):
    expected = to_uint8(gk.load(zoo, device="cpu").sample(7, labels=["dog", "eel"])).movedim(1, -1).numpy()
    ask = ["sample", str(zoo), "--n", "7", "--labels", "dog,eel", "--device", "cpu", "--quiet", "--to"]
    assert commands.main([*ask, str(tmp_path / "out")]) == 0
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert names == sorted(f"{'eel' if i % 2 else 'dog'}/{i:06d}.png" for i in range(7))
    for name in names:
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / name)), expected[int(name[4:10])])
    assert gk.data.load(tmp_path / "out").classes == ("dog", "eel")

    assert commands.main([*ask, str(tmp_path / "out.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == names
    assert commands.main([*ask, str(tmp_path / "out.npz")]) == 0
    arrays = np.load(tmp_path / "out.npz")
    assert np.array_equal(arrays["images"], expected)
    assert [str(arrays["classes"][y]) for y in arrays["labels"]] == ["dog", "eel"] * 3 + ["dog"]

    capsys.readouterr()
    assert commands.main([*ask, str(tmp_path / "out")]) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    assert commands.main([*ask, str(tmp_path / "out.gif")]) == 2
    assert ".png, .npz or .zip" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.npz", "out.zip"]


def test_samples_that_stop_half_way_leave_nothing(zoo, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    command = ["sample", str(zoo), "-n", "3", "--device", "cpu", "--quiet", "--to", str(tmp_path / "out")]
    assert commands.main(command) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "family", ["mlp", "conv", "dcgan", "sngan", "projection-gan", "sagan", "biggan-cifar", "biggan"]
)
def test_an_exported_program_gives_the_same_samples_without_gankit(tmp_path, family, capsys):
    run = trained(tmp_path / "run", family)
    assert commands.main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "G.pt2")]) == 0
    files = {"gankit.json": ""}
    with open(tmp_path / "G.pt2", "rb") as f:
        program = torch.export.load(f, extra_files=files).module()
    facts = json.loads(files["gankit.json"])
    assert (facts["z_dim"], facts["classes"], facts["step"]) == (8, list(CLASSES), 3)
    z = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    given = (z, torch.arange(9) % 3) if facts["n_classes"] else (z,)
    with torch.no_grad():
        torch.testing.assert_close(program(*given), run.teacher.net(*given), rtol=1e-4, atol=1e-5)


def test_weights_are_exported_with_what_they_are(zoo, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    target = tmp_path / "G.safetensors"
    assert commands.main(["export", str(zoo), "--to", str(target), "--network", "generator"]) == 0
    with safetensors.safe_open(target, "pt") as f:
        facts = json.loads(f.metadata()["gankit"])
        weights = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
    assert (facts["network"], facts["shape"]) == ("generator", [3, 32, 32])
    expected = gk.load(zoo, device="cpu").G.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], x) for name, x in expected.items())


def test_what_cannot_be_exported_is_said(zoo, tmp_path, capsys):
    assert commands.main(["export", str(zoo), "--to", "G.onnx"]) == 2
    assert ".safetensors or .pt2" in capsys.readouterr().err
    trained(tmp_path, "mlp", (0, 1))
    assert commands.main(["export", str(tmp_path), "--to", str(tmp_path / "G.pt2")]) == 2
    assert "2 seeds side by side" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["progan", "stylegan2"])
def test_growing_networks_and_those_with_noise_become_programs(family, tmp_path):
    """One of the stage that they have reached; `write_program` itself compares the samples."""
    G, _ = Networks(family, z_dim=4, width=4)((1, 8, 8), 0)
    if family == "progan":
        G.stage.fill_(1), G.alpha.fill_(0.25)
    write_program(G.eval(), {}, tmp_path / "G.pt2")
    with open(tmp_path / "G.pt2", "rb") as f:
        program = torch.export.load(f).module()
    given = inputs(G, 3, 0)
    with torch.no_grad():
        torch.testing.assert_close(program(*given), G(*given), rtol=1e-4, atol=1e-5)
    if family == "progan":
        G.alpha.fill_(0.5)
        assert G.now() == (1, 0.5), "the network itself can still grow"
