import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gankit as gk
from gankit.training import Diverged as FromTraining
from gankit.training.recording import Diverged, Schedule, stop_if_diverged

BAD = st.sampled_from([math.nan, math.inf, -math.inf])


@pytest.mark.parametrize("name", ["log_every", "callback_every", "save_every", "keep_every"])
def test_a_schedule_counts_from_one(name):
    Schedule(**({"log_every": 1, "callback_every": 1} | {name: 1}))
    with pytest.raises(ValueError, match=f"{name} must be at least 1 step, got 0"):
        Schedule(**({"log_every": 1, "callback_every": 1} | {name: 0}))


@given(data=st.data(), length=st.integers(1, 8), replicas=st.integers(0, 3), later=st.integers(0, 5))
def test_the_first_bad_cost_is_named(data, length, replicas, later):
    lead = (replicas,) if replicas else ()
    costs = [tuple(torch.randn(4, *lead)) for _ in range(length)]
    step = length + later
    stop_if_diverged(costs, step, lead, None)  # finite: nothing happens
    at = data.draw(st.integers(0, length - 1))
    player, replica = data.draw(st.integers(0, 1)), data.draw(st.integers(0, max(0, replicas - 1)))
    costs[at][player].view(-1)[replica] = data.draw(BAD)
    for after in costs[at + 1 :]:  # NaN spreads
        after[0].fill_(math.nan)
    who = ("the discriminator's cost", "the generator's cost")[player]
    where = f" in replica {replica}" if lead else ""
    with pytest.raises(Diverged) as error:
        stop_if_diverged(costs, step, lead, None)
    expected = f"{who} became NaN or infinite at step {later + at + 1}{where}; no checkpoint was written"
    assert str(error.value) == expected


def test_there_is_one_error_under_three_names():
    assert gk.Diverged is Diverged is FromTraining


@pytest.mark.parametrize(
    ("schedule", "rows", "calls", "files"),
    [
        ({"log_every": 3}, [3, 6, 7], [3, 6, 7], [7]),
        ({"log_every": 3, "callback_every": 2}, [2, 3, 4, 6, 7], [2, 4, 6, 7], [7]),
        ({"log_every": 9, "save_every": 5}, [5, 7], [7], [5, 7]),
        ({"log_every": 9, "keep_every": 2}, [2, 4, 6, 7], [7], [2, 4, 6, 7]),
        ({"log_every": 9, "save_every": 1, "keep_every": 3}, [1, 2, 3, 4, 5, 6, 7], [7], [3, 6, 7]),
    ],
)
def test_what_is_due_happens_and_all_of_it_at_the_end(tmp_path: Path, schedule, rows, calls, files):
    ring = gk.data.load("ring", n=100)
    run = gk.Trainer(*gk.models.mlp(ring.shape, z_dim=2, depth=2, width=4), ring, batch_size=4, device="cpu")
    called = []
    run.fit(7, out=tmp_path, callback=lambda run: called.append(run.steps), progress=False, **schedule)
    assert [row["step"] for row in run.history] == rows
    assert called == calls
    assert list(map(gk.checkpoints.step_of, gk.checkpoints.saved(tmp_path))) == files
