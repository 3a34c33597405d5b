"""Weights of stylegan2-ada-pytorch: names and shapes written down from its networks, and pictures computed by SciPy."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d, correlate2d
from torch import Tensor, nn

import gankit as gk
from gankit import commands
from gankit.files import CheckpointError
from gankit.models import stylegan2_weights
from gankit.recipes import open_run

pytest.importorskip("safetensors", reason="needs the package safetensors")
from safetensors.torch import load_file, save_file

Shapes = dict[str, tuple[int, ...]]
Array = NDArray[np.float64]
ROOT2 = 2**0.5
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
ROOT = Path(__file__).resolve().parents[2]

# --- The names and shapes that `training/networks.py` makes ----------------------------------------------------------


def fully(name: str, n_in: int, n_out: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def conv(name: str, c_in: int, c_out: int, kernel: int, bias: bool = True) -> Shapes:
    shapes = {f"{name}.weight": (c_out, c_in, kernel, kernel), f"{name}.resample_filter": (4, 4)}
    return shapes | ({f"{name}.bias": (c_out,)} if bias else {})


def styled(name: str, c_in: int, c_out: int, w_dim: int, side: int) -> Shapes:
    return conv(name, c_in, c_out, 3) | fully(f"{name}.affine", w_dim, c_in) | {
        f"{name}.noise_const": (side, side), f"{name}.noise_strength": (),
    }  # fmt: skip


def to_rgb(name: str, c: int, channels: int, w_dim: int) -> Shapes:
    return fully(f"{name}.affine", w_dim, c) | {
        f"{name}.weight": (channels, c, 1, 1),
        f"{name}.bias": (channels,),
    }


def mapping(name: str, z_dim: int, w_dim: int, layers: int, n_classes: int) -> Shapes:
    shapes = fully(f"{name}.embed", n_classes, w_dim) if n_classes else {}
    n_in = z_dim + (w_dim if n_classes else 0)
    for i in range(layers):
        shapes |= fully(f"{name}.fc{i}", n_in if i == 0 else w_dim, w_dim)
    return shapes


def generator_shapes(
    filters: list[int], z_dim: int, w_dim: int, layers: int, n_classes: int = 0, channels: int = 3,
    architecture: str = "skip",
) -> Shapes:  # fmt: skip
    """Filters at 4, 8, ... pixels."""
    shapes = mapping("mapping", z_dim, w_dim, layers, n_classes) | {"mapping.w_avg": (w_dim,)}
    for i, c in enumerate(filters):
        side, name = 4 << i, f"synthesis.b{4 << i}"
        shapes[f"{name}.resample_filter"] = (4, 4)
        if i == 0:
            shapes[f"{name}.const"] = (c, 4, 4)
        else:
            shapes |= styled(f"{name}.conv0", filters[i - 1], c, w_dim, side)
        shapes |= styled(f"{name}.conv1", c, c, w_dim, side)
        if architecture == "skip" or i == len(filters) - 1:
            shapes |= to_rgb(f"{name}.torgb", c, channels, w_dim)
        if architecture == "resnet" and i:
            shapes |= conv(f"{name}.skip", filters[i - 1], c, 1, bias=False)
    return shapes


def discriminator_shapes(
    filters: list[int], n_classes: int = 0, channels: int = 3, architecture: str = "resnet"
) -> Shapes:
    shapes: Shapes = {}
    for i in range(len(filters) - 1, 0, -1):
        name, c, c_out = f"b{4 << i}", filters[i], filters[i - 1]
        shapes[f"{name}.resample_filter"] = (4, 4)
        if i == len(filters) - 1 or architecture == "skip":
            shapes |= conv(f"{name}.fromrgb", channels, c, 1)
        shapes |= conv(f"{name}.conv0", c, c, 3) | conv(f"{name}.conv1", c, c_out, 3)
        if architecture == "resnet":
            shapes |= conv(f"{name}.skip", c, c_out, 1, bias=False)
    c = filters[0]
    if architecture == "skip":
        shapes |= conv("b4.fromrgb", channels, c, 1)
    shapes |= (
        conv("b4.conv", c + 1, c, 3) | fully("b4.fc", 16 * c, c) | fully("b4.out", c, c if n_classes else 1)
    )
    return shapes | (mapping("mapping", 0, c, 8, n_classes) if n_classes else {})


def filled(shapes: Shapes, part: str, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these names in the part, and the filter where it is one."""
    rng = torch.Generator().manual_seed(seed)
    return {
        f"{part}.{name}": torch.tensor(FILTER, dtype=torch.float32)
        if name.endswith("resample_filter")
        else torch.randn(shape, generator=rng) * (100 if ".fc" in name and name.startswith("mapping") else 1)
        for name, shape in shapes.items()
    }


# --- Their pictures, by SciPy ----------------------------------------------------------------------------------------


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x) * ROOT2


def unit(x: Array) -> Array:
    return x / np.sqrt((x**2).mean() + 1e-8)


class Theirs:
    """The forward passes of their networks for one sample, with tensors by their names."""

    def __init__(self, state: dict[str, Tensor], part: str) -> None:
        self.state = {k.removeprefix(f"{part}."): v.double().numpy() for k, v in state.items()}

    def linear(self, name: str, x: Array, rate: float = 1.0) -> Array:
        weight = self.state[f"{name}.weight"]
        return weight @ x * rate / np.sqrt(weight.shape[1]) + rate * self.state[f"{name}.bias"]

    def mapping(self, z: Array | None, label: int | None) -> Array:
        x = [] if z is None else [unit(z)]
        if label is not None:
            embed = self.state["mapping.embed.weight"]
            one_hot = np.eye(embed.shape[1])[label]
            x.append(unit(self.linear("mapping.embed", one_hot)))
        h, i = np.concatenate(x), 0
        while f"mapping.fc{i}.weight" in self.state:
            h, i = leaky(self.linear(f"mapping.fc{i}", h, 0.01)), i + 1
        return h

    def modulated(self, name: str, x: Array, w: Array, *, up: bool, demodulate: bool) -> Array:
        """For each pair of filters one convolution; where the side doubles, a true one of pixels with zeros between."""
        weight = self.state[f"{name}.weight"]
        style = self.linear(f"{name}.affine", w)
        kernel = weight * style[:, None, None]
        if demodulate:
            kernel = kernel / np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True) + 1e-8)
        else:
            kernel = kernel / np.sqrt(np.prod(weight.shape[1:]))
        if not up:
            return np.stack(
                [sum(correlate2d(a, k, "same") for a, k in zip(x, ks, strict=True)) for ks in kernel]
            )
        apart = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
        apart[:, ::2, ::2] = x
        wide = [sum(convolve2d(a, k, "full") for a, k in zip(apart, ks, strict=True)) for ks in kernel]
        return np.stack([4 * convolve2d(a, FILTER, "full")[2:-2, 2:-2] for a in wide])

    def styled(self, name: str, x: Array, w: Array, *, up: bool = False) -> Array:
        x = self.modulated(name, x, w, up=up, demodulate=True)
        x = x + self.state[f"{name}.noise_const"] * self.state[f"{name}.noise_strength"]
        return leaky(x + self.state[f"{name}.bias"][:, None, None])

    def enlarged(self, x: Array) -> Array:
        apart = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2]))
        apart[:, ::2, ::2] = x
        return np.stack([4 * convolve2d(a, FILTER, "full")[1:-2, 1:-2] for a in apart])

    def rgb(self, name: str, x: Array, w: Array) -> Array:
        return (
            self.modulated(name, x, w, up=False, demodulate=False) + self.state[f"{name}.bias"][:, None, None]
        )

    def picture(self, w: Array) -> Array:
        x = self.styled("synthesis.b4.conv1", self.state["synthesis.b4.const"], w)
        picture, side = self.rgb("synthesis.b4.torgb", x, w), 8
        while f"synthesis.b{side}.conv0.weight" in self.state:
            x = self.styled(f"synthesis.b{side}.conv0", x, w, up=True)
            x = self.styled(f"synthesis.b{side}.conv1", x, w)
            picture = self.enlarged(picture) + self.rgb(f"synthesis.b{side}.torgb", x, w)
            side *= 2
        return picture

    def conv(self, name: str, x: Array, *, down: bool = False, gain: float = ROOT2) -> Array:
        weight = self.state[f"{name}.weight"]
        if down:  # the filter, with as much border as the kernel needs
            x = np.stack([convolve2d(a, FILTER, "full") for a in x])
            cut = 1 if weight.shape[-1] == 3 else 2
            x = x[:, cut:-cut, cut:-cut]
        mode = "valid" if down else "same"
        kernel = weight / np.sqrt(np.prod(weight.shape[1:]))
        h = np.stack([sum(correlate2d(a, k, mode) for a, k in zip(x, ks, strict=True)) for ks in kernel])
        h = h[:, ::2, ::2] if down else h
        if f"{name}.bias" not in self.state:
            return gain * h
        return gain / ROOT2 * leaky(h + self.state[f"{name}.bias"][:, None, None])

    def logit(self, x: Array, label: int | None) -> float:
        """Of a minibatch of one picture, whose deviation is 1e-4."""
        side = x.shape[-1]
        x = self.conv(f"b{side}.fromrgb", x)
        while side > 4:
            short = self.conv(f"b{side}.skip", x, down=True, gain=0.5**0.5)
            x = short + self.conv(f"b{side}.conv1", self.conv(f"b{side}.conv0", x), down=True, gain=1.0)
            side //= 2
        x = np.concatenate([x, np.full((1, 4, 4), 1e-4)])
        y = self.linear("b4.out", leaky(self.linear("b4.fc", self.conv("b4.conv", x).ravel())))
        return float(y[0]) if label is None else float(y @ self.mapping(None, label)) / np.sqrt(len(y))


@pytest.mark.parametrize("n_classes", [0, 3])
def test_pictures_are_those_of_their_networks(n_classes, tmp_path):
    state = filled(generator_shapes([6, 6, 3], 5, 4, 2, n_classes), "G_ema")
    G = stylegan2_weights.generator(state, tmp_path, "G_ema")
    theirs, label = Theirs(state, "G_ema"), 2 if n_classes else None
    for seed in range(3):
        z = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed))
        expected = theirs.picture(theirs.mapping(z[0].double().numpy(), label))
        given = [] if label is None else [torch.tensor([label])]
        found = G(z, *given)[0].double().detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert torch.equal(G.w_avg, state["G_ema.mapping.w_avg"])


def test_an_up_kernel_that_is_not_flipped_would_be_seen(monkeypatch, tmp_path):
    """The comparison above tells a true convolution from a correlation."""
    monkeypatch.setattr(stylegan2_weights, "_flipped", lambda kernel: kernel)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_pictures_are_those_of_their_networks(0, tmp_path)


@pytest.mark.parametrize("n_classes", [0, 3])
def test_logits_are_those_of_their_networks(n_classes, tmp_path):
    state = filled(discriminator_shapes([6, 6, 3], n_classes, channels=1), "D")
    D = stylegan2_weights.discriminator(state, tmp_path)
    theirs, label = Theirs(state, "D"), 1 if n_classes else None
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    given = [] if label is None else [torch.tensor([label])]
    found = D(x, *given).item()
    assert found == pytest.approx(theirs.logit(x[0].double().numpy(), label), rel=1e-3)


@pytest.mark.parametrize(("theirs", "ours"), stylegan2_weights.ARCHITECTURES.items())
def test_every_architecture_is_known_by_its_names(theirs, ours, tmp_path):
    state = filled(generator_shapes([8, 8, 4], 5, 5, 3, channels=1, architecture=theirs), "G")
    state |= filled(discriminator_shapes([8, 8, 4], channels=1, architecture=theirs), "D")
    G, D = gk.models.stylegan2(
        (1, 16, 16), 5, 4, mapping=3, max_width=8, g_architecture=ours, d_architecture=ours
    )
    for net, found in (
        (G, stylegan2_weights.generator(state, tmp_path, "G")),
        (D, stylegan2_weights.discriminator(state, tmp_path)),
    ):
        assert {k: v.shape for k, v in net.state_dict().items()} == {
            k: v.shape for k, v in found.state_dict().items()
        }
        assert type(getattr(net, "synthesis", net)) is type(getattr(found, "synthesis", found))


@pytest.mark.parametrize(
    ("filters", "z_dim", "layers", "counts"),
    [
        ([512] * 4, 512, 2, (19_947_539, None)),  # CIFAR-10
        ([512, 512, 512, 512, 256, 128, 64], 512, 8, (24_767_458, 24_001_089)),  # paper256
    ],
)
def test_the_public_networks_have_the_sizes_that_are_known(filters, z_dim, layers, counts):
    shapes = (generator_shapes(filters, z_dim, z_dim, layers), discriminator_shapes(filters))
    kept = ("resample_filter", "noise_const", "w_avg")
    for own, count in zip(shapes, counts, strict=True):
        numbers = sum(int(np.prod(shape)) for name, shape in own.items() if not name.endswith(kept))
        assert count in (None, numbers)


# --- Files and the command -------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Path:
    state = filled(generator_shapes([8, 8, 4], 6, 6, 3), "G_ema")
    state |= filled(generator_shapes([8, 8, 4], 6, 6, 3), "G", 1)
    state |= filled(discriminator_shapes([8, 8, 4]), "D")
    save_file(state, tmp_path / "faces.safetensors")
    return tmp_path / "faces.safetensors"


def test_a_file_becomes_a_run(file, tmp_path, capsys):
    out = tmp_path / "run"
    assert commands.main(["import-stylegan2", str(file), str(out), "--images", "3200"]) == 0
    said = capsys.readouterr().out
    assert "at 16 pixels" in said
    assert "step 100 of stylegan2-imported16, on data ffhq16" in said
    state = load_file(file)
    run = open_run(out, device="cpu", needs_data=False)
    assert run.steps == 100
    for net, part in ((run.G, "G"), (run.teacher.net, "G_ema")):
        expected = stylegan2_weights.generator(state, file, part).state_dict()
        assert all(torch.equal(x, expected[name]) for name, x in net.state_dict().items())
    expected = stylegan2_weights.discriminator(state, file).state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in run.D.state_dict().items())
    run.step()
    assert all(p.isfinite().all() for p in run.G.parameters())
    assert commands.main(["sample", str(out), "-n", "4", "--to", str(tmp_path / "x.png")]) == 0
    assert commands.main(["import-stylegan2", str(file), str(out)]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_generator_alone_becomes_a_run_with_a_new_discriminator(file, tmp_path, capsys):
    alone = {k: v for k, v in load_file(file).items() if k.startswith("G_ema.")}
    save_file(alone, tmp_path / "alone.safetensors")
    assert (
        commands.main(["import-stylegan2", str(tmp_path / "alone.safetensors"), str(tmp_path / "run")]) == 0
    )
    assert "the discriminator starts anew" in capsys.readouterr().out


def refused(path: Path, change) -> str:
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(CheckpointError) as caught:
        stylegan2_weights.generator(stylegan2_weights.read(path), path)
    return str(caught.value)


CHANGES = {
    "b8.conv1.bias is missing": lambda s: s.pop("G_ema.synthesis.b8.conv1.bias"),
    "more [2] is left over": lambda s: s.update({"G_ema.more": torch.zeros(2)}),
    "mapping.fc1.bias has shape [3] (expected [6])": lambda s: s.update(
        {"G_ema.mapping.fc1.bias": torch.zeros(3)}
    ),
    "is not the filter [1, 3, 3, 1]": lambda s: s.update(
        {"G_ema.synthesis.b8.conv0.resample_filter": torch.eye(4) / 4}
    ),
    "blocks of sides [4, 16]": lambda s: [s.pop(k) for k in list(s) if k.startswith("G_ema.synthesis.b8.")],
    "synthesis.b4.conv1.affine.weight is missing": lambda s: s.pop("G_ema.synthesis.b4.conv1.affine.weight"),
    "holds no G_ema, it holds G, D": lambda s: [s.pop(k) for k in list(s) if k.startswith("G_ema.")],
}


@pytest.mark.parametrize("message", CHANGES)
def test_another_network_is_refused_by_what_differs(message, file):
    assert message in refused(file, CHANGES[message])


def test_pickles_and_broken_files_are_refused(file, tmp_path, capsys):
    (tmp_path / "ffhq.pkl").write_bytes(pickle.dumps({"G_ema": 1}))
    assert commands.main(["import-stylegan2", str(tmp_path / "ffhq.pkl"), str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert stylegan2_weights.CONVERTER in said
    assert (ROOT / stylegan2_weights.CONVERTER).is_file()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"no whole \.safetensors file"):
        stylegan2_weights.read(file)
    with pytest.raises(CheckpointError, match="there is no file"):
        stylegan2_weights.read(tmp_path / "nothing.safetensors")


class Network(nn.Module):
    """Stands for a network in a pickle."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3).t())
        self.register_buffer("w_avg", torch.zeros(4))


def test_the_converter_writes_the_tensors_alone(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("converter", ROOT / stylegan2_weights.CONVERTER)
    converter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(converter)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"G_ema": Network(), "D": None, "augment_pipe": Network()}))
    converter.main([str(tmp_path / "a.pkl"), str(tmp_path / "a.safetensors")])
    found = load_file(tmp_path / "a.safetensors")
    assert {k: tuple(v.shape) for k, v in found.items()} == {"G_ema.weight": (3, 2), "G_ema.w_avg": (4,)}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"other": 1}))
    with pytest.raises(SystemExit) as stopped:
        converter.main([str(tmp_path / "b.pkl"), str(tmp_path / "b.safetensors")])
    assert stopped.value.code == 2
    assert not (tmp_path / "b.safetensors").exists()
