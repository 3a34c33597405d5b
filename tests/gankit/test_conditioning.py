"""Conditioning: one architecture, several ways; the terms of a class head; what a projection is."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gankit as gk
from gankit.data import Dataset
from gankit.game.classes import LearnClasses, ShowClasses, class_entropy
from gankit.game.play import Verdict, d_gradient, g_gradient
from gankit.metrics.features import of_classifier
from gankit.metrics.modes import intra_class
from gankit.metrics.neighbours import prdc
from gankit.models import Condition
from gankit.models.blocks import (
    ClassTable,
    ConditionalBatchNorm1d,
    ConditionalBatchNorm2d,
    Projection,
)
from gankit.models.conditioning import D_WAYS, G_WAYS, ClassHead, Join, OneHot
from gankit.models.sampling import Sampler, class_path, sample, z_path
from gankit.recipes import recipes
from gankit.recipes.saved import path_sampler

K, Y, Z, W = 10, 6, 16, 8
FAMILIES = {
    "mlp": (gk.models.mlp, (1, 8, 8), {"z_dim": Z, "depth": 4, "width": W}),
    "conv": (gk.models.conv, (1, 28, 28), {"z_dim": Z, "depth": 4, "width": W}),
    "sngan": (gk.models.sngan, (3, 32, 32), {"z_dim": Z, "width": W}),
    "wgan-gp": (gk.models.wgan_gp, (3, 32, 32), {"z_dim": Z, "width": W}),
}
DIGITS = gk.data.load("digits", n=200)


def nets(family: str, condition: Condition | None, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    make, shape, sizes = FAMILIES[family]
    return make(shape, condition=condition, seed=seed, **sizes)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


# --- One architecture ---------------------------------------------------------------------------------------

NORMED = {"mlp": [W] * 3, "conv": [4 * W, 2 * W, W], "sngan": [W] * 6, "wgan-gp": [W] * 6}
"""Channels of the normalisations that "batch-norm" makes conditional."""
FIRST = {"mlp": W, "conv": 16 * 4 * W, "sngan": 16 * W, "wgan-gp": 16 * W}
"""Numbers that the generator's first layer makes of each that it reads."""
PLAIN = {"mlp": 3 * W, "conv": 3 * W, "sngan": 2 * 6 * W, "wgan-gp": 2 * 6 * W}
"""What an unconditional generator has in their place: gains and biases of normalisations, or biases of layers."""
FEATURES = {"mlp": W, "conv": 16 * 4 * W, "sngan": W // 2, "wgan-gp": W // 2}
"""What the discriminator's head reads."""
D_FIRST = {"mlp": W, "conv": 9 * W, "sngan": (9 + 1) * W // 2, "wgan-gp": (9 + 1) * W // 2}
"""Weights of each number or map that D's first layer (a block's 3x3 and 1x1) reads."""


def d_hidden(family: str) -> int:
    """Weights that "concat-hidden" adds for a vector of Y numbers: K of them, and what the next layer reads of each."""
    half = W // 2
    reads = {"mlp": W * Y, "conv": 9 * 4 * W * Y}.get(family)
    # The next block had an identity as its shortcut, and gets a 1x1 convolution with a bias.
    return K * Y + (reads or 9 * half * Y + (half + Y) * half + half)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_conditioning_differs_in_parameters(family):
    """The number of parameters of each way, from that of the unconditional networks and a closed form."""
    G, D = map(count, nets(family, None))
    chunk = Z // (1 + {"mlp": 3, "conv": 3}.get(family, 3))
    norms, first = NORMED[family], FIRST[family]
    of_G = {
        "one-hot": first * K,
        "embedding": first * Y + K * Y,
        "batch-norm": 2 * K * sum(norms) - PLAIN[family],
        "skip-z": K * Y - first * (Z - chunk) + 2 * (Y + chunk) * sum(norms) - PLAIN[family],
    }
    of_D = {
        "concat": D_FIRST[family] * K,
        "concat-hidden": d_hidden(family),
        "class-head": K * (FEATURES[family] + 1),
        "projection": K * FEATURES[family],
    }
    assert set(of_G) == set(G_WAYS)
    assert set(of_D) == set(D_WAYS)
    for g, d in itertools.product(G_WAYS, D_WAYS):
        found = nets(family, Condition(K, g, d, Y))
        assert count(found[0]) - G == of_G[g], g
        assert count(found[1]) - D == of_D[d], d


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("g", "d"), list(itertools.product(G_WAYS, D_WAYS)))
def test_every_way_is_called_alike(family, g, d):
    shape, condition = FAMILIES[family][1], Condition(K, g, d, Y)
    G, D = nets(family, condition)
    z, y = torch.randn(5, Z), torch.arange(5)
    x = G.eval()(z, y).detach()
    assert x.shape == (5, *shape)
    assert float(x.abs().max()) <= 1
    said = D(x, y)
    logits, classes = said if isinstance(said, tuple) else (said, None)
    assert logits.shape == (5,)
    assert (classes is not None) == (d == "class-head")
    assert classes is None or classes.shape == (5, K)
    pair = gk.pair(lambda seed: nets(family, condition, seed), (0, 1))
    both = pair[0].eval()(torch.stack([z, z]), torch.stack([y, y]))
    torch.testing.assert_close(both[0], x, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0], both[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("g", G_WAYS)
def test_ways_of_d_begin_with_the_same_g(family, g):
    """Else pairs of one seed would differ in more than the way."""
    weights = [nets(family, Condition(K, g, d, Y), 3)[0].state_dict() for d in D_WAYS]
    assert all(torch.equal(weights[0][key], other[key]) for other in weights[1:] for key in other)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_seed_is_that_of_the_unconditional_weights(family):
    """Nothing is drawn from elsewhere, and the caller's random state stays."""
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a, b = (nets(family, Condition(K, "skip-z", "class-head", Y), 7)[0].state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_batch_norm_and_projection_are_the_projection_gan():
    ours = gk.models.sngan((3, 32, 32), width=16, condition=Condition(10, "batch-norm", "projection"))
    other = gk.models.projection_gan((3, 32, 32), 10, width=16)
    for mine, theirs in zip(ours, other, strict=True):
        mine, theirs = mine.state_dict(), theirs.state_dict()
        assert {key: x.shape for key, x in mine.items()} == {key: x.shape for key, x in theirs.items()}
    ours[1].load_state_dict(other[1].state_dict()), ours[0].load_state_dict(other[0].state_dict())
    z, y = torch.randn(4, 128), torch.arange(4)
    x = ours[0](z, y)
    assert torch.equal(x, other[0](z, y))
    assert torch.equal(ours[1](x, y), other[1](x, y))
    assert tuple(map(count, gk.models.sngan((3, 32, 32), condition=Condition(10, "batch-norm")))) == (
        4_304_387,
        1_055_105,
    )


@pytest.mark.parametrize("d", D_WAYS)
@pytest.mark.parametrize("family", ["mlp", "conv", "sngan"])
def test_the_label_changes_what_d_says_unless_it_names_the_class(family, d):
    """By more than a number that is added to all logits: else D could not tell a wrong label."""
    _, D = nets(family, Condition(K, "one-hot", d, Y))
    D.eval()
    x = torch.rand(6, *FAMILIES[family][1]) * 2 - 1
    said = [D(x, torch.full((6,), y)) for y in (0, 1)]
    if d == "class-head":
        assert torch.equal(said[0][0], said[1][0])
        return
    assert float((said[0] - said[1]).detach().std()) > 1e-6


def test_what_a_label_can_do_behind_the_last_layer():
    """<V_y, phi> + b_y would need the product: a label that is joined to the last layer's input only adds b_y."""
    layer = nn.Linear(W + K, 1)
    phi, y = torch.randn(4, W), torch.arange(4)
    joined = Join(OneHot(K), K)
    gaps = layer(joined(phi, y)) - layer(joined(phi, (y + 1) % K))
    expected = layer.weight[0, W + y] - layer.weight[0, W + (y + 1) % K]
    torch.testing.assert_close(gaps[:, 0], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Condition(0), "n_classes must be a whole number of at least 1, got 0"),
        (lambda: Condition(3, "film"), "g_condition must be one of one-hot, .*, got 'film'"),
        (lambda: Condition(3, d="film"), "d_condition must be one of concat, .*, got 'film'"),
        (
            lambda: gk.models.mlp((2,), z_dim=6, depth=4, condition=Condition(3, "skip-z")),
            "z_dim must be a multiple of 4",
        ),
        (
            lambda: gk.models.mlp((2,), depth=1, condition=Condition(3, "batch-norm")),
            "'batch-norm' needs a hidden layer, so a depth of at least 2",
        ),
        (lambda: gk.models.mlp((2,), depth=1, condition=Condition(3, d="concat")), "'concat' needs a hidden layer"),
        (
            lambda: gk.models.conv((1, 8, 8), depth=2, condition=Condition(3, d="concat-hidden")),
            "'concat-hidden' needs two hidden layers, so a depth of at least 3",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g_condition": "one-hot"}, "must be given together"),
        ({"g_condition": "one-hot", "d_condition": "bilinear"}, "d_condition must be one of"),
        ({"g_condition": "one-hot", "d_condition": "concat", "model": "biggan", "depth": None, "d_depth": None},
         "g_condition and d_condition are for mlp, conv, sngan, wgan-gp, got model 'biggan'"),
        ({"y_dim": 4}, "'mlp' has no y_dim"),
    ],
)  # fmt: skip
def test_a_recipe_refuses_a_condition_that_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes["ns-digits"].changed(changes)


# --- Conditional batch norm ---------------------------------------------------------------------------------


def batch_norm_by_class(x, labels, gain, bias, eps):
    """Equation 5 of Dumoulin et al. 2017 in numpy: moments of the whole batch, gain and bias class by class."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *[1] * (x.ndim - 2))
    h = (x - x.mean(axes).reshape(shape)) / np.sqrt(x.var(axes).reshape(shape) + eps)
    out = np.empty_like(h)
    for y in set(labels.tolist()):
        out[labels == y] = h[labels == y] * (1 + gain[y]).reshape(shape) + bias[y].reshape(shape)
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 12), st.integers(1, 5), st.sampled_from([(), (3, 2)]))
def test_conditional_batch_norm_is_a_loop_over_classes(seed, n, channels, pixels):
    torch.manual_seed(seed)
    kind = ConditionalBatchNorm2d if pixels else ConditionalBatchNorm1d
    layer = kind(channels, lambda c: ClassTable(4, c)).double()
    x, y = torch.randn(n, channels, *pixels, dtype=torch.float64), torch.randint(0, 4, (n,))
    expected = batch_norm_by_class(
        x.numpy(),
        y.numpy(),
        layer.gain.weight.detach().numpy(),
        layer.bias.weight.detach().numpy(),
        layer.norm.eps,
    )
    np.testing.assert_allclose(layer(x, y).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_it_starts_as_plain_batch_norm():
    G, _ = nets("sngan", Condition(K, "batch-norm", "projection"))
    z = torch.randn(4, Z)
    assert torch.equal(G(z, torch.zeros(4).long()), G(z, torch.full((4,), 3)))
    # Of the batch, and not of a class: a class whose samples are alike keeps what tells it from the others.
    norm = ConditionalBatchNorm1d(1, lambda c: ClassTable(2, c))
    nn.init.zeros_(norm.gain.weight), nn.init.zeros_(norm.bias.weight)
    h = norm(torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([0, 0, 1, 1]))
    assert h[0] == h[1] != h[2]


# --- What a projection is -----------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 4))
def test_a_projection_is_the_log_ratio_of_two_gaussians_per_class(seed, n_classes, dim):
    """Real q(x | y) = N(m_y, C), generated p(x | y) = N(r_y, C): log q - log p is linear in phi(x) = (x, 1)."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    m, r, root = draw(n_classes, dim), draw(n_classes, dim), draw(dim, dim)
    covariance = root @ root.T + torch.eye(dim, dtype=torch.float64)
    inverse = torch.linalg.inv(covariance)
    # Equation 3 of Miyato and Koyama: f = <V_y, phi> + psi(phi), with the mean over classes in psi.
    slope = (m - r) @ inverse
    offset = -((m @ inverse * m).sum(-1) - (r @ inverse * r).sum(-1)) / 2
    V = torch.cat([slope, offset[:, None]], -1)
    layer = Projection(nn.Linear(dim + 1, 1, bias=False), nn.Embedding(n_classes, dim + 1)).double()
    with torch.no_grad():
        layer.psi.weight.copy_(V.mean(0))
        layer.V.weight.copy_(V - V.mean(0))
    x, y = draw(50, dim), torch.randint(0, n_classes, (50,), generator=g)
    phi = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], -1)
    normal = torch.distributions.MultivariateNormal
    expected = normal(m[y], covariance).log_prob(x) - normal(r[y], covariance).log_prob(x)
    torch.testing.assert_close(layer(phi, y), expected, rtol=1e-7, atol=1e-7)
    # Facts of any projection: two labels differ by (V_a - V_b) phi, and V = 0 is unconditional.
    other = (y + 1) % n_classes
    torch.testing.assert_close(
        layer(phi, y) - layer(phi, other), ((layer.V.weight[y] - layer.V.weight[other]) * phi).sum(-1)
    )
    with torch.no_grad():
        layer.V.weight.zero_()
    assert torch.equal(layer(phi, y), layer(phi, other))


def test_training_finds_that_log_ratio():
    """A logistic D with a projection, on samples of both Gaussians of three classes, against the closed form."""
    torch.manual_seed(0)
    m, r = (
        torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.5]]),
        torch.tensor([[0.0, 0.5], [1.0, 1.0], [0.0, 0.0]]),
    )
    n = 30_000
    y = torch.randint(0, 3, (n,))
    real, fake = m[y] + torch.randn(n, 2), r[y] + torch.randn(n, 2)
    layer = Projection(nn.Linear(3, 1, bias=False), nn.Embedding(3, 3))
    phi = lambda x: torch.cat([x, torch.ones(len(x), 1)], -1)  # noqa: E731
    descent = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        descent.zero_grad()
        cost = gk.losses["ns"].d_loss(layer(phi(real), y), layer(phi(fake), y))
        cost.backward()
        return cost

    descent.step(closure)
    found = layer.psi.weight + layer.V.weight
    slope, offset = m - r, -(m.square().sum(-1) - r.square().sum(-1)) / 2
    torch.testing.assert_close(found, torch.cat([slope, offset[:, None]], -1), rtol=0, atol=0.06)


# --- AC-GAN's terms -----------------------------------------------------------------------------------------


def ac_run(**settings) -> gk.Trainer:
    condition = Condition(K, "one-hot", "class-head")
    G, D = gk.models.mlp(DIGITS.shape, z_dim=4, depth=3, width=8, condition=condition)
    return gk.Trainer(G, D, DIGITS, batch_size=32, device="cpu", **settings)


def test_the_cost_of_a_uniform_head_is_log_k():
    run = ac_run()
    head = next(layer for layer in run.D if isinstance(layer, ClassHead))
    nn.init.zeros_(head.classes.weight), nn.init.zeros_(head.classes.bias)
    play = run.play(run.D)
    for term, factor in ((LearnClasses(1.0), 2), (LearnClasses(3.0, 0.0), 3), (ShowClasses(0.5), 0.5)):
        assert term(play).item() == pytest.approx(factor * math.log(K), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(2, 7), st.booleans())
def test_the_class_cost_is_the_papers(seed, n, k, stacked):
    """L_C of Odena et al., equation 3: minus the mean log-probability of the right class."""
    g = torch.Generator().manual_seed(seed)
    lead = (3,) if stacked else ()
    logits, labels = torch.randn(*lead, n, k, generator=g), torch.randint(0, k, (*lead, n), generator=g)
    p = np.exp(logits.double().numpy())
    p = p / p.sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, labels.numpy()[..., None], -1))[..., 0].mean(-1)
    found = class_entropy(Verdict(torch.zeros(*lead, n), logits), labels)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_both_players_get_the_gradient_of_the_classes():
    run = ac_run(d_terms=[LearnClasses(2.0)], g_terms=[ShowClasses(3.0)])
    twin = ac_run()
    for player, term in (("D", LearnClasses(2.0)), ("G", ShowClasses(3.0))):
        start = run.streams.state_dict()
        net, other = getattr(run, player), getattr(twin, player)
        gradient_of = d_gradient if player == "D" else g_gradient
        params = list(net.parameters())
        ours = gradient_of(run.play(net), params)[f"{player.lower()}_grad"]
        run.streams.load_state_dict(start), twin.streams.load_state_dict(start)
        plain = gradient_of(twin.play(other), list(other.parameters()))[f"{player.lower()}_grad"]
        play = run.play(net)
        extra = torch.autograd.grad(term(play).sum(), params, materialize_grads=True)
        for a, b, c in zip(ours, plain, extra, strict=True):
            torch.testing.assert_close(a, b + c, rtol=1e-4, atol=1e-6)
        assert any(float(c.abs().max()) > 0 for c in extra)
        twin.streams.load_state_dict(run.streams.state_dict())


def test_replicas_may_have_weights_of_their_own():
    G, D = gk.pair(
        lambda s: gk.models.mlp(DIGITS.shape, 4, 3, 8, condition=Condition(K, d="class-head"), seed=s), (0, 0)
    )
    run = gk.Trainer(G, D, DIGITS, batch_size=16, device="cpu")
    play = run.play(run.D)
    one, many = LearnClasses(1.0)(play), LearnClasses((1.0, 4.0))(play)
    torch.testing.assert_close(many, one * torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize(
    "make", [lambda: LearnClasses(-1.0), lambda: ShowClasses(math.nan), lambda: LearnClasses(1, -1)]
)
def test_a_weight_out_of_range_is_refused(make):
    with pytest.raises(ValueError, match="must be at least 0 and finite"):
        make()


def test_a_discriminator_without_a_class_head_is_refused():
    G, D = gk.models.mlp(DIGITS.shape, 4, 3, 8, condition=Condition(K))
    run = gk.Trainer(G, D, DIGITS, batch_size=8, device="cpu", d_terms=[LearnClasses()])
    with pytest.raises(ValueError, match="needs a discriminator with a class head"):
        run.step()


# --- Samples ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("g", G_WAYS)
@pytest.mark.parametrize("family", ["mlp", "sngan"])
def test_shares_of_the_classes_are_their_weighted_mean(family, g):
    """A corner is its class; and what the label brings in lies on a straight line between two classes."""
    G, _ = nets(family, Condition(K, g, "projection", Y))
    with torch.no_grad():
        for p in G.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    G.eval()
    z, y = torch.randn(4, Z), torch.tensor([0, 3, 3, 9])
    torch.testing.assert_close(G(z, nn.functional.one_hot(y, K).float()), G(z, y), rtol=1e-4, atol=1e-5)
    table = ClassTable(K, 5)
    shares = torch.rand(4, K)
    torch.testing.assert_close(table(shares), shares @ table.weight)
    middle = class_path(torch.tensor([2, 7]), 3, K)[1]
    torch.testing.assert_close(table(middle), (table.weight[2] + table.weight[7]) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.lists(st.integers(0, 9), min_size=2, max_size=5))
def test_a_way_through_classes_visits_them_in_equal_paces(steps, labels):
    shares = class_path(torch.tensor(labels), steps, 10)
    assert shares.shape == (steps, 10)
    torch.testing.assert_close(shares.sum(-1), torch.ones(steps))
    assert bool((shares >= 0).all())
    assert shares[0].argmax() == labels[0]
    assert shares[-1].argmax() == labels[-1]
    at = np.linspace(0, len(labels) - 1, steps)
    corners = np.eye(10)[labels]
    expected = np.stack([np.interp(at, range(len(labels)), corners[:, k]) for k in range(10)], -1)
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-5)


def test_latents_on_the_way_are_normal():
    """Mean square 1 all along; that of a straight line falls to a half."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2000, 16, generator=g), torch.randn(2000, 16, generator=g)
    z = z_path(a, b, 5)
    assert torch.equal(z[:, 0], a)
    torch.testing.assert_close(z[:, -1], b, rtol=0, atol=1e-6)
    assert z.square().mean((0, 2)).numpy() == pytest.approx(np.ones(5), abs=0.02)
    assert float(torch.lerp(a, b, 0.5).square().mean()) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="steps must be at least 2"):
        z_path(a, b, 1)
    with pytest.raises(ValueError, match="starts and ends must be"):
        z_path(a, b[:3], 4)
    with pytest.raises(ValueError, match="at least 2 classes"):
        class_path(torch.tensor([1]), 4, 10)


def test_a_sampler_takes_latents_and_shares():
    G, _ = nets("mlp", Condition(K, "embedding", "projection"))
    z, shares = torch.randn(7, Z), torch.rand(7, K)
    made = torch.cat([images for images, _ in Sampler(G, labels=shares, z=z).batches(7, 3)])
    torch.testing.assert_close(made, G(z, shares))
    pair = gk.pair(lambda s: nets("mlp", Condition(K, "embedding"), s), (0, 1))
    assert sample(pair[0], 7, labels=shares).shape == (2, 7, 1, 8, 8)
    for wrong in (torch.rand(7, 3), torch.rand(7), torch.zeros(6).long(), torch.zeros(7, 1).long()):
        with pytest.raises(ValueError, match="labels must have shape"):
            sample(G, 7, labels=wrong)
    with pytest.raises(ValueError, match=r"z must have shape \(7, 16\)"):
        Sampler(G, z=z[:3])(7)


def test_a_saved_run_walks_between_samples(tmp_path):
    made = replace(recipes["projection-digits"], batch_size=16).changed({"width": 8})
    made.build(device="cpu").fit(2, out=tmp_path, progress=False)
    saved = gk.load(tmp_path, device="cpu")
    ways = saved.interpolate("class", rows=3, steps=5, labels=["3", "8"])
    assert ways.shape == (3, 5, 1, 8, 8)
    z = path_sampler(saved.teacher, "class", 3, 5, ["3", "8"], saved.classes).z
    torch.testing.assert_close(ways[:, 0], saved.teacher(z[::5], torch.full((3,), 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ways[:, -1], saved.teacher(z[::5], torch.full((3,), 8)), rtol=1e-4, atol=1e-5)
    straight = saved.interpolate("z", rows=2, steps=4, labels=[1, 2], seed=5)
    assert straight.shape == (2, 4, 1, 8, 8)
    assert not torch.equal(straight, saved.interpolate("z", rows=2, steps=4, labels=[1, 2], seed=6))
    torch.testing.assert_close(saved.sample(2, labels=torch.eye(10)[[4, 4]]), saved.sample(2, labels=4))
    for bad in (
        {"over": "x"},
        {"rows": 0},
        {"steps": 1},
        {"over": "class"},
        {"over": "class", "labels": "3"},
    ):
        with pytest.raises(ValueError, match=r"over must|rows must|needs labels"):
            saved.interpolate(**bad)


# --- Metrics inside classes ---------------------------------------------------------------------------------


class Lookup(nn.Module):
    """A "classifier" that reads two features and the class, 0 or 1, from the pixels."""

    shape, n_classes = (1, 2, 2), 2

    def features(self, x):
        return x.flatten(1).double()

    def logits(self, features):
        return torch.stack([-features[:, 3], features[:, 3]], -1)


def test_scores_inside_classes():
    """Class accuracy counts; precision, recall and coverage are those of each class by itself, averaged."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (200, 1, 2, 2), generator=g, dtype=torch.uint8)
    labels = torch.arange(200) % 2
    pixels[:, 0, 1, 1] = labels * 255
    data = Dataset("pairs", pixels, labels, ("a", "b"))
    images = data.normalise(pixels)
    made = torch.rand(80, 1, 2, 2, generator=g) * 2 - 0.8
    asked = torch.arange(80) % 2
    shown = asked.clone()
    shown[:20] = 1 - shown[:20]
    made[:, 0, 1, 1] = 2 * shown - 1.0
    space = of_classifier(Lookup(), "lookup")
    names = ["class_accuracy", "intra_precision", "intra_recall", "intra_coverage"]
    scores = gk.metrics.evaluate(lambda n: (made, asked), data, names, space, n=80, k=3, progress=False)
    assert float(scores["class_accuracy"].value) == pytest.approx(60 / 80)
    assert float(scores["class_accuracy"].error) == pytest.approx(math.sqrt(0.75 * 0.25 / 80))
    features = images.flatten(1), made.flatten(1)
    for name in ("precision", "recall", "coverage"):
        expected = np.mean(
            [float(prdc(features[0][labels == c], features[1][asked == c], 3)[name]) for c in (0, 1)]
        )
        score = scores[f"intra-{name}[lookup]"]
        assert float(score.value) == pytest.approx(expected)
        assert float(score.error) > 0
    assert intra_class(lambda r, f: prdc(r, f, 3)["recall"], features[0], labels, features[1], asked).mean < 1


@pytest.mark.parametrize("side", [28, 32])
def test_similarity_inside_classes_sees_a_collapsed_class(side):
    """MS-SSIM at the sizes of MNIST and CIFAR-10: one picture per class scores 1, unlike pictures far less."""
    g = torch.Generator().manual_seed(0)
    # Smooth pictures: unrelated noise has no structure at all.
    images = nn.functional.interpolate(torch.rand(80, 1, 5, 5, generator=g), side, mode="bilinear") * 2 - 1
    labels = torch.arange(80) % 2
    data = Dataset("smooth", gk.metrics.features.to_uint8(images), labels, ("a", "b"))
    collapsed = images[labels]
    score = lambda x: gk.metrics.evaluate(  # noqa: E731
        lambda n: (x, labels), data, ["intra_ms_ssim"], n=80, pairs=15, progress=False
    )["MS-SSIM[within classes]"]
    assert float(score(collapsed).value) == pytest.approx(1)
    assert float(score(images).value) < 0.5
