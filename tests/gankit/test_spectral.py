import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit as gk
from gankit import models
from gankit.models.ensemble import Ensemble
from gankit.models.spectral import SNConv2d, SNEmbedding, SNLinear, leading_vectors
from gankit.training.average import EMA, Teacher


def layers(net: nn.Module) -> dict[str, nn.Module]:
    """The spectrally normalised layers by name."""
    kinds = SNConv2d | SNLinear | SNEmbedding
    return {name: module for name, module in net.named_modules() if isinstance(module, kinds)}


def largest(weight: Tensor) -> float:
    """The true largest singular value, by LAPACK in float64."""
    return torch.linalg.svdvals(weight.detach().flatten(1).double()).max().item()


def with_spectrum(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A random matrix with these singular values."""
    g = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=g)).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=g)).Q
    return left @ torch.diag(torch.tensor(values)) @ right.mT


# Each layer, PyTorch's plain one, their arguments and an input.
KINDS: dict[str, tuple[type, type, tuple, Callable[[], Tensor]]] = {
    "conv": (SNConv2d, nn.Conv2d, (3, 5, 3, 1, 1), lambda: torch.randn(2, 3, 6, 6)),
    "linear": (SNLinear, nn.Linear, (7, 4), lambda: torch.randn(8, 7)),
    "tall": (SNLinear, nn.Linear, (2, 9, False), lambda: torch.randn(8, 2)),
    "row": (SNLinear, nn.Linear, (6, 1), lambda: torch.randn(8, 6)),
    "embedding": (SNEmbedding, nn.Embedding, (10, 6), lambda: torch.randint(10, (8,))),
}


def make(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layer, _, arguments, _ = KINDS[kind]
    return layer(*arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings(
    "ignore::FutureWarning"
)  # it recommends its successor, which is half a pass ahead
def test_training_is_the_papers_power_iteration(kind):
    """The peer is PyTorch's first implementation of the paper, with the same weights and the same u."""
    mine = make(kind)
    _, plain, arguments, draw = KINDS[kind]
    theirs = plain(*arguments)
    theirs.load_state_dict({name: value for name, value in mine.state_dict().items() if name != "u"})
    theirs = nn.utils.spectral_norm(theirs, dim=0)
    theirs.weight_u = mine.u.clone()
    for _ in range(3):
        x = draw()
        torch.testing.assert_close(mine(x), theirs(x))
        torch.testing.assert_close(mine.u, theirs.weight_u)


@pytest.mark.parametrize("kind", KINDS)
def test_the_divided_weight_has_norm_one_and_the_gradient_of_an_exact_division(kind):
    layer = make(kind).double().eval()
    x = torch.randn_like(layer.weight)
    (mine,) = torch.autograd.grad((layer.normalised() * x).sum(), layer.weight)
    w = layer.weight.detach().requires_grad_()
    exact = w / torch.linalg.svdvals(w.flatten(1)).max()
    torch.testing.assert_close(layer.normalised(), exact)
    (theirs,) = torch.autograd.grad((exact * x).sum(), w)
    torch.testing.assert_close(mine, theirs)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=24),
    st.integers(0, 8),
    st.integers(0, 40),
    st.booleans(),
    st.floats(1e-3, 1e3),
)
def test_evaluation_finds_sigma_whatever_the_spectrum(values, rows, columns, tall, scale):
    w = scale * with_spectrum(values, len(values) + rows, len(values) + columns)
    w = w.mT if tall else w
    u, v = leading_vectors(w)
    found = torch.dot(u, w @ v).item()
    assert (1 - 2e-3) * largest(w) <= found <= (1 + 1e-5) * largest(w)


@pytest.mark.parametrize(
    "values",
    [
        torch.linspace(0.9, 1, 64).tolist(),
        torch.linspace(0.99, 1, 64).tolist(),
        [1.0] * 64,
        [1.0] + [0.999] * 63,
        torch.linspace(0, 1, 64).tolist(),
    ],
    ids=["0.9 to 1", "0.99 to 1", "orthogonal", "all but equal", "0 to 1"],
)
def test_hard_spectra(values):
    """Many values close to the largest: where power iteration is slow. 200 passes come within 1 %."""
    layer = SNLinear(80, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(with_spectrum(values, 64, 80))
    for _ in range(200):
        layer(torch.zeros(1, 80))
    assert layer.sigma().item() == pytest.approx(1, rel=0.01)
    assert layer.eval().sigma().item() == pytest.approx(1, rel=5e-4)


def test_evaluation_changes_nothing_and_training_moves_u():
    layer, x = SNLinear(12, 8), torch.randn(3, 12)
    before = layer.u.clone()
    assert torch.equal(layer.eval()(x), layer(x))
    assert torch.equal(layer.u, before)
    layer.train()(x)
    assert not torch.equal(layer.u, before)
    assert set(layer.state_dict()) == {"weight", "bias", "u"}


def test_two_passes_before_one_gradient():
    """As for real and fake samples scored one after the other; the second pass moves u under the first one."""
    layer, x = SNLinear(12, 8), torch.randn(3, 12)
    (layer(x).square().sum() + layer(2 * x).square().sum()).backward()
    assert layer.weight.grad.isfinite().all()


def test_the_average_of_two_weights_is_divided_by_its_own_norm():
    """A teacher has G's u, by copy. Here that u is the worst: the direction in which the average is smallest."""
    G = SNLinear(2, 2, bias=False)
    teacher = Teacher(G, EMA(decay=0.9), batch_size=1)
    with torch.no_grad():
        teacher.net.weight.copy_(torch.diag(torch.tensor([2.0, 0.0])))
        G.weight.copy_(torch.diag(torch.tensor([0.1, 2.0])))
    for _ in range(20):
        G(torch.zeros(1, 2))
    teacher.update(G, 1)  # the average is diag(1.81, 0.2)
    assert torch.equal(teacher.net.u, G.u)
    assert abs(G.u[1]) > 0.999
    assert torch.dot(teacher.net.u, teacher.net.weight.mv(teacher.net.u)).item() == pytest.approx(
        0.2, rel=0.01
    )
    assert teacher.net.sigma().item() == pytest.approx(1.81, rel=1e-4)


@pytest.fixture(scope="module")
def trained() -> gk.Trainer:
    """SAGAN on digits after 40 steps with the paper's learning rates: spectral norm in G, in D and in the teacher."""
    torch.set_num_threads(1)
    data = gk.data.load("digits")
    G, D = models.sagan(data.shape, 10, z_dim=16, width=16)
    g, d = gk.Adam(1e-4, 0.0, 0.9), gk.Adam(4e-4, 0.0, 0.9)
    run = gk.Trainer(
        G,
        D,
        data,
        loss="hinge",
        batch_size=16,
        g_optimizer=g,
        d_optimizer=d,
        ema=EMA(decay=0.99),
        device="cpu",
    )
    return run.fit(40, progress=False)


def test_sigma_in_training_follows_the_weights(trained):
    """One power iteration per pass lags where singular values cross, up to a tenth (as in figure 9 of the paper)."""
    shares = []
    for net in (trained.G, trained.D):
        for layer in layers(net).values():
            assert layer.training
            shares.append(copy.deepcopy(layer).sigma().item() / largest(layer.weight))
    assert len(shares) == 25
    assert max(shares) <= 1 + 1e-5
    assert sorted(shares)[len(shares) // 4] > 0.99  # three of four layers are within 1 %
    assert min(shares) > 0.8


def test_sigma_in_the_teacher_and_in_evaluation_is_exact(trained):
    nets = (trained.teacher.net, copy.deepcopy(trained.G).eval(), copy.deepcopy(trained.D).eval())
    for net in nets:
        assert len(layers(net)) >= 9
        for name, layer in layers(net).items():
            assert layer.sigma().item() == pytest.approx(largest(layer.weight), rel=2e-3), name


def test_the_teacher_copies_u_and_averages_weights(trained):
    for mine, theirs in zip(trained.teacher.net.buffers(), trained.G.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    mine, theirs = layers(trained.teacher.net)["0"].weight, layers(trained.G)["0"].weight
    assert not torch.equal(mine, theirs)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", ["conv", "linear", "embedding"])
def test_replicas_side_by_side(kind, mode):
    def factory(seed: int) -> nn.Module:
        return nn.Sequential(make(kind, seed)).double()

    stacked = Ensemble(factory, [3, 4]).train(mode == "train")
    alone = [factory(seed).train(mode == "train") for seed in (3, 4)]
    x = torch.stack([KINDS[kind][-1](), KINDS[kind][-1]()])
    x = x if kind == "embedding" else x.double()
    for _ in range(2):
        together = stacked(x)
        for i, net in enumerate(alone):
            torch.testing.assert_close(together[i], net(x[i]))
    for i, net in enumerate(alone):
        torch.testing.assert_close(stacked.replica(i)[0].u, net[0].u)
    gradient = torch.autograd.grad(stacked(x).square().sum(), list(stacked.parameters()))
    theirs = torch.autograd.grad(alone[1](x[1]).square().sum(), list(alone[1].parameters()))
    for g, expected in zip(gradient, theirs, strict=True):
        torch.testing.assert_close(g[1], expected)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("stacked", [False, True])
def test_autocast_does_not_coarsen_sigma(mode, stacked):
    def factory(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(SNLinear(200, 40, bias=False))

    net = (Ensemble(factory, [0, 1]) if stacked else factory(0)).train(mode == "train")
    full = copy.deepcopy(net)
    x = torch.eye(200)
    x = torch.stack([x, x]) if stacked else x
    for _ in range(20):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net(x)
        high = full(x)
    assert low.dtype == torch.bfloat16
    # W / sigma, each number rounded to bfloat16; their mean ratio is that of the two sigmas.
    assert (low.float() / high).mean().item() == pytest.approx(1, rel=3e-4)
    for mine, theirs in zip(net.buffers(), full.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("gap", [0.5, 1, 2, 4, 8])
def test_the_number_of_squarings_bounds_the_error(gap):
    """The comment at SQUARINGS: ln(n) / 2^11 for n rows, whatever lies how closely below the largest value."""
    n = 128
    bound = math.log(n) / 2**11
    w = with_spectrum([1.0] + [1 - gap * bound] * (n - 1), n, n)
    u, v = leading_vectors(w)
    assert 1 - torch.dot(u, w @ v).item() <= bound
