"""Two processes against one: the collectives, the joint factor of MM-nsat, and a whole evaluation.

`torchrun` starts this file itself, twice; each process writes what it got, and the tests compare.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import gankit as gk
from gankit import processes
from gankit.metrics import features
from gankit.models.blocks import seeded
from gankit.models.sampling import Sampler

ROWS = (3, 1)
"""How many rows each process gives to `gather`."""


def rows_of(rank: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows that tell where they come from: `[ROWS[rank], 2]`."""
    return (10 * rank + torch.arange(2 * ROWS[rank]).reshape(-1, 2)).to(dtype)


def evaluations() -> dict[str, gk.metrics.Scores]:
    """One network or three, batch by batch, all at once, or samples in hand; more processes than batches too."""
    torch.set_num_threads(1)
    data = gk.data.load("digits", n=300)
    with seeded(0):
        net = gk.classifier.Classifier(
            (1, 8, 8), 10
        )  # not trained: its features are as good as others for this
    space = features.of_classifier(net, "untrained")
    G = gk.pair(lambda seed: gk.models.mlp(data.shape, z_dim=4, width=16, seed=seed), range(3))[0]
    one = gk.models.mlp(data.shape, z_dim=4, width=16)[0]
    names = ["classes_covered", "class_divergence", "fd", "is", "kd", "precision", "coverage"]
    settings = {"features": space, "n": 110, "batch_size": 20, "splits": 5, "progress": False}
    samples = gk.sampling.sample(G, 110, seed=5)
    ring = gk.data.load("ring", n=500)
    return {
        "generators": gk.metrics.evaluate(Sampler(G, seed=5, truncation=1.5), data, names, **settings),
        "function": gk.metrics.evaluate(lambda n: gk.sampling.sample(one, n), data, names, n_real=200, **settings),
        "tensor": gk.metrics.evaluate(samples, data, names, **settings),
        "one batch": gk.metrics.evaluate(one, data, names, **settings | {"batch_size": 1000}),
        "reference": gk.metrics.evaluate(
            one, gk.metrics.reference(data, space, batch_size=7, progress=False), names, n=110, progress=False
        ),
        "classes": gk.metrics.evaluate(
            Sampler(Levels()), data, ["intra_fd", "fd"], space, n=200, batch_size=30, progress=False
        ),
        "points": gk.metrics.evaluate(gk.models.mlp((2,))[0], ring, n=150, batch_size=10, progress=False),
    }  # fmt: skip


class Levels(nn.Module):
    """A conditional generator: each class is a grey level, and z changes it a little."""

    z_dim, n_classes = 64, 10

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, z, labels):
        return (self.scale * z + labels[..., None] / 5 - 0.9).unflatten(-1, (1, 8, 8))


def joint_batch() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """G, D and z in float64; D scores the second half of z far above the first."""
    G, D = gk.models.mlp((2,), z_dim=3, depth=3, width=8, seed=1)
    G, D = G.double(), D.double()
    z = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        D[-2].weight *= 5
        z = z[D(G(z)).argsort()]
    return G, D, z


def generator_gradient(z: torch.Tensor, G: nn.Module, D: nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(gk.losses["mm-nsat"].g_loss(D(G(z))), list(G.parameters())))


def work(out: Path) -> None:
    """What one of several processes does."""
    got: dict[str, object] = {"before": (processes.rank(), processes.world_size())}
    with processes.joined():
        try:
            with processes.joined():
                pass
        except ValueError as error:
            got["twice"] = str(error)
        rank = processes.rank()
        got["rank"], got["world_size"] = rank, processes.world_size()
        got["share"] = [list(range(n))[processes.share(n)] for n in range(8)]
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        mean = processes.mean(x * (rank + 1))
        got["mean"], got["mean_has_gradient"] = mean, mean.requires_grad
        got["rows"] = {str(t): processes.gather(rows_of(rank, t)) for t in (torch.float64, torch.int64)}
        got["column"] = processes.gather(rows_of(rank, torch.float32)[:, 1])
        got["empty"] = processes.gather(torch.ones(2 * rank, 3))
        got["nothing"] = processes.gather(torch.ones(0, 3))

        G, D, z = joint_batch()
        half = z[processes.share(len(z))]
        got["joint"] = [processes.mean(g) for g in generator_gradient(half, G, D)]
        mean_of_all = processes.mean
        processes.mean = lambda x: x.detach()  # each process with the factor of its own half
        apart = generator_gradient(half, G, D)
        processes.mean = mean_of_all
        got["apart"] = [processes.mean(g) for g in apart]

        scores = evaluations()
        got["scores"] = {k: {n: (s.value, s.error) for n, s in v.items()} for k, v in scores.items()}
        got["tables"] = {k: str(v) for k, v in scores.items()}
    got["after"] = (processes.rank(), processes.world_size(), dist.is_initialized())
    torch.save(got, out / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    """What each of two processes got."""
    out = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [*command, __file__, str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


# --- The collectives --------------------------------------------------------------------------------------------


def test_processes_join_and_leave(two):
    assert [got["rank"] for got in two] == [0, 1]
    for got in two:
        assert got["before"] == (0, 1)
        assert got["world_size"] == 2
        assert "twice" in got["twice"]
        assert got["after"] == (0, 1, False)


def test_shares_are_neighbours_in_the_order_of_ranks_and_equally_many(two):
    for n in range(8):
        first, second = (got["share"][n] for got in two)
        assert first + second == list(range(n))
        assert abs(len(first) - len(second)) <= 1


def test_mean_is_over_the_processes_and_without_gradient(two):
    for got in two:
        assert torch.equal(got["mean"], torch.tensor([1.5, 3.0]))
        assert not got["mean_has_gradient"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_gather_joins_unequal_rows_in_the_order_of_ranks(two, dtype):
    expected = torch.cat([rows_of(rank, dtype) for rank in range(2)])
    for got in two:
        assert got["rows"][str(dtype)].dtype == dtype
        assert torch.equal(got["rows"][str(dtype)], expected)
        assert torch.equal(got["column"], expected[:, 1].float())
        assert torch.equal(got["empty"], torch.ones(2, 3)), "a process may have no rows"
        assert got["nothing"].shape == (0, 3)


def test_alone_everything_is_returned_as_it_came():
    assert (processes.rank(), processes.world_size()) == (0, 1)
    x = torch.arange(6.0, requires_grad=True).reshape(3, 2)
    with processes.joined():
        assert not dist.is_initialized()
        for function in (processes.mean, processes.gather):
            assert torch.equal(function(x), x)
            assert not function(x).requires_grad
    assert list(range(5))[processes.share(5)] == list(range(5))


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        processes.share(-1)
    with pytest.raises(ValueError, match="got a scalar"):
        processes.gather(torch.tensor(1.0))


# --- What uses them ---------------------------------------------------------------------------------------------


def relative(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    a, b = (torch.cat([g.flatten() for g in gradient]) for gradient in (ours, theirs))
    return ((a - b).norm() / b.norm()).item()


def test_the_rescaling_factor_is_that_of_the_joint_batch(two):
    """Averaged over halves of a batch, the gradient of MM-nsat is that of the whole, and not with a factor per half."""
    G, D, z = joint_batch()
    whole = generator_gradient(z, G, D)
    for got in two:
        assert relative(got["joint"], whole) < 1e-6
        assert relative(got["apart"], whole) > 0.01


@pytest.mark.parametrize(
    "name", ["generators", "function", "tensor", "one batch", "reference", "classes", "points"]
)
def test_two_processes_give_the_scores_of_one(two, alone, name):
    for got in two:
        assert list(got["scores"][name]) == list(alone[name])
        for metric, score in alone[name].items():
            value, error = got["scores"][name][metric]
            torch.testing.assert_close(value, score.value, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(error, score.error, rtol=1e-6, atol=1e-6)
        assert got["tables"][name] == str(alone[name])


@pytest.fixture(scope="module")
def alone() -> dict[str, gk.metrics.Scores]:
    scores = evaluations()
    # Scores that differ from generator to generator, so that a mix-up of samples would show.
    assert len({round(x.item(), 6) for x in scores["generators"]["FD[untrained]"].value}) == 3
    assert scores["generators"]["FD[untrained]"].value[0] != scores["tensor"]["FD[untrained]"].value[0]
    return scores


WORKER = """
import time
from gankit import processes
processes.end_with_parent(every=0.02)
print(__import__("os").getpid(), flush=True)
time.sleep(600)
"""


def test_a_worker_whose_agent_is_killed_stops() -> None:
    agent_code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}])"
    paths = os.pathsep.join(path for path in sys.path if path)
    agent = subprocess.Popen(
        [sys.executable, "-c", agent_code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths}
    )
    worker = int(agent.stdout.readline())
    os.kill(worker, 0)  # it lives
    agent.kill()
    agent.wait()
    assert agent.stdout.read() == b""  # returns when the worker, which holds the pipe as well, is gone
    agent.stdout.close()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
