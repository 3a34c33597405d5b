"""Learning rates over a run: their values against PyTorch's own schedulers, and what a run makes of them."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gankit as gk
from gankit.training.optimisers import set_rates


@settings(deadline=None)  # the first call imports
@given(end=st.integers(1, 40), last=st.floats(0, 1), step=st.integers(0, 60))
def test_decays_are_those_of_pytorch(end, last, step):
    """LinearLR and CosineAnnealingLR, which stays at its last value by definition only up to its end."""
    for ours, theirs in (
        (gk.LinearDecay(end, last=last), lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, last, end)),
        (
            gk.CosineDecay(end, last=last),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, end, eta_min=0.1 * last),
        ),
    ):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = theirs(optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no optimiser steps here
            for _ in range(min(step, end)):
                scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * ours.factor(step), rel=1e-5, abs=1e-9)


@given(start=st.integers(0, 30), length=st.integers(1, 30), last=st.floats(0, 1))
def test_a_rate_falls_from_start_to_end_and_nowhere_else(start, length, last):
    for kind in (gk.LinearDecay, gk.CosineDecay):
        factors = [kind(start + length, start, last).factor(step) for step in range(start + length + 5)]
        assert factors[: start + 1] == [1] * (start + 1)
        assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors))
        assert factors[start + length :] == pytest.approx([last] * 5, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"end": 0}, "start must be a step of at least 0, and end a later one, got 0 and 0"),
        ({"end": 5, "start": 9}, "got 9 and 5"),
        ({"end": 5, "last": 1.5}, r"last is a share of the learning rate and must lie in \[0, 1\], got 1.5"),
        ({"end": 5, "last": math.nan}, "got nan"),
    ],
)
@pytest.mark.parametrize("kind", [gk.LinearDecay, gk.CosineDecay])
def test_a_schedule_out_of_range_is_refused(kind, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**values)


def run_with(schedule, seeds=(3,), **rates):
    data = gk.data.load("digits")
    make = lambda seed: gk.models.mlp(data.shape, z_dim=4, depth=2, width=8, seed=seed)  # noqa: E731
    G, D = make(seeds[0]) if len(seeds) == 1 else gk.pair(make, seeds)
    adam = gk.Adam(**({"lr": 1e-2} | rates), schedule=schedule)
    return gk.Trainer(
        G, D, data, seed=seeds[0], batch_size=8, g_optimizer=adam, d_optimizer=adam, device="cpu"
    )


def weights(run):
    return torch.cat([p.detach().flatten() for net in (run.G, run.D) for p in net.parameters()])


def test_a_run_is_as_if_its_rate_had_been_set_by_hand_at_each_step():
    schedule = gk.LinearDecay(6, start=2, last=0.5)
    run, by_hand = run_with(schedule), run_with(None)
    for step in range(8):
        run.step()
        for optimizer in (by_hand.g_opt, by_hand.d_opt):
            optimizer.param_groups[0]["lr"] = 1e-2 * schedule.factor(step)
        by_hand.step()
    assert torch.equal(weights(run), weights(by_hand))


def test_a_resumed_run_with_a_schedule_is_bit_identical_and_its_rates_are_logged(tmp_path):
    schedule = gk.CosineDecay(12)
    whole = run_with(schedule).fit(12, log_every=4, progress=False)
    run_with(schedule).fit(5, out=tmp_path, progress=False)
    again = run_with(schedule).load(gk.checkpoints.latest(tmp_path)).fit(7, log_every=4, progress=False)
    assert torch.equal(weights(whole), weights(again))
    steps, rates = whole.curve("g_lr")
    assert rates == pytest.approx([1e-2 * schedule.factor(step - 1) for step in steps])
    assert "g_lr" not in run_with(None).fit(1, progress=False).history[-1], "a constant rate is in the recipe"


def test_replicas_with_rates_of_their_own_fall_together():
    run = run_with(gk.LinearDecay(10), seeds=(1, 2, 3), lr=(1e-2, 2e-2, 2e-2))
    set_rates(run.g_opt, gk.LinearDecay(10), 5)
    set_rates(run.g_opt, gk.LinearDecay(10), 5)  # from the initial rate each time
    assert [group["lr"] for group in run.g_opt.param_groups] == pytest.approx([5e-3, 1e-2])
    run.fit(2, progress=False)
    assert run.history[-1]["g_lr"] == pytest.approx([0.9e-2, 1.8e-2])


def test_lazy_settings_keep_their_schedule():
    assert gk.Adam(1e-3, schedule=gk.LinearDecay(9)).lazy(4).schedule == gk.LinearDecay(9)
