"""One contract for all terms, augmentations and rules, and made-up ones: only the new objects are written here.

Whatever is added to a game works with a leading S, with accumulated minibatches, in two processes as in one, after a
resume bit for bit, in bfloat16, and with the gradient that finite differences give in float64.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gankit as gk
from gankit import processes
from gankit.game.augment import ADA, AdaptP, AdaptPHeldOut, DiffAugment, Flips
from gankit.game.balance import BeganBalance
from gankit.game.consistency import BCR, CR, ZCR, Diversity
from gankit.game.path_length import MeanPathLength, PathLength
from gankit.game.penalties import L2, R1, R2, Dragan, Drift, Orthogonal, WganGP
from gankit.game.play import Every, Play, Term, d_gradient, g_gradient
from gankit.streams import Streams
from gankit.training.trainer import fill_buffers

DIGITS = gk.data.load("digits", n=200)


# --- Made-up objects: no file of gankit knows of them -------------------------------------------------------------


@dataclass(frozen=True)
class SquaredLogits:
    """A term that both players can have; it leaves what it saw for the rule."""

    weight: float = 0.1

    def __call__(self, play: Play) -> Tensor:
        size = play.fake_verdict.logits.square().mean(-1)
        play.notes["squared_logits"] = size
        return self.weight * size


@dataclass(frozen=True)
class Weighted:
    """A term whose weight is a rule's state."""

    def __call__(self, play: Play) -> Tensor:
        return play.states["balance"] * play.real_verdict.logits.square().mean(-1)


@dataclass(frozen=True)
class Balance:
    """A rule: the running mean of D's mean logit on real samples, between 0 and 1."""

    def init(self, lead: tuple[int, ...]) -> dict[str, Tensor]:
        return {"balance": torch.full(lead, 0.5)}

    def observe(self, play: Play) -> dict[str, Tensor]:
        return {"sure": play.real_verdict.logits.sign().mean(-1)} if play.learner is play.D else {}

    def update(self, states: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"balance": (states["balance"] + 0.1 * (seen["sure"] - 0.2)).clamp(0, 1)}


def shimmer(x: Tensor, streams: Streams, states: Mapping[str, Tensor]) -> Tensor:
    """An augmentation whose strength is the rule's state: random brightness, one number for each sample."""
    lead = len(streams.lead)
    shift = streams.normal(x.shape[lead]).to(x) * states["balance"].reshape(*streams.lead, 1).to(x)
    return x + 0.1 * shift.reshape(*shift.shape, *[1] * (x.ndim - shift.ndim))


def d_cubic(real: Tensor, fake: Tensor) -> Tensor:
    return (1 - real).abs().pow(3).mean(-1) + fake.abs().pow(3).mean(-1)


CUBIC = gk.Loss(
    "cubic", d_cubic, lambda f: (1 - f).abs().pow(3).mean(-1), lambda f: 3 * (1 - f).abs().square()
)

GAMES: dict[str, dict[str, Any]] = {
    "R1": {"d_terms": [R1(1.0)]},
    "R2": {"d_terms": [R2(1.0)]},
    "WGAN-GP": {"d_terms": [WganGP(1.0)], "loss": "wgan"},
    "DRAGAN": {"d_terms": [Dragan(1.0)]},
    "orthogonal": {"g_terms": [Orthogonal(0.01)]},
    "L2": {"d_terms": [L2(0.5)]},
    "spectral": {"d_terms": [R1(1.0)]},
    "layer": {"d_terms": [WganGP(1.0)]},
    # A bias before batch norm is subtracted again: its gradient, too, is rounding.
    "batch": {"d_terms": [L2(0.5)], "d_optimizer": gk.SGD(1e-2)},
    "shared fakes": {"share_fakes": True, "leak": gk.Leak(0.25), "d_terms": [WganGP(1.0)]},
    "lazy": {"d_terms": [Every(R1(1.0), 3)], "g_terms": [Every(Orthogonal(0.01), 2)]},
    # All that moves D's last bias is rounding, which Adam would enlarge to steps of full length.
    "RpGAN": {"loss": "rpgan", "d_terms": [R1(1.0), R2(1.0)], "d_optimizer": gk.SGD(1e-2)},
    "flips": {"data_augment": Flips(), "d_terms": [R1(1.0)]},
    "DiffAugment": {"augment": DiffAugment(), "d_terms": [R1(1.0)]},
    "ADA": {"augment": ADA(), "rules": [AdaptP(images=64, interval=2, start=0.5)], "d_terms": [R1(1.0)]},
    "ADA, held out": {
        "augment": ADA("blit,geometric,colour,noise,cutout"),
        "rules": [
            AdaptPHeldOut(DIGITS.split(100, validation=50).validation, images=64, interval=2, start=0.5)
        ],
    },
    "CR": {"d_terms": [CR(1.0)]},
    "ICR": {"d_terms": [BCR(1.0, 1.0), ZCR()], "g_terms": [Diversity()]},
    "BEGAN": {"loss": "began", "rules": [BeganBalance(0.5, 0.2)]},
    "made up": {
        "loss": CUBIC,
        "d_terms": [SquaredLogits(), Weighted()],
        "g_terms": [SquaredLogits()],
        "augment": shimmer,
        "rules": [Balance()],
        "leak": gk.Leak(0.25, source="most-realistic"),
    },
    # Step 4 begins in the middle of a fade: after 64 images, with a phase of 40.
    "ProGAN": {"d_terms": [WganGP(1.0), Drift(0.1)], "loss": "wgan"},
    # The first layer's maps are constant at the start, and instance norm enlarges their rounding errors a
    # thousandfold: Adam would make full steps of those.
    "StyleGAN": {"d_terms": [R1(1.0)], "g_optimizer": gk.SGD(1e-3)},
    "StyleGAN2": {
        "d_terms": [Every(R1(1.0), 3)],
        "g_terms": [Every(PathLength(2.0), 2)],
        "rules": [MeanPathLength()],
    },
    "StyleGAN2 orig and skip": {"g_terms": [PathLength(1.0, part=1.0)], "rules": [MeanPathLength()]},
}


def networks(seed: int) -> tuple[nn.Module, nn.Module]:
    return gk.models.mlp(DIGITS.shape, z_dim=4, depth=3, width=8, seed=seed)


def class_networks(seed: int) -> tuple[nn.Module, nn.Module]:
    condition = gk.models.Condition(10, "skip-z", "class-head", y_dim=4)
    return gk.models.mlp(DIGITS.shape, z_dim=6, depth=3, width=8, condition=condition, seed=seed)


def normalised(name: str, seed: int) -> tuple[nn.Module, nn.Module]:
    return gk.models.mlp(DIGITS.shape, z_dim=4, depth=3, width=8, normalisation=name, seed=seed)


STYLE = {"mapping": 2, "group": 2}
NETWORKS: dict[str, Callable[[int], tuple[nn.Module, nn.Module]]] = {
    "AC-GAN": class_networks,
    "BEGAN": lambda seed: gk.models.began_mlp(DIGITS.shape, z_dim=4, depth=2, width=8, seed=seed),
    **{name: partial(normalised, name) for name in ("spectral", "layer", "batch")},
    "ProGAN": lambda seed: gk.models.progan(DIGITS.shape, 4, 4, phase=40, group=4, seed=seed),
    "StyleGAN": lambda seed: gk.models.stylegan(DIGITS.shape, 4, 4, **STYLE, seed=seed),
    "StyleGAN2": lambda seed: gk.models.stylegan2(DIGITS.shape, 4, 4, **STYLE, seed=seed),
    "StyleGAN2 orig and skip": lambda seed: gk.models.stylegan2(
        DIGITS.shape, 4, 4, **STYLE, g_architecture="residual", d_architecture="skip", seed=seed
    ),
}
"""Of the games that are not played by `networks`."""


def run_of(name: str, nets: Any = None, **settings: Any) -> gk.Trainer:
    G, D = nets or NETWORKS.get(name, networks)(0)
    adam = gk.Adam(1e-3)
    numbers = {"batch_size": 8, "n_dis": 2, "device": "cpu", "g_optimizer": adam, "d_optimizer": adam}
    return gk.Trainer(G, D, DIGITS, **numbers | GAMES[name] | settings)


def weights(run: gk.Trainer) -> Tensor:
    nets = (run.G, run.D, run.teacher.net)
    return torch.cat([p.detach().flatten() for net in nets for p in net.parameters()])


@pytest.mark.parametrize("name", GAMES)
def test_a_replica_trains_alike_alone_and_beside_another(name: str) -> None:
    together = run_of(name, gk.pair(NETWORKS.get(name, networks), (3, 0))).fit(4, progress=False)
    alone = run_of(name).fit(4, progress=False)
    for pair, net in ((together.G, alone.G), (together.D, alone.D)):
        for ours, other in zip(pair.replica(1).parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-5)
    for state in alone.states:
        torch.testing.assert_close(together.states[state][1], alone.states[state])


@pytest.mark.parametrize("name", GAMES)
def test_a_resumed_run_is_bit_identical(name: str, tmp_path: Path) -> None:
    whole = run_of(name).fit(7, progress=False)
    run_of(name).fit(4, out=tmp_path, progress=False)
    resumed = run_of(name).load(tmp_path / "checkpoint-00000004.pt").fit(3, progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert all(torch.equal(resumed.states[key], whole.states[key]) for key in whole.states)


@pytest.mark.parametrize("name", GAMES)
def test_accumulated_minibatches_are_averaged(name: str) -> None:
    run, twin = run_of(name, accumulate=2), run_of(name)
    parts = [d_gradient(twin.play(twin.D), twin.d_params) for _ in range(2)]
    seen = run.d_step()
    assert seen.keys() == parts[0].keys()
    for ours, a, b in zip(seen["d_grad"], parts[0]["d_grad"], parts[1]["d_grad"], strict=True):
        torch.testing.assert_close(ours, (a + b) / 2)


@pytest.mark.parametrize("name", GAMES)
def test_bfloat16_trains_near_float32(name: str) -> None:
    exact, rough = run_of(name), run_of(name, precision="bfloat16")
    a, b = exact.step(), rough.step()
    torch.testing.assert_close(b["d_loss"].float(), a["d_loss"].float(), rtol=0.1, atol=0.05)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in rough.D.parameters())


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("player", ["D", "G"])
def test_gradients_are_those_of_finite_differences(name: str, player: str) -> None:
    G, D = NETWORKS.get(name, networks)(0)
    run = run_of(name, (G.double(), D.double()))
    if name == "spectral":
        D.eval()  # in training the singular value is one power iteration per pass behind the weights
    net = getattr(run, player)
    params, cost_of = list(net.parameters()), {"D": d_gradient, "G": g_gradient}[player]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # away from where networks begin: biases of 0 put grey pixels on a ReLU's corner
        for p in params:
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    start = run.streams.state_dict()

    def total() -> tuple[float, list[Tensor]]:
        run.streams.load_state_dict(start)
        play = run.play(net)
        loss, terms = run.game.loss, run.game.d_terms if player == "D" else run.game.g_terms
        found = cost_of(play, params)[f"{player.lower()}_grad"]
        run.streams.load_state_dict(start)
        play = run.play(net)
        if player == "D":
            play.judge_together()
        cost = (loss.d_cost if player == "D" else loss.g_cost)(play) + sum(term(play) for term in terms)
        return float(cost), found

    _, gradient = total()
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
    slope = float(sum((g * v).sum() for g, v in zip(gradient, direction, strict=True)))
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, v in zip(params, direction, strict=True):
                p += sign * 1e-6 * v
        sides.append(total()[0])
        with torch.no_grad():
            for p, v in zip(params, direction, strict=True):
                p -= sign * 1e-6 * v
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(slope, rel=2e-3, abs=1e-6)


def test_a_rule_is_logged_and_reaches_its_bounds() -> None:
    run = run_of("made up").fit(3, log_every=1, progress=False)
    assert {"balance", "sure", "squared_logits"} <= run.history[-1].keys()
    with pytest.raises(ValueError, match="two rules keep a state 'balance'"):
        run_of("made up", rules=[Balance(), Balance()])


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_a_lazy_term_counts_as_much_in_the_long_run(interval: int) -> None:
    constant: Term = lambda play: torch.ones(play.lead)  # noqa: E731
    run = run_of("R1", d_terms=[Every(constant, interval)])
    values = []
    for run.steps in range(10):
        values.append(float(run.game.d_terms[0](run.play(run.D))))
    assert sum(values) == 10
    with pytest.raises(ValueError, match="interval must be at least 1"):
        Every(constant, 0)


def test_adam_is_corrected_as_the_authors_do() -> None:
    adam = gk.Adam(2e-3, 0.0, 0.99).lazy(16)
    assert (adam.lr, adam.beta1, adam.beta2) == pytest.approx((2e-3 * 16 / 17, 0.0, 0.99 ** (16 / 17)))
    assert gk.Adam((1.0, 2.0)).lazy(1).lr == (0.5, 1.0)


def test_a_whole_number_is_a_beta() -> None:
    assert gk.Adam(1e-3, 0, 0.99).build([nn.Parameter(torch.zeros(2))]).param_groups[0]["betas"] == (
        0.0,
        0.99,
    )


# --- What D and G may be ---------------------------------------------------------------------------------------------


class Shaped(nn.Module):
    """A discriminator whose output is made into some shape."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.shape = nn.Linear(64, 5), shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(self.layer(x.flatten(1)))


def test_one_logit_in_a_column_is_one_logit() -> None:
    """`[N, 1]`, the usual end of a linear layer, must not be read as N replicas of one sample."""
    runs = []
    for shape in (lambda h: h[:, 0], lambda h: h[:, :1], lambda h: h[:, :1, None, None]):
        torch.manual_seed(0)
        run = run_of("R1", (networks(0)[0], Shaped(shape)), loss="mm-nsat").fit(3, progress=False)
        runs.append(weights(run))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("shape", [lambda h: h, lambda h: h[:4, 0], lambda h: h.mean()])
def test_other_shapes_of_logits_are_refused(shape: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"D must give one logit for each sample, \[16\] here, got"):
        run_of("R1", (networks(0)[0], Shaped(shape))).step()


def test_samples_of_another_shape_are_refused() -> None:
    class Flat(nn.Module):
        z_dim = 4

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 64)

        def forward(self, z: Tensor) -> Tensor:
            return self.layer(z)

    with pytest.raises(ValueError, match=r"G must make samples .*\[8, 1, 8, 8\], got \[8, 64\]"):
        run_of("R1", (Flat(), networks(0)[1])).step()


def test_a_class_head_reaches_the_terms() -> None:
    def entropy(play: Play) -> Tensor:
        assert play.real_verdict.classes.shape == (8, 4)
        return -play.fake_verdict.classes.log_softmax(-1).mean()

    D = Shaped(lambda h: (h[:, 0], h[:, 1:]))
    run_of("R1", (networks(0)[0], D), d_terms=[entropy], g_terms=[entropy]).fit(2, progress=False)


def test_a_discriminator_that_mixes_samples_declares_it() -> None:
    """Its real and generated samples go through it apart, also where no buffer betrays it."""

    class Deviation(nn.Module):
        mixes_samples = True
        seen: list[int] = []  # noqa: RUF012

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            return x + x.std(0, keepdim=True).mean()

    G, D = networks(0)
    run_of("R1", (G, nn.Sequential(Deviation(), *D)), d_terms=[]).step()
    assert set(Deviation.seen) == {8}


def test_parameters_that_take_no_part_stay() -> None:
    D = Shaped(lambda h: h[:, 0])
    D.unused = nn.Parameter(torch.ones(3))
    run_of("R1", (networks(0)[0], D)).fit(2, progress=False)
    assert torch.equal(D.unused, torch.ones(3))


class Noisy(nn.Module):
    """A generator with noise in a layer and a buffer that training moves: a growing network's stage."""

    z_dim, noise_dim = 4, 8

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 64)
        self.register_buffer("alpha", torch.zeros(()))

    def growth(self, images: int) -> dict[str, float]:
        return {"alpha": min(1.0, images / 64)}

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        h = torch.relu(self.first(z) + self.alpha * noise)
        return self.last(h).unflatten(-1, (1, 8, 8)).tanh()


def test_noise_inside_layers_and_growth_resume_exactly(tmp_path: Path) -> None:
    make = lambda: run_of("made up", (Noisy(), networks(0)[1]))  # noqa: E731
    whole = make().fit(7, progress=False)
    make().fit(4, out=tmp_path, progress=False)
    resumed = make().load(tmp_path / "checkpoint-00000004.pt").fit(3, progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert float(whole.G.alpha) == float(whole.teacher.net.alpha) == 1.0
    pair = run_of("made up", gk.pair(lambda seed: (Noisy(seed), networks(seed)[1]), (0, 1))).fit(
        2, progress=False
    )
    assert pair.G.replica(1).alpha == pytest.approx(16 / 64)
    with pytest.raises(ValueError, match="names a buffer 'beta'; the network has alpha"):
        fill_buffers(whole.G, {"beta": 1.0})


# --- Two processes ---------------------------------------------------------------------------------------------------


def noisy_run() -> gk.Trainer:
    return run_of("made up", (Noisy(), networks(0)[1]), leak=gk.Leak(0.25))


def in_processes(out: Path) -> None:
    with processes.joined():
        found = {}
        for name in GAMES:
            run = run_of(name, leak=gk.Leak(0.25, source="async-noise")).fit(4, progress=False)
            found[name] = (weights(run), run.states)
        run = noisy_run().fit(4, progress=False)
        found["noise"] = (weights(run), run.states)
        if processes.rank() == 0:
            torch.save(found, out)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    done = subprocess.run(
        [*command, __file__, str(tmp_path / "two.pt")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name in [*GAMES, "noise"]:
        if name == "DRAGAN":  # its noise has the spread of each process's own samples, as `Trainer` says
            continue
        leak = gk.Leak(0.25, source="async-noise")
        run = (noisy_run() if name == "noise" else run_of(name, leak=leak)).fit(4, progress=False)
        torch.testing.assert_close(
            two[name][0], weights(run), rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )
        for key, value in run.states.items():
            torch.testing.assert_close(two[name][1][key], value)


if __name__ == "__main__":
    in_processes(Path(sys.argv[1]))
