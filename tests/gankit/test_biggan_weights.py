"""Checkpoints of BigGAN-PyTorch: names and shapes written down from its source, and a forward pass of its layers."""

import itertools
import json
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import gankit as gk
from gankit import commands, plotting
from gankit.models import biggan_weights
from gankit.models.biggan_weights import (
    as_its_authors_evaluate,
    load_discriminator,
    load_generator,
    sigma_shortfall,
)
from gankit.recipes import Networks, from_dict, open_run
from gankit.training import checkpoints
from gankit.training.checkpoints import CheckpointError

Shapes = dict[str, tuple[int, ...]]

# --- The names and shapes that `BigGAN.py` and `layers.py` make ----------------------------------------------------


def sn(name: str, *weight: int, bias: bool = True) -> Shapes:
    """SNConv2d, SNLinear, SNEmbedding: weight, bias, and for one singular value the buffers u0 and sv0."""
    shapes = {f"{name}.weight": weight, f"{name}.u0": (1, weight[0]), f"{name}.sv0": (1,)}
    return shapes | ({f"{name}.bias": (weight[0],)} if bias else {})


def ccbn(name: str, c: int, condition: int | None, n_classes: int) -> Shapes:
    """Class-conditional batch norm: SNLinear of shared embedding and chunk of z, or an nn.Embedding."""
    shapes = {f"{name}.stored_mean": (c,), f"{name}.stored_var": (c,)}
    for part in ("gain", "bias"):
        if condition is None:
            shapes |= {f"{name}.{part}.weight": (n_classes, c)}
        else:
            shapes |= sn(f"{name}.{part}", c, condition, bias=False)
    return shapes


def attention(name: str, c: int) -> Shapes:
    convs = {"theta": (c // 8, c), "phi": (c // 8, c), "g": (c // 2, c), "o": (c, c // 2)}
    shapes: Shapes = {f"{name}.gamma": ()}
    for part, (c_out, c_in) in convs.items():
        shapes |= sn(f"{name}.{part}", c_out, c_in, 1, 1, bias=False)
    return shapes


def generator_shapes(
    filters: list[int], z: int, n_classes: int, y: int | None, attention_after: int | None
) -> Shapes:
    """`filters`: of the first feature map and after each block; z: of the first layer; y: of the shared embedding."""
    shapes: Shapes = {} if y is None else {"shared.weight": (n_classes, y)}
    shapes |= sn("linear", 16 * filters[0], z)
    condition = None if y is None else y + z
    for i, (c_in, c_out) in enumerate(itertools.pairwise(filters)):
        shapes |= sn(f"blocks.{i}.0.conv1", c_out, c_in, 3, 3) | sn(f"blocks.{i}.0.conv2", c_out, c_out, 3, 3)
        shapes |= sn(f"blocks.{i}.0.conv_sc", c_out, c_in, 1, 1)
        shapes |= ccbn(f"blocks.{i}.0.bn1", c_in, condition, n_classes)
        shapes |= ccbn(f"blocks.{i}.0.bn2", c_out, condition, n_classes)
        if i == attention_after:
            shapes |= attention(f"blocks.{i}.1", c_out)
    shapes |= {
        f"output_layer.0.{part}": (filters[-1],) for part in ("gain", "bias", "stored_mean", "stored_var")
    }
    return shapes | sn("output_layer.2", 3, filters[-1], 3, 3)


def discriminator_shapes(
    filters: list[int], down: int, n_classes: int, attention_after: int | None
) -> Shapes:
    """`filters` after each block; the first `down` of them halve the side, and have a shortcut to learn."""
    shapes: Shapes = {}
    for i, (c_in, c_out) in enumerate(zip([3, *filters], filters, strict=False)):
        shapes |= sn(f"blocks.{i}.0.conv1", c_out, c_in, 3, 3) | sn(f"blocks.{i}.0.conv2", c_out, c_out, 3, 3)
        if i < down or c_in != c_out:
            shapes |= sn(f"blocks.{i}.0.conv_sc", c_out, c_in, 1, 1)
        if i == attention_after:
            shapes |= attention(f"blocks.{i}.1", c_out)
    return shapes | sn("linear", 1, filters[-1]) | sn("embed", n_classes, filters[-1], bias=False)


def cifar(ch: int = 64) -> tuple[Shapes, Shapes]:
    G = generator_shapes([4 * ch] * 4, 128, 10, None, None)
    return G, discriminator_shapes([4 * ch] * 4, 2, 10, None)


def imagenet(ch: int = 96, n_classes: int = 1000, z: int = 20, y: int = 128) -> tuple[Shapes, Shapes]:
    G = generator_shapes([m * ch for m in (16, 16, 8, 4, 2, 1)], z, n_classes, y, 3)
    return G, discriminator_shapes([m * ch for m in (1, 2, 4, 8, 16, 16)], 5, n_classes, 0)


def numbers(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """A state_dict of those shapes, with numbers that keep activations in range and variances positive."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        if name.endswith("stored_var"):
            x = 0.5 + x.abs()
        elif name.endswith("output_layer.0.gain"):
            x = 1 + 0.1 * x
        elif name.endswith(("bias", "stored_mean", "gain", "gamma")):
            x = 0.3 * x
        state[name] = x
    return state


# --- Their forward pass, in evaluation mode -----------------------------------------------------------------------


class Authors:
    """The arithmetic of `layers.py` on a state_dict."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def weight(self, name: str) -> Tensor:
        """SN.W_: one power iteration from u0, not stored in evaluation mode."""
        w = self.state[f"{name}.weight"]
        if f"{name}.u0" not in self.state:
            return w
        matrix, u = w.view(w.size(0), -1), self.state[f"{name}.u0"]
        v = F.normalize(torch.matmul(u, matrix), eps=1e-6)
        u = F.normalize(torch.matmul(v, matrix.t()), eps=1e-6)
        return w / torch.squeeze(torch.matmul(torch.matmul(v, matrix.t()), u.t()))

    def conv(self, name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weight(name), self.state.get(f"{name}.bias"), padding=padding)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(name), self.state.get(f"{name}.bias"))

    def bn(self, name: str, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        mean, var = self.state[f"{name}.stored_mean"], self.state[f"{name}.stored_var"]
        return F.batch_norm(x, mean, var, None, None, False, 0.1, 1e-5) * gain + bias

    def ccbn(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        parts = [
            F.embedding(y, self.weight(f"{name}.{part}")) if y.ndim == 1 else self.linear(f"{name}.{part}", y)
            for part in ("gain", "bias")
        ]
        gain, bias = (part.view(len(y), -1, 1, 1) for part in parts)
        return self.bn(name, x, 1 + gain, bias)

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, ch, height, width = x.shape
        theta = self.conv(f"{name}.theta", x).view(n, ch // 8, height * width)
        phi = F.max_pool2d(self.conv(f"{name}.phi", x), [2, 2]).view(n, ch // 8, height * width // 4)
        g = F.max_pool2d(self.conv(f"{name}.g", x), [2, 2]).view(n, ch // 2, height * width // 4)
        beta = F.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
        o = self.conv(f"{name}.o", torch.bmm(g, beta.transpose(1, 2)).view(n, ch // 2, height, width))
        return self.state[f"{name}.gamma"] * o + x

    def blocks(self) -> Iterator[int]:
        return iter(range(sum(name.endswith(".0.conv1.weight") for name in self.state)))

    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        s, ys = self.state, [labels] * 9
        if "shared.weight" in s:
            z, *chunks = torch.split(z, s["linear.weight"].size(1), 1)
            y = F.embedding(labels, s["shared.weight"])
            ys = [torch.cat([y, chunk], 1) for chunk in chunks]
        h = self.linear("linear", z).view(len(z), -1, 4, 4)
        for i in self.blocks():
            name, x = f"blocks.{i}.0", F.interpolate(h, scale_factor=2)
            h = F.interpolate(F.relu(self.ccbn(f"{name}.bn1", h, ys[i])), scale_factor=2)
            h = self.conv(f"{name}.conv1", h, 1)
            h = self.conv(f"{name}.conv2", F.relu(self.ccbn(f"{name}.bn2", h, ys[i])), 1)
            h = h + self.conv(f"{name}.conv_sc", x)
            if f"blocks.{i}.1.gamma" in s:
                h = self.attention(f"blocks.{i}.1", h)
        gain, bias = (s[f"output_layer.0.{part}"].view(1, -1, 1, 1) for part in ("gain", "bias"))
        return torch.tanh(self.conv("output_layer.2", F.relu(self.bn("output_layer.0", h, gain, bias)), 1))

    def discriminate(self, x: Tensor, labels: Tensor, down: int) -> Tensor:
        h = x
        for i in self.blocks():
            name, x = f"blocks.{i}.0", h
            h = self.conv(f"{name}.conv1", F.relu(x) if i else x, 1)
            h = self.conv(f"{name}.conv2", F.relu(h), 1)
            if i == 0:  # preactivation=False: first the pooling
                x = self.conv(f"{name}.conv_sc", F.avg_pool2d(x, 2))
            elif f"{name}.conv_sc.weight" in self.state:
                x = self.conv(f"{name}.conv_sc", x)
                x = F.avg_pool2d(x, 2) if i < down else x
            h = (F.avg_pool2d(h, 2) if i < down else h) + x
            if f"blocks.{i}.1.gamma" in self.state:
                h = self.attention(f"blocks.{i}.1", h)
        h = torch.sum(F.relu(h), [2, 3])
        embedded = F.embedding(labels, self.weight("embed"))
        return (self.linear("linear", h) + torch.sum(embedded * h, 1, keepdim=True)).squeeze(1)


# --- Tests ----------------------------------------------------------------------------------------------------------


def save(state, path):
    torch.save(state, path)
    return path


def test_the_lists_have_the_known_numbers_of_names():
    assert [len(shapes) for shapes in cifar()] == [72, 47]
    assert [len(shapes) for shapes in imagenet()] == [166, 88]


@pytest.mark.parametrize("sizes", [cifar, imagenet])
def test_names_and_shapes_of_the_full_networks_match(sizes):
    """On the meta device, for 158 million weights take a while: every name once, and of the expected shape."""
    for shapes, make, names_of in zip(
        sizes(),
        (biggan_weights._generator_for, biggan_weights._discriminator_for),
        (biggan_weights.generator_names, biggan_weights.discriminator_names),
        strict=True,
    ):
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        with torch.device("meta"):
            net = make(state, "x.pth")
        own, names = net.state_dict(), names_of(net)
        assert sorted(theirs for theirs, _, _ in names) == sorted(shapes)
        used = {ours for _, ours, _ in names if ours is not None}
        assert used == {key for key in own if not key.endswith("num_batches_tracked")}
        for theirs, ours, shape in names:
            assert shapes[theirs] == (shape if shape is not None else tuple(own[ours].shape)), theirs
        expected = {72: 4_304_387, 47: 4_207_361, 166: 70_433_988, 88: 87_982_370}
        assert sum(p.numel() for p in net.parameters()) == expected[len(shapes)]


@pytest.mark.parametrize("sizes", [lambda: cifar(2), lambda: imagenet(8, 7, 3, 5)])
def test_a_generator_by_their_rule_gives_what_their_code_gives(tmp_path, sizes):
    """Also with vectors u0 that are no singular vectors, as in an averaged generator."""
    state = numbers(sizes()[0])
    G = load_generator(save(state, tmp_path / "G_ema.pth"))
    z, labels = torch.randn(3, G.z_dim), torch.tensor([0, 6, 6])
    theirs = Authors(state).generate(z, labels)
    with torch.no_grad():
        ours = as_its_authors_evaluate(G)(z, labels)
        exact = G(z, labels)
    assert theirs.std() > 0.05
    assert torch.allclose(ours, theirs, atol=2e-5)
    assert not torch.allclose(exact, theirs, atol=1e-3)
    assert sigma_shortfall(G) > 0.1


@pytest.mark.parametrize(("sizes", "down"), [(lambda: cifar(2), 2), (lambda: imagenet(8, 7, 3, 5), 5)])
def test_a_discriminator_gives_what_their_code_gives(tmp_path, sizes, down):
    """By their rule in evaluation, and as it is in training, where both sides do one iteration from u0."""
    state = numbers(sizes()[1])
    D = load_discriminator(save(state, tmp_path / "D.pth"))
    side = 32 if down == 2 else 128
    x, labels = torch.rand(3, 3, side, side) * 2 - 1, torch.tensor([0, 6, 6])
    theirs = Authors(state).discriminate(x, labels, down)
    with torch.no_grad():
        assert torch.allclose(as_its_authors_evaluate(D)(x, labels), theirs, rtol=1e-4, atol=1e-4)
        assert torch.allclose(D.train()(x, labels), theirs, rtol=1e-4, atol=1e-4)


def test_where_the_vectors_are_singular_both_rules_agree(tmp_path):
    state = numbers(imagenet(8, 7, 3, 5)[0])
    for name in [name for name in state if name.endswith(".u0")]:
        matrix = state[f"{name.removesuffix('.u0')}.weight"].flatten(1)
        state[name] = torch.linalg.svd(matrix.double())[0][:, :1].T.float()
    G = load_generator(save(state, tmp_path / "G.pth"))
    z, labels = torch.randn(2, G.z_dim), torch.tensor([1, 5])
    with torch.no_grad():
        assert torch.allclose(G(z, labels), Authors(state).generate(z, labels), atol=1e-4)
    assert abs(sigma_shortfall(G)) < 1e-3


def test_every_difference_is_named(tmp_path):
    state = numbers(cifar(2)[0])
    del state["blocks.1.0.bn2.stored_var"]
    state["blocks.2.0.conv1.weight"] = torch.zeros(8, 8, 5, 5)
    state["linear.u0"] = torch.zeros(128)
    state["optimizer.step"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        load_generator(save(state, tmp_path / "G.pth"))
    for sentence in (
        "blocks.1.0.bn2.stored_var is missing (expected [8])",
        "optimizer.step [1] is left over",
        "blocks.2.0.conv1.weight has shape [8, 8, 5, 5] (expected [8, 8, 3, 3])",
        "linear.u0 has shape [128] (expected [1, 128])",
        str(tmp_path / "G.pth"),
    ):
        assert sentence in str(error.value)


def test_each_name_is_needed_with_its_shape(tmp_path):
    """Every one of 47, taken away or bent, is named."""
    shapes = cifar(1)[1]
    state = numbers(shapes)
    with torch.device("meta"):
        D = biggan_weights._discriminator_for(state, tmp_path)
    names = biggan_weights.discriminator_names(D)
    for name, shape in shapes.items():
        others = {key: value for key, value in state.items() if key != name}
        with pytest.raises(CheckpointError) as missing:
            biggan_weights._assign(D, others, names, tmp_path)
        assert f"{name} is missing (expected {list(shape)})" in str(missing.value)
        with pytest.raises(CheckpointError) as bent:
            biggan_weights._assign(D, others | {name: torch.zeros(2, 2, 2)}, names, tmp_path)
        assert f"{name} has shape [2, 2, 2] (expected {list(shape)})" in str(bent.value)


class Exploit:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_file_with_code_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"linear.weight": Exploit()}, tmp_path / "new.pth")
    torch.save({"linear.weight": Exploit()}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Exploit()))
    for name in ("new.pth", "old.pth", "bare.pth"):
        with pytest.raises(CheckpointError, match=rf"{name} (holds more than tensors|is truncated)"):
            load_generator(tmp_path / name)
        assert commands.main(["import-biggan", str(tmp_path / name), str(tmp_path / "out")]) == 2
    assert "this code ran" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: None, "there is no checkpoint"),
        (lambda p: p.write_bytes(b"PK\3\4nothing"), "is truncated or damaged"),
        (lambda p: torch.save(torch.zeros(3), p), "does not hold tensors by name"),
        (lambda p: torch.save({"a": torch.zeros(3)}, p), "it lacks linear.weight, output_layer.2.weight"),
        (lambda p: torch.save(numbers(cifar(1)[1]), p), "it lacks output_layer.2.weight"),
        (
            lambda p: torch.save(numbers(generator_shapes([4, 4, 4], 8, 10, None, None)), p),
            "has 2 blocks, and BigGAN's generators have 3 to 6",
        ),
    ],
)
def test_other_files_are_refused(tmp_path, make, sentence):
    make(tmp_path / "G.pth")
    with pytest.raises(CheckpointError, match=sentence):
        load_generator(tmp_path / "G.pth")


def test_files_of_older_pytorch_and_half_precision_are_read(tmp_path):
    state = {name: value.half() for name, value in numbers(cifar(1)[0]).items()}
    torch.save(state, tmp_path / "G.pth", _use_new_zipfile_serialization=False)
    G = load_generator(tmp_path / "G.pth")
    assert {p.dtype for p in G.parameters()} == {torch.float32}
    assert torch.equal(G.state_dict()["0.weight"], state["linear.weight"].float())


# --- The command ----------------------------------------------------------------------------------------------------


def write_folder(folder, sizes, names=("G_ema", "G", "D")):
    folder.mkdir()
    for seed, name in enumerate(names):
        save(numbers(sizes[name == "D"], seed), folder / f"{name}.pth")
    return folder


def test_an_imported_checkpoint_is_a_run(tmp_path, capsys):
    """Teacher, generator and discriminator are where they belong, and training goes on from them."""
    source = write_folder(tmp_path / "cifar", cifar(2))
    assert commands.main(["import-biggan", str(source), str(tmp_path / "run"), "--step", "77"]) == 0
    out = capsys.readouterr().out
    assert "written as step 77 of biggan-cifar10, on data cifar10" in out
    assert "singular values by its authors' rule fall short of the exact ones by at most" in out
    state = checkpoints.read(checkpoints.latest(tmp_path / "run"))
    recipe, seeds = from_dict(json.loads(state["recipe"]))
    assert (recipe.networks, state["step"]) == (Networks("biggan-cifar", z_dim=128, width=2), 77)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    data = gk.data.Dataset("cifar10", images, torch.arange(20) % 10, tuple("0123456789"))
    run = recipe.trainer(*recipe.networks(data.shape, 5, 10), data, seeds, device="cpu")
    run.load(checkpoints.latest(tmp_path / "run"), same_data=False)
    for name, net in (("G_ema", run.teacher.net), ("G", run.G), ("D", run.D)):
        load = load_discriminator if name == "D" else load_generator
        wanted = load(source / f"{name}.pth").state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in net.state_dict().items()), name
    assert run.fit(1, progress=False).steps == 78


def test_one_file_makes_a_run_with_a_new_discriminator(tmp_path, capsys):
    path = save(numbers(imagenet(8, 7, 3, 5)[0]), tmp_path / "G_ema.pth")
    assert commands.main(["import-biggan", str(path), str(tmp_path / "run"), "--data", "photos"]) == 0
    out = capsys.readouterr().out
    assert "there is no D.pth: the discriminator starts anew" in out
    assert "written as step 138,000 of biggan-imagenet128, on data photos" in out
    state = checkpoints.read(checkpoints.latest(tmp_path / "run"))
    assert (
        commands.main(["sample", str(tmp_path / "run"), "-n", "4", "--root", str(tmp_path)]) == 0
    )  # without its data
    assert "4 samples of the averaged generator (teacher) at step 138,000" in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / "run" / "samples.png"))
    run = open_run(tmp_path / "run", device="cpu", needs_data=False)
    tiles = plotting.tile(run.teacher.sample(4), pad=2)
    zoom = max(1, 512 // len(tiles))
    assert np.array_equal(picture[::zoom, ::zoom], tiles)
    assert state["teacher"].keys() == {f"net.{key}" for key in state["G"]}
    assert all(torch.equal(state["teacher"][f"net.{key}"], value) for key, value in state["G"].items())
    assert commands.main(["import-biggan", str(path), str(tmp_path / "run")]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert commands.main(["import-biggan", str(tmp_path / "run"), str(tmp_path / "other")]) == 2
    assert "holds neither G_ema.pth nor G.pth" in capsys.readouterr().err
