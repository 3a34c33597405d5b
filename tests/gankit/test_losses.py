"""Every cost against autograd of the formula as the papers print it, in float64."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad

import gankit as gk
from gankit.game import losses as L
from gankit.game.losses import losses, per_replica, unit_rescaling
from gankit.game.play import Game, Play


def printed(name: str):
    """J_G as printed in the papers, with no regard for overflow: the reference."""

    def mean(x: Tensor) -> Tensor:
        return x.mean(-1)

    def m(f: Tensor) -> Tensor:
        return torch.sigmoid(f).mean(-1).detach()

    def mm(f: Tensor) -> Tensor:
        return torch.log(1 - torch.sigmoid(f))

    def ns(f: Tensor) -> Tensor:
        return -torch.log(torch.sigmoid(f))

    def factor(f: Tensor) -> Tensor:
        return (1 - m(f)) / m(f)

    table = {
        "mm": lambda f: mean(mm(f)),
        "ns": lambda f: mean(ns(f)),
        "mm-nsat": lambda f: factor(f) * mean(mm(f)),
        "mm-unit": lambda f: mean(mm(f)),
        "ns-unit": lambda f: mean(ns(f)),
        "ns-exp-2": lambda f: mean(ns(f) + torch.sigmoid(f)) / (1 - m(f)),
        "mm-nsat-exp-2": lambda f: (1 - m(f)) / m(f) ** 2 * mean(mm(f) + torch.sigmoid(f)),
        "ns-exp-0.5": lambda f: (
            (1 - m(f)) ** 0.5 * mean(2 * torch.log(torch.sqrt(torch.exp(-f)) + torch.sqrt(torch.exp(-f) + 1)))
        ),
        "mm-nsat-exp-0.5": lambda f: (
            (1 - m(f))
            / m(f) ** 0.5
            * mean(-2 * torch.log(torch.sqrt(torch.exp(f)) + torch.sqrt(torch.exp(f) + 1)))
        ),
        "ls": lambda f: mean((f - 1) ** 2) / 2,
        "hinge": lambda f: mean(-f),
        "wgan": lambda f: mean(-f),
        "rpgan": lambda f: mean(ns(f)),  # of margins
        "began": lambda f: mean(-f),  # of minus the errors
    }
    for a in (0.25, 0.5, 0.75):
        table[f"ns+mm({a:g})"] = lambda f, a=a: (1 - a) * mean(ns(f)) + a * mean(mm(f))
        table[f"ns+mm-nsat({a:g})"] = lambda f, a=a: (1 - a) * mean(ns(f)) + a * factor(f) * mean(mm(f))
    for a in (0.1, 1.0):
        table[f"ns-add-{a:g}"] = lambda f, a=a: (1 - m(f)) / (a + 1 - m(f)) * mean(ns(f) - a * f)
        table[f"mm-nsat-add-{a:g}"] = lambda f, a=a: (1 - m(f)) / (a + m(f)) * mean(mm(f) - a * f)
    return table[name]


ALL = sorted(losses)
LOGITS = torch.linspace(-12, 9, 21, dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
def test_generator_cost_and_gradient_are_those_of_the_printed_formula(name):
    reference = printed(name)
    torch.testing.assert_close(losses[name].g_loss(LOGITS), reference(LOGITS), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        grad(losses[name].g_loss)(LOGITS), grad(reference)(LOGITS), rtol=1e-7, atol=1e-12
    )


@pytest.mark.parametrize("name", ALL)
def test_weight_is_minus_the_gradient_with_respect_to_the_logit(name):
    weight = losses[name].g_weight(LOGITS)
    torch.testing.assert_close(
        weight, -len(LOGITS) * grad(losses[name].g_loss)(LOGITS), rtol=1e-9, atol=1e-14
    )
    assert weight.min() >= 0 or name == "ls"


@pytest.mark.parametrize("name", ["ns-exp-2", "mm-nsat-exp-2", "ns-exp-0.5", "mm-nsat-exp-0.5", "mm-nsat"])
def test_float32_gradient_keeps_its_digits_where_d_is_sure(name):
    f = torch.tensor([-18.0, -16.0, -15.0, -14.0]) * (-1 if name == "ns-exp-2" else 1)
    expected = grad(losses[name].g_loss)(f.double())
    torch.testing.assert_close(grad(losses[name].g_loss)(f).double(), expected, rtol=1e-5, atol=0)


DISCRIMINATORS = {
    "mm": lambda r, f: -torch.log(torch.sigmoid(r)).mean() - torch.log(1 - torch.sigmoid(f)).mean(),
    "ls": lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
    "hinge": lambda r, f: torch.clamp(1 - r, min=0).mean() + torch.clamp(1 + f, min=0).mean(),
    "wgan": lambda r, f: f.mean() - r.mean(),
    "rpgan": lambda r, f: -torch.log(torch.sigmoid(r - f)).mean(),
}


@pytest.mark.parametrize("name", sorted(DISCRIMINATORS))
def test_discriminator_cost_and_gradient_are_those_of_the_formula(name):
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 50, generator=generator, dtype=torch.float64) * 3
    ours, reference = losses[name].d_loss, DISCRIMINATORS[name]
    torch.testing.assert_close(ours(real, fake), reference(real, fake))
    for argument in (0, 1):
        torch.testing.assert_close(grad(ours, argument)(real, fake), grad(reference, argument)(real, fake))


def test_costs_of_the_logistic_family_share_the_discriminator():
    others = {"ls", "hinge", "wgan", "rpgan", "began"}
    assert {losses[name].d_loss for name in ALL if name not in others} == {L.d_logistic}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [-1e4, 0.0, 1e4, (-1e4, 1e4)])
def test_no_overflow_at_huge_logits(name, dtype, value):
    f = (
        torch.tensor(value, dtype=dtype).expand(4)
        if isinstance(value, float)
        else torch.tensor(value, dtype=dtype)
    )
    cost = losses[name]
    f = f.clone().requires_grad_()
    value, gradient = cost.g_loss(f), None
    (gradient,) = torch.autograd.grad(value, f)
    d = cost.d_loss(f, f.flip(0))
    d_gradient = torch.autograd.grad(d, f)[0]
    for result in (value, gradient, cost.g_weight(f), d, d_gradient):
        assert result.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_leading_dimensions_are_separate_minibatches(name):
    f = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = losses[name].g_loss(f)
    assert together.shape == (2, 3)
    torch.testing.assert_close(together[1, 2], losses[name].g_loss(f[1, 2]))
    g = f.flip(0)[..., : 7 if name == "rpgan" else 4]  # real and fake may differ in number, but not in pairs
    assert losses[name].d_loss(f, g).shape == (2, 3)
    torch.testing.assert_close(losses[name].d_loss(f, g)[1, 2], losses[name].d_loss(f[1, 2], g[1, 2]))
    assert losses[name].g_weight(f).shape == f.shape


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20))
def test_mm_nsat_is_minimax_at_the_size_of_the_non_saturating_gradient(logits):
    f = torch.tensor(logits, dtype=torch.float64)
    mm, nsat = grad(L.g_mm)(f), grad(L.g_mm_nsat)(f)
    cosine = (mm / mm.norm() * nsat / nsat.norm()).sum().item()
    assert cosine == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(nsat.norm() / mm.norm(), L.mm_nsat_factor(f), rtol=1e-9, atol=0)
    # Mean weights, and so the first-order sizes of the two gradients, agree (up to EPS / m, here at most 1e-7).
    torch.testing.assert_close(L.w_mm_nsat(f).mean(), L.w_ns(f).mean(), rtol=2e-7, atol=0)


def generator_gradient(cost, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Gradient of a cost in the parameters of a small generator, flat, and the logits it was taken at."""
    G, D = gk.models.mlp((1, 4, 4), z_dim=3, depth=3, width=8, seed=1)
    G, D = G.double(), D.double()
    z = torch.randn(32, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = scale * D(G(z))
    gradient = torch.autograd.grad(cost(logits), tuple(G.parameters()))
    return torch.cat([g.flatten() for g in gradient]), logits.detach()


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.dot(a / a.norm(), b / b.norm()).item()


@pytest.mark.parametrize("scale", [1.0, 40.0, 200.0])
def test_through_a_network_mm_nsat_is_parallel_to_mm_and_r_times_as_long(scale):
    mm, logits = generator_gradient(L.g_mm, scale)
    nsat, _ = generator_gradient(L.g_mm_nsat, scale)
    ns, _ = generator_gradient(L.g_ns, scale)
    assert cosine(mm, nsat) == pytest.approx(1, abs=1e-6)
    assert (nsat.norm() / mm.norm()).item() == pytest.approx(L.mm_nsat_factor(logits).item(), rel=1e-9)
    if scale == 200:  # logits that spread: NS is another direction, or the test would say nothing
        assert cosine(mm, ns) < 0.99


@pytest.mark.parametrize("scale", [1.0, 40.0, 200.0])
def test_importance_weighted_ns_is_parallel_to_mm(scale):
    """Hu et al. 2017, equation 22: NS samples weighted by s / (1 - s), normalised over the minibatch (appendix D)."""

    def importance_weighted_ns(f: Tensor) -> Tensor:
        ratio = f.detach().exp()  # s / (1 - s)
        return (ratio / ratio.sum() * torch.nn.functional.softplus(-f)).sum()

    mm, _ = generator_gradient(L.g_mm, scale)
    weighted, _ = generator_gradient(importance_weighted_ns, scale)
    assert cosine(mm, weighted) == pytest.approx(1, abs=1e-6)


@given(st.floats(0, 1), st.lists(st.floats(-20, 20), min_size=1, max_size=10))
def test_half_and_half_weighs_every_sample_alike(a, logits):
    f = torch.tensor(logits, dtype=torch.float64)
    torch.testing.assert_close(losses["ns+mm(0.5)"].g_weight(f), torch.full_like(f, 0.5))
    low, high = torch.minimum(L.w_ns(f), L.w_mm(f)), torch.maximum(L.w_ns(f), L.w_mm(f))
    mixed = L.ns_plus(a, losses["mm"]).g_weight(f)
    assert ((low - 1e-12 <= mixed) & (mixed <= high + 1e-12)).all()


def test_no_gradient_flows_through_the_factor():
    f = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert not L.mm_nsat_factor(f).requires_grad


@given(st.floats(1e-30, 1e30), st.integers(1, 10**9))
def test_unit_rescaling_gives_the_stated_norm(norm, n):
    r = unit_rescaling(torch.tensor(norm, dtype=torch.float64), n).item()
    if norm > 1e-10 * n:
        assert r * norm == pytest.approx(n)
    assert r <= (1 + 1e-12) / L.EPS


def test_unit_rescaling_of_a_dead_gradient_is_finite():
    assert unit_rescaling(torch.zeros((), dtype=torch.float64), 10).item() == pytest.approx(1 / L.EPS)


def test_per_replica_scores_each_row_by_its_own_cost():
    names = ["ns", "mm-nsat", "hinge", "ns", "mm-unit"]
    mixed = per_replica(names)
    f = torch.randn(5, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    g = torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for i, name in enumerate(names):
        torch.testing.assert_close(mixed.g_loss(f)[i], losses[name].g_loss(f[i]))
        torch.testing.assert_close(mixed.d_loss(f, g)[i], losses[name].d_loss(f[i], g[i]))
        torch.testing.assert_close(mixed.g_weight(f)[i], losses[name].g_weight(f[i]))
    assert mixed.unit == (False, False, False, False, True)
    assert per_replica(["ns", "ns"]) is losses["ns"]
    with pytest.raises(ValueError, match="5 in all"):
        mixed.g_loss(f[:4])
    with pytest.raises(ValueError, match="costs is empty"):
        per_replica([])


# --- Costs of pairs ---------------------------------------------------------------------------------------------


def play_of(loss, lead: tuple[int, ...] = (), learner: str = "G") -> Play:
    """A play in float64 of a small game on digits; with a lead, of two replicas."""
    make = partial(gk.models.mlp, (1, 8, 8), 3, 3, 8)
    data = gk.data.load("digits", n=50)
    G, D = gk.pair(lambda seed: make(seed=seed), (0, 1)) if lead else make(seed=0)
    run = gk.Trainer(G.double(), D.double(), data, loss=loss, batch_size=6, device="cpu")
    return run.play(getattr(run, learner))


@pytest.mark.parametrize("lead", [(), (2,)])
def test_a_relativistic_cost_compares_pair_by_pair(lead):
    """Huang et al. 2024, equation 2: the mean of f(D(G(z)) - D(x)) with f(t) = -log(1 + e^-t), which D lowers."""
    play = play_of("rpgan", lead, "D")
    t = play.D(play.fake) - play.D(play.real)
    torch.testing.assert_close(play.game.loss.d_cost(play), torch.log(1 + t.exp()).mean(-1))
    play = play_of("rpgan", lead)
    t = play.D(play.fake) - play.D(play.real)
    torch.testing.assert_close(play.game.loss.g_cost(play), torch.log(1 + (-t).exp()).mean(-1))
    assert play.game.loss.g_cost(play).requires_grad


def test_pairs_are_compared_also_beside_other_costs():
    play = play_of(["ns", "rpgan"], (2,))
    fake, real = play.D(play.fake), play.D(play.real)
    expected = torch.stack([L.g_ns(fake[0]), L.g_ns(fake[1] - real[1])])
    torch.testing.assert_close(play.game.loss.g_cost(play), expected)
    assert per_replica(["rpgan", "rpgan"]) is losses["rpgan"]


@given(st.floats(-5, 5), st.lists(st.floats(-20, 20), min_size=2, max_size=8))
def test_a_relativistic_cost_does_not_see_a_shift_of_all_logits(shift, logits):
    """That is why its D needs no bias, and why all that D says lies in differences."""
    f = torch.tensor(logits, dtype=torch.float64)
    torch.testing.assert_close(L.d_relativistic(f + shift, f.flip(0) + shift), L.d_relativistic(f, f.flip(0)))


def test_pairs_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"compared pair by pair .* got \(3,\) and \(2,\)"):
        losses["rpgan"].d_loss(torch.zeros(3), torch.zeros(2))
    game = partial(Game, losses["rpgan"])
    assert game(gk.Leak(0.5, source="async-noise")).leak is not None
    with pytest.raises(ValueError, match="rpgan compares generated samples with independent real ones"):
        game(gk.Leak(0.5))


def test_a_number_in_a_name_makes_the_cost():
    assert losses["ns+mm(0.3)"].name == "ns+mm(0.3)"
    f = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(losses["mm-nsat-add-0.05"].g_loss(f), L.mm_nsat_add(0.05).g_loss(f))


@pytest.mark.parametrize("name", ["mm-nsatt", "NS", "ns+mm(-1)", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(L.UnknownLoss, match="known are") as caught:
        losses[name]
    assert "mm-nsat" in str(caught.value)


def test_a_misspelt_name_gets_its_near_match():
    with pytest.raises(L.UnknownLoss, match="did you mean mm-nsat"):
        losses["mm-nast"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("bad", "error", "sentence"),
    [
        (
            torch.zeros(3, dtype=torch.int64),
            TypeError,
            "floating-point tensor of D's raw outputs, got torch.int64",
        ),
        ([0.0, 1.0], TypeError, "got list"),
        (torch.tensor(0.5), ValueError, r"at least one sample, got \(\)"),
        (torch.zeros(3, 0), ValueError, r"at least one sample, got \(3, 0\)"),
    ],
)
def test_what_is_no_minibatch_of_logits_is_refused(name, bad, error, sentence):
    good = torch.zeros(3)
    with pytest.raises(error, match=f"fake_logits.*{sentence}"):
        losses[name].g_loss(bad)
    with pytest.raises(error, match=f"fake_logits.*{sentence}"):
        losses[name].g_weight(bad)
    with pytest.raises(error, match=f"real_logits.*{sentence}"):
        losses[name].d_loss(bad, good)


def test_real_and_fake_must_have_equally_many_replicas():
    with pytest.raises(ValueError, match=r"agree in all but the last dimension, got \(2, 5\) and \(3, 5\)"):
        L.d_logistic(torch.zeros(2, 5), torch.zeros(3, 5))


def test_half_precision_is_scored_in_float32():
    f = torch.tensor([-30.0, -25.0], dtype=torch.float16)
    assert losses["mm-nsat"].g_loss(f).dtype == torch.float32


@pytest.mark.parametrize("a", [-0.1, float("inf"), float("nan")])
def test_offsets_that_make_weights_negative_are_refused(a):
    with pytest.raises(ValueError, match="at least 0 and finite"):
        L.ns_add(a)
    with pytest.raises(ValueError, match="at least 0 and finite"):
        L.mm_nsat_add(a)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        L.ns_plus(a, losses["mm"])
