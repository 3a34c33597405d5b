"""BEGAN against its equations: an autoencoder for D, a cost that a state weighs, the rule that keeps the balance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor, nn

import gankit as gk
from gankit.game.balance import BeganBalance
from gankit.game.losses import losses, per_replica
from gankit.models.began import Autoencoder, Uniform, began, began_mlp

DIGITS = gk.data.load("digits", n=100)


def run_of(**settings) -> gk.Trainer:
    G, D = began_mlp(DIGITS.shape, z_dim=4, depth=2, width=8)
    given = {"loss": "began", "rules": [BeganBalance()], "batch_size": 8, "device": "cpu"}
    return gk.Trainer(G, D, DIGITS, **given | settings)


def error(D: Autoencoder, x: Tensor) -> Tensor:
    """L(v) = |v - D(v)|, per pixel (section 3.1)."""
    return (x - D.decoder(D.encoder(x))).abs().mean((-3, -2, -1))


def test_the_costs_are_those_of_the_paper():
    run = run_of()
    run.states["began_k"].fill_(0.3)
    play = run.play(run.D)
    expected = error(run.D, play.real).mean() - 0.3 * error(run.D, play.fake).mean()
    torch.testing.assert_close(run.game.loss.d_cost(play), expected)
    play = run.play(run.G)
    cost = run.game.loss.g_cost(play)
    torch.testing.assert_close(cost, error(run.D, play.fake).mean())
    # G's gradient goes through the autoencoder's output as well as through the sample itself.
    own, whole = (torch.autograd.grad(c, run.g_params, retain_graph=True) for c in (cost, cost))
    detached = (play.fake - run.D.reconstruct(play.fake).detach()).abs().mean()
    without = torch.autograd.grad(detached, run.g_params)
    assert all(torch.equal(a, b) for a, b in zip(own, whole, strict=True))
    assert any(not torch.allclose(a, b) for a, b in zip(own, without, strict=True))


@given(st.floats(0, 1), st.floats(0, 2), st.floats(0, 2), st.floats(0.05, 1), st.floats(1e-4, 1))
def test_the_balance_is_proportional_control(k, real, fake, gamma, rate):
    """k <- k + lambda (gamma L(x) - L(G)), kept in [0, 1]; M = L(x) + |gamma L(x) - L(G)| (sections 3.3 and 3.4)."""
    rule = BeganBalance(gamma, rate)
    seen = {"real_logit": torch.tensor(-real).double(), "g_loss": torch.tensor(fake).double()}
    new = rule.update({"began_k": torch.tensor(k).double(), "began_m": torch.tensor(0.0).double()}, seen)
    assert float(new["began_k"]) == pytest.approx(min(1, max(0, k + rate * (gamma * real - fake))), abs=1e-6)
    assert float(new["began_m"]) == pytest.approx(real + abs(gamma * real - fake), rel=1e-6, abs=1e-6)


def test_the_rule_at_two_points():
    state = {"began_k": torch.tensor(0.5).double(), "began_m": torch.tensor(0.0).double()}
    for fake, moved in ((0.1, 0.0), (0.05, 5e-5)):
        seen = {"real_logit": torch.tensor(-0.2).double(), "g_loss": torch.tensor(fake).double()}
        new = BeganBalance(0.5, 1e-3).update(state, seen)
        assert float(new["began_k"]) == pytest.approx(0.5 + moved, abs=1e-12)


def test_the_errors_come_to_the_wanted_ratio():
    """On a Gaussian in the plane, whose generated error settles at gamma times the real one."""
    data = gk.data.load("gaussian")
    G, D = gk.pair(lambda seed: began_mlp(data.shape, 1, 3, 32, seed=seed), (0, 1))
    adam, gamma = gk.Adam(1e-3), 0.5
    run = gk.Trainer(
        G, D, data, loss="began", rules=[BeganBalance(gamma, 0.05)], g_optimizer=adam, d_optimizer=adam, device="cpu"
    )  # fmt: skip
    run.fit(1_500, log_every=3, progress=False)
    real, fake = (run.curve(name)[1][-250:].mean(0) for name in ("real_logit", "g_loss"))
    assert fake / -real == pytest.approx([gamma, gamma], rel=0.05)
    _, k = run.curve("began_k")
    assert ((k[-250:] > 0) & (k[-250:] < 1)).all(), "it is k that balances them, inside its bounds"


def test_the_rule_is_logged_and_stays_in_its_bounds():
    run = run_of(rules=[BeganBalance(1.0, 100.0)]).fit(5, log_every=1, progress=False)
    assert {"began_k", "began_m"} <= run.history[-1].keys()
    assert all(0 <= row["began_k"] <= 1 for row in run.history)


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(ValueError, match=r"began weighs generated samples by a state: add rules="):
        run_of(rules=[])
    with pytest.raises(ValueError, match="began needs a D that rebuilds samples"):
        per_replica(["began", "ns"])
    assert per_replica(["began", "began"]) is losses["began"]
    for gamma, rate in ((0, 1e-3), (1.5, 1e-3), (0.5, 0.0), (0.5, math.inf)):
        with pytest.raises(ValueError, match=r"gamma is a ratio|rate must be above 0"):
            BeganBalance(gamma, rate)


# --- Networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "sides"), [((1, 8, 8), 1), ((1, 28, 28), 3), ((3, 32, 32), 3)])
def test_the_paper_s_networks(shape, sides):
    """n filters in the decoder, n more at each smaller scale of the encoder; G is built like the decoder."""
    G, D = began(shape, z_dim=5, width=4)
    x = G(torch.randn(3, 5))
    logits = D(x)
    assert (x.shape, logits.shape, D.reconstruct(x).shape) == ((3, *shape), (3,), (3, *shape))
    assert (logits <= 0).all()
    convs = [m for m in D.encoder if isinstance(m, nn.Conv2d)]
    assert convs[-1].out_channels == 4 * (1 if sides == 1 else {28: 3, 32: 3}[shape[1]])
    outline = [tuple(p.shape) for p in D.decoder.parameters()]
    assert [tuple(p.shape) for p in G.parameters()] == outline
    assert not any(isinstance(m, nn.Tanh) for m in [*G.modules(), *D.modules()]), "the output is linear"


def test_paper_s_filters_grow_linearly():
    _, D = began((3, 64, 64), z_dim=5, width=4)
    assert [m.out_channels for m in D.encoder if isinstance(m, nn.Conv2d) and m.stride == (2, 2)] == [
        8,
        12,
        16,
    ]


def test_latents_are_uniform():
    z = Uniform()(torch.randn(20_000, generator=torch.Generator().manual_seed(0)))
    assert kstest(z.numpy(), "uniform", args=(-1, 2)).pvalue > 0.01


def test_fully_connected_ones_share_the_generator_of_mlp():
    for shape in ((1, 8, 8), (2,)):
        G, D = began_mlp(shape, z_dim=3, depth=3, width=6, seed=4)
        theirs, _ = gk.models.mlp(shape, z_dim=3, depth=3, width=6, seed=4)
        assert all(torch.equal(a, b) for a, b in zip(G.parameters(), theirs.parameters(), strict=True))
        x = torch.randn(2, 7, *shape)
        assert D(x).shape == (2, 7)
        torch.testing.assert_close(D(x)[1], D(x[1]))


def test_the_error_is_taken_in_float32():
    _, D = began_mlp((1, 8, 8), width=8, depth=2)
    x = torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert D(x).dtype == torch.float32
    assert D.double()(x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"shape must be \(C, S, S\), got \(2,\)"):
        began((2,))
