"""Penalties against closed forms on discriminators whose slope is known."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit as gk
from gankit.game.penalties import R1, R2, ClipWeights, Dragan, Orthogonal, WganGP, row_products
from gankit.game.play import Verdict

DIGITS = gk.data.load("digits")


def trainer(**settings) -> gk.Trainer:
    G, D = gk.models.mlp(DIGITS.shape, z_dim=4, depth=2, width=8)
    return gk.Trainer(G, D, DIGITS, batch_size=8, device="cpu", **settings)


def play(D, real: Tensor, fake: Tensor, *lead: int) -> SimpleNamespace:
    """What a penalty looks at of a play: the samples, D, and a stream of random numbers."""
    streams = gk.Streams(tuple(range(lead[0])) if lead else (0,), lead, "cpu")
    return SimpleNamespace(
        lead=lead, n=real.shape[len(lead)], real=real, fake=fake, real_labels=None, labels=None, streams=streams,
        judge=lambda x, labels: Verdict(D(x)),
    )  # fmt: skip


def test_penalties_have_their_closed_form_on_a_linear_discriminator():
    """f = <w, x>: the gradient is w everywhere."""
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    w = torch.tensor([3.0, 0.0, 4.0], requires_grad=True)
    r1 = R1(0.5)(play(lambda x: x @ w, x, -x, 2))
    torch.testing.assert_close(r1, torch.full((2,), 0.5 / 2 * 25))
    for penalty in (WganGP(10.0), Dragan(10.0)):
        value = penalty(play(lambda x: x @ w, x, -x, 2))
        torch.testing.assert_close(value, torch.full((2,), 10 * (5.0 - 1) ** 2))
    torch.testing.assert_close(torch.autograd.grad(r1[0], w)[0], 0.5 * w.detach())


def test_r2_is_r1_on_generated_samples():
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    looks = play(lambda x: x.square().sum(-1) / 2, x, 2 * x)
    torch.testing.assert_close(R2(1.0)(looks), 4 * R1(1.0)(looks))
    torch.testing.assert_close(R1(1.0)(looks), x.square().sum(-1).mean() / 2)


def test_r1_takes_a_strength_for_each_replica():
    x = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))
    value = R1((0.0, 1.0, 4.0))(play(lambda x: x @ torch.tensor([3.0, 4.0]), x, x, 3))
    torch.testing.assert_close(value, torch.tensor([0.0, 12.5, 50.0]))


def test_wgan_gp_interpolates_between_real_and_fake():
    """f = |x|^2 / 2 has gradient x, so the penalty is that of the interpolated points."""
    real, fake = torch.full((4000, 1), 1.0), torch.full((4000, 1), 3.0)
    gp = WganGP(1.0)(play(lambda x: x.square().sum(-1) / 2, real, fake))
    # u uniform: x uniform in [1, 3], mean of (x - 1)^2 = 4/3
    assert gp.item() == pytest.approx(4 / 3, rel=0.05)


def test_dragan_looks_near_the_real_samples_only():
    """With f = x^2 / 2 the slope is the point itself: real points +-2 (deviation 2), alpha and u uniform in [0, 1)."""
    real = torch.tensor([2.0, -2.0]).repeat(4000)[:, None]
    value = Dragan(1.0, spread=0.5)(play(lambda x: x.square().sum(-1) / 2, real, real + 1e6))
    # |x| - 1 is 1 + alpha u on one side and 1 - alpha u on the other: mean square 1 + mean of alpha^2 mean of u^2
    assert value.item() == pytest.approx(1 + 1 / 9, rel=0.03)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_dragan_draws_noise_for_each_value_and_alpha_for_each_sample(lead):
    """Values of a sample are correlated by the alpha that they share: E[alpha^2] E[u]^2 = 1/12, and not 1/16."""
    real, looked = torch.randn(*lead, 20_000, 3, generator=torch.Generator().manual_seed(0)), []
    scale = 3.0 ** torch.arange(len(lead) and lead[0]) if lead else torch.tensor(1.0)
    real = real * scale.reshape(*lead, 1, 1)
    Dragan(1.0, spread=0.5)(play(lambda x: looked.append(x.detach()) or x.sum(-1), real, real, *lead))
    noise = (looked[0] - real) / (0.5 * scale.reshape(*lead, 1, 1))
    assert noise.min() >= -1e-5
    assert noise.max() < 1.1
    first, second, _ = noise.unbind(-1)
    for found, expected in ((first, 1 / 4), (first.square(), 1 / 9), (first * second, 1 / 12)):
        torch.testing.assert_close(found.mean(-1), torch.full(lead, expected), rtol=0.04, atol=0)


@pytest.mark.parametrize("penalty", [R1(1.0), R2(1.0), WganGP(1.0), Dragan(1.0)])
def test_a_flat_discriminator_gives_a_finite_step(penalty):
    run = trainer(d_terms=[penalty])
    with torch.no_grad():
        for p in run.D.parameters():
            p.zero_()
    run.fit(2, progress=False)
    assert all(p.isfinite().all() for p in run.D.parameters())


@pytest.mark.parametrize("penalty", [R1(1.0), R2(1.0), WganGP(1.0), Dragan(1.0)])
def test_slopes_are_exact_inside_autocast(penalty):
    G, D = gk.models.mlp(DIGITS.shape, z_dim=4, depth=2, width=8)
    real, _ = DIGITS.batch(torch.arange(16))
    fake = G(torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).detach()
    exact = penalty(play(D, real, fake))
    with torch.autocast("cpu", torch.bfloat16):
        assert D(real).dtype == torch.bfloat16  # or the comparison would say nothing
        inside = penalty(play(D, real, fake))
    assert torch.equal(inside, exact)


@given(st.integers(1, 5), st.integers(1, 7), st.floats(0.1, 3))
def test_orthogonal_is_zero_on_orthogonal_rows_of_any_length(n_out, extra, size):
    layer = nn.Linear(n_out + extra, n_out)
    nn.init.orthogonal_(layer.weight, gain=size)
    assert row_products(layer).item() == pytest.approx(0, abs=1e-8)


def test_orthogonal_is_the_printed_formula():
    """Equation 3: beta |W^T W * (1 - I)|_F^2, here with filters as rows."""

    def printed(w: Tensor) -> Tensor:
        rows = w.flatten(1)
        return ((rows @ rows.T) * (1 - torch.eye(len(rows)))).norm() ** 2

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4), nn.Embedding(5, 6))
    expected = 0.01 * (printed(net[0].weight) + printed(net[2].weight))
    torch.testing.assert_close(0.01 * row_products(net), expected)


def test_orthogonal_gives_each_replica_its_own():
    def linear(seed: int) -> nn.Module:
        return gk.models.mlp(DIGITS.shape, z_dim=4, depth=2, width=8, seed=seed)[0]

    def with_embedding(seed: int) -> nn.Module:  # stacked by torch.func, where an ensemble has no layers
        return gk.models.biggan(DIGITS.shape, 10, z_dim=4, width=2, y_dim=4, seed=seed)[0]

    for factory in (linear, with_embedding):
        together = row_products(gk.Ensemble(factory, (3, 4)))
        torch.testing.assert_close(together, torch.stack([row_products(factory(seed)) for seed in (3, 4)]))


def test_a_generator_under_orthogonal_regularisation_becomes_orthogonal():
    def crosstalk(strength: float) -> float:
        run = trainer(g_terms=[Orthogonal(strength)], g_optimizer=gk.SGD(0.05))
        run.fit(60, progress=False)
        return row_products(run.G).item()

    assert crosstalk(0.5) < 0.1 * crosstalk(0.0)


def test_clipped_weights_stay_within_the_limit_and_keep_what_was_inside():
    run = trainer(loss="wgan", projections=[ClipWeights(0.01)], d_optimizer=gk.RMSProp())
    run.fit(3, progress=False)
    weights = torch.cat([p.detach().flatten() for p in run.D.parameters()])
    assert weights.abs().max() <= 0.01
    assert (weights.abs() < 0.01).any()
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[-3.0, 0.005]])
    ClipWeights(0.01)(layer)
    assert torch.equal(layer.weight.data, torch.tensor([[-0.01, 0.005]]))


@pytest.mark.parametrize(
    ("penalty", "name"),
    [(R1, "gamma"), (WganGP, "weight"), (Dragan, "weight"), (Orthogonal, "weight")],
)
def test_strengths_out_of_range_are_refused(penalty, name):
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name} is the penalty's strength"):
            penalty(value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_sizes_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="limit must be above 0"):
        ClipWeights(value)
    with pytest.raises(ValueError, match="spread must be above 0"):
        Dragan(spread=value)
