import copy
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import gankit as gk
from gankit.device import pick_device, threads_for
from gankit.game.penalties import R1, ClipWeights, Orthogonal, WganGP
from gankit.game.play import d_gradient
from gankit.training import Diverged, checkpoints
from gankit.training.checkpoints import CheckpointError
from gankit.training.gradients import gradient_norm
from gankit.training.optimisers import descend

DIGITS = gk.data.load("digits")
RING = gk.data.load("ring", n=2000)


def small(seed: int = 0, data=DIGITS):
    return gk.models.mlp(data.shape, z_dim=8, depth=3, width=16, seed=seed)


def trainer(data=DIGITS, nets=None, **settings) -> gk.Trainer:
    G, D = nets or small(data=data)
    settings = {
        "batch_size": 8,
        "device": "cpu",
        "g_optimizer": gk.Adam(1e-3),
        "d_optimizer": gk.Adam(1e-3),
    } | settings
    return gk.Trainer(G, D, data, **settings)


def fit(run: gk.Trainer, steps: int, **settings) -> gk.Trainer:
    return run.fit(steps, progress=False, **settings)


def parameters(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# --- A step does what it says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ns", "mm-nsat", "hinge", "ls", "wgan"])
def test_a_step_descends_the_stated_costs(loss):
    """The same two updates written out by hand, with plain SGD."""
    run = trainer(loss=loss, g_optimizer=gk.SGD(0.1), d_optimizer=gk.SGD(0.2))
    G, D = small()
    streams = gk.sampling.Streams((0,), (), "cpu")
    cost = gk.losses[loss]

    z = streams.normal(8, 8)
    real, _ = DIGITS.batch(streams.each(lambda g: DIGITS.draw(8, g)))
    d_cost = cost.d_loss(D(real), D(G(z).detach()))
    d_cost.backward()
    with torch.no_grad():
        for p in D.parameters():
            p -= 0.2 * p.grad
    d_norm = torch.cat([p.grad.flatten() for p in D.parameters()]).norm()
    g_cost = cost.g_loss(D(G(streams.normal(8, 8))))
    g_cost.backward()
    with torch.no_grad():
        for p in G.parameters():
            p -= 0.1 * p.grad

    stats = run.step()
    torch.testing.assert_close(stats["d_loss"], d_cost.detach())
    torch.testing.assert_close(stats["g_loss"], g_cost.detach())
    torch.testing.assert_close(parameters(run.D), parameters(D))
    torch.testing.assert_close(parameters(run.G), parameters(G))
    g_norm = torch.cat([p.grad.flatten() for p in G.parameters()]).norm()
    torch.testing.assert_close(gradient_norm(stats["g_grad"]).float(), g_norm)
    torch.testing.assert_close(gradient_norm(stats["d_grad"]).float(), d_norm)


def test_n_dis_updates_the_discriminator_so_often():
    run = trainer(n_dis=3)
    calls = []
    original = run.d_step
    run.d_step = lambda: calls.append(run.steps) or original()
    fit(run, 4)
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert run.images == 4 * 3 * 8


def test_shared_fakes_are_the_samples_of_the_discriminators_last_step_with_a_gradient():
    """G's step is the one that its cost asks for on the z of D's last step, written out."""
    data = gk.data.load("digits", n=200)
    G, D = gk.models.mlp(data.shape, z_dim=4, depth=2, width=8)
    run = gk.Trainer(G, D, data, batch_size=8, n_dis=2, share_fakes=True, device="cpu")
    drawn, draw = [], run.streams.normal
    run.streams.normal = lambda *shape: drawn.append(draw(*shape)) or drawn[-1]
    for _ in range(run.n_dis):
        run.d_step()
    assert len(drawn) == run.n_dis
    cost = nn.functional.softplus(-run.D(run.G(drawn[-1]))).mean()
    expected = torch.autograd.grad(cost, [*run.G.parameters()])
    seen = run.g_step()
    assert len(drawn) == run.n_dis, "it draws no latents of its own"
    for ours, theirs in zip(seen["g_grad"], expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    run.g_step()
    assert len(drawn) == run.n_dis + 1, "a second step of G has new ones"


@pytest.mark.parametrize("lead", [False, True])
def test_unit_costs_have_unit_gradients(lead):
    """The gradient that reaches the optimiser has norm n_params, only where the cost says so."""
    costs = ["ns-unit", "ns", "mm-unit"]
    nets = gk.pair(small, [0, 1, 2]) if lead else small()
    run = trainer(nets=nets, loss=costs if lead else "mm-unit", g_optimizer=gk.SGD(1.0))
    before = [p.detach().clone() for p in run.G.parameters()]
    stats = run.step()
    moved = [b - p.detach() for b, p in zip(before, run.G.parameters(), strict=True)]
    n_params = parameters(small()[0]).numel()
    norms, raw = gradient_norm(moved, run.lead), gradient_norm(stats["g_grad"], run.lead)
    expected = torch.full_like(norms, n_params)
    if lead:
        expected[1] = raw[1]
    torch.testing.assert_close(norms, expected, rtol=1e-3, atol=0)
    assert (raw < n_params / 10).all()


def test_every_replica_may_have_its_own_cost_and_betas_in_a_paired_run():
    """Replicas of one seed and different costs start equal, see the same data, and then part."""
    nets = gk.pair(small, [5, 5, 5])
    adam = gk.Adam(1e-3, 0.5, (0.999, 0.999, 0.9))
    run = trainer(nets=nets, loss=["ns", "mm", "mm"], g_optimizer=adam)
    z, _ = run.draw_latents()
    x, _ = run.draw_data()
    for drawn in (z, x):
        assert torch.equal(drawn[0], drawn[1])
    fit(run, 20)
    G = run.G.net[0].weight
    assert not torch.allclose(G[0], G[1])
    assert not torch.allclose(G[1], G[2])


@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_a_seed_trains_alike_alone_and_beside_others(family):
    """The issue's bound: the same parameters to 1e-10 in float64, after 200 (mlp) or 20 (conv) steps."""

    def build(seed: int):
        nets = (
            small(seed)
            if family == "mlp"
            else gk.models.conv(DIGITS.shape, z_dim=8, depth=3, width=2, seed=seed)
        )
        return tuple(net.double() for net in nets)

    steps = 200 if family == "mlp" else 20
    settings = {"loss": "mm-nsat", "d_terms": [R1(0.1)], "leak": gk.Leak(0.25, start=5)}
    together = fit(trainer(nets=gk.pair(build, [3, 8, 1]), **settings), steps)
    pair_of_two = fit(trainer(nets=gk.pair(build, [8, 8]), **settings), steps)
    alone = fit(trainer(nets=build(8), seed=8, **settings), steps)
    for nets in ("G", "D"):
        expected = parameters(getattr(alone, nets))
        for run, i in ((together, 1), (pair_of_two, 0), (pair_of_two, 1)):
            torch.testing.assert_close(
                parameters(getattr(run, nets).replica(i)), expected, rtol=0, atol=1e-10
            )


def test_training_learns():
    """On the ring, minimax without saturation covers the modes that the first step does not."""
    G, D = gk.models.mlp(RING.shape, z_dim=8, depth=3, width=64)
    run = trainer(RING, (G, D), loss="mm-nsat", batch_size=64, ema=gk.EMA(decay=0.99))
    fit(run, 2000)
    samples = run.teacher.sample(2500)
    assert gk.metrics.modes.modes_covered(samples, RING.centers, RING.std) >= 7
    assert (gk.metrics.modes.mode_assignment(samples, RING.centers, RING.std) >= 0).double().mean() > 0.5


class Conditional(nn.Module):
    """Labels enter as one-hot vectors beside z or x."""

    n_classes = 10

    def __init__(self, generator: bool) -> None:
        super().__init__()
        self.z_dim, self.shape, self.generator = 4, (1, 8, 8), generator
        self.net = nn.Linear((4 if generator else 64) + 10, 64 if generator else 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        flat = x if self.generator else x.flatten(1)
        y = self.net(torch.cat([flat, torch.eye(10)[labels]], 1))
        return torch.tanh(y).reshape(-1, 1, 8, 8) if self.generator else y[:, 0]


@pytest.mark.parametrize("source", ["sync", "most-realistic"])
def test_conditional_networks_train_with_labels(source):
    torch.manual_seed(0)
    run = trainer(
        nets=(Conditional(True), Conditional(False)), leak=gk.Leak(0.5, source=source), d_terms=[R1(1.0)]
    )
    fit(run, 3)
    assert run.teacher.sample(12, labels=torch.arange(12) % 10).shape == (12, 1, 8, 8)


# --- Precision and accumulation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [False, True])
def test_accumulated_minibatches_are_one_large_one(lead):
    """Costs that are means over samples: two minibatches of 8 have the gradient of their 16 samples together."""
    nets = gk.pair(lambda seed: small(seed=seed), (0, 1)) if lead else None
    run = trainer(nets=nets, accumulate=2, precision="float32")
    twin = trainer(nets=copy.deepcopy(nets) if lead else None)
    parts = [d_gradient(twin.play(twin.D), twin.d_params) for _ in range(2)]
    stats = run.d_step()
    for key in ("d_loss", "real_logit", "fake_logit"):
        torch.testing.assert_close(stats[key], (parts[0][key] + parts[1][key]) / 2)
    for ours, a, b in zip(stats["d_grad"], parts[0]["d_grad"], parts[1]["d_grad"], strict=True):
        torch.testing.assert_close(ours, (a + b) / 2)
    run.steps = 1
    assert run.images == 2 * twin.batch_size


@pytest.mark.parametrize("source", ["sync", "most-realistic"])
def test_bfloat16_trains_with_float32_parameters_costs_and_penalties(source):
    settings = {"d_terms": [WganGP(1.0), R1(1.0)], "leak": gk.Leak(0.5, source=source), "loss": "mm-nsat"}
    run, exact = trainer(precision="bfloat16", **settings), trainer(**settings)
    ours, theirs = run.step(), exact.step()
    assert ours["d_loss"].dtype == ours["g_loss"].dtype == torch.float32
    assert parameters(run.G).dtype == torch.float32
    for key in ("g_grad", "d_grad"):
        a, b = (torch.cat([g.flatten() for g in stats[key]]) for stats in (ours, theirs))
        assert not torch.equal(a, b)  # products were rounded
        assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99
    fit(run, 20)
    assert parameters(run.D).isfinite().all()


def test_an_unknown_precision_or_accumulation_is_refused():
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, got 'float16'"):
        trainer(precision="float16")
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        trainer(accumulate=0)


# --- Reproducible, resumable, stoppable -------------------------------------------------------------------------

FULL = {
    "loss": "mm-nsat",
    "n_dis": 2,
    "leak": gk.Leak(0.5, start=10, source="async-noise"),
    "d_terms": [WganGP(0.1)],
    "ema": gk.EMA(decay=0.9, start=4),
}


@pytest.mark.parametrize(
    "optimizer", [gk.Adam(1e-3), gk.RMSProp(1e-3), gk.SGD(1e-2, 0.9), gk.Adam(1e-3, (0.5, 0.9))]
)
def test_a_resumed_run_is_bit_identical(tmp_path, optimizer):
    per_replica = isinstance(getattr(optimizer, "beta1", 0), tuple)

    def build():
        nets = gk.pair(small, [0, 1]) if per_replica else small()
        return trainer(nets=nets, g_optimizer=optimizer, d_optimizer=optimizer, **FULL)

    whole = fit(build(), 40)
    first = fit(build(), 25)
    first.save(tmp_path / "checkpoint.pt")
    resumed = fit(build().load(tmp_path / "checkpoint.pt"), 15)
    assert resumed.steps == whole.steps == 40
    for net in ("G", "D", "teacher"):
        assert torch.equal(parameters(getattr(resumed, net)), parameters(getattr(whole, net)))
    assert torch.equal(resumed.draw_latents()[0], whole.draw_latents()[0])


def test_the_same_seed_gives_the_same_run_and_another_seed_does_not():
    a, b, c = (fit(trainer(seed=seed), 15) for seed in (0, 0, 1))
    assert torch.equal(parameters(a.G), parameters(b.G))
    assert not torch.equal(parameters(a.G), parameters(c.G))


def test_the_log_has_one_row_per_interval_and_what_the_callback_returns(tmp_path):
    run = fit(
        trainer(nets=gk.pair(small, [0, 1])),
        10,
        out=tmp_path,
        log_every=4,
        callback=lambda run: {"mean_pixel": run.teacher.sample(4).mean((1, 2, 3, 4))},
        callback_every=5,
    )
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == run.history
    assert [row["step"] for row in rows] == [4, 5, 8, 10]
    steps, values = run.curve("mean_pixel")
    assert steps.tolist() == [5, 10]
    assert values.shape == (2, 2)
    assert run.curve("g_loss")[1].shape == (4, 2)
    with pytest.raises(KeyError, match="'fid' was not logged; logged are d_grad, d_loss"):
        run.curve("fid")


def test_rows_logged_past_the_last_checkpoint_are_dropped_on_resuming(tmp_path):
    run = fit(trainer(), 6, out=tmp_path, log_every=2)
    with open(tmp_path / "log.jsonl", "a") as f:
        f.write(json.dumps({"step": 8}) + "\n" + '{"step": 10, "d_lo')  # a kill between two checkpoints
    resumed = trainer().load(checkpoints.latest(tmp_path))
    fit(resumed, 4, out=tmp_path, log_every=2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert rows[:3] == run.history


def test_the_newest_two_checkpoints_are_kept(tmp_path):
    fit(trainer(), 9, out=tmp_path, save_every=2)
    assert [path.name for path in checkpoints.saved(tmp_path)] == [
        "checkpoint-00000008.pt",
        "checkpoint-00000009.pt",
    ]


def test_checkpoints_can_be_kept_for_good(tmp_path):
    fit(trainer(), 9, out=tmp_path, save_every=2, keep_every=3)
    assert list(map(checkpoints.step_of, checkpoints.saved(tmp_path))) == [3, 6, 8, 9]
    resumed = trainer().load(checkpoints.latest(tmp_path))
    fit(resumed, 4, out=tmp_path, keep_every=3)
    assert list(map(checkpoints.step_of, checkpoints.saved(tmp_path))) == [3, 6, 9, 12, 13]
    early = trainer().load(checkpoints.path_of(tmp_path, 3))
    again = fit(trainer(), 3)
    assert torch.equal(parameters(early.G), parameters(again.G))


def numbers(*values):
    """A callback that returns these, one after another."""
    left = iter(values)
    return lambda run: {"FD": next(left)}


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ((5.0, 3.0, 4.0, 3.5, 9.0), 2),
        ((5.0, 3.0, 3.0, 4.0, 4.0), 2),  # the first of equals
        ((math.nan, 7.0, math.nan, math.inf, 8.0), 2),
        ((-1.0, 2.0, -3.0, math.nan, -2.0), 3),
        (([1.0, 9.0, 9.0], [4.0, 4.0, 4.0], [3.0, 3.0, math.nan], [5.0] * 3, [9.0] * 3), 2),
    ],
)
def test_the_best_checkpoint_is_kept(tmp_path, values, step):
    settings = {"out": tmp_path, "save_every": 1, "callback_every": 1, "best": "FD"}
    run = fit(trainer(), 3, callback=numbers(*values[:3]), **settings)
    resumed = trainer().load(checkpoints.latest(tmp_path))
    fit(resumed, 2, callback=numbers(*values[3:]), **settings)
    assert [path.name for path in checkpoints.saved(tmp_path)] == [
        "checkpoint-00000004.pt",
        "checkpoint-00000005.pt",
    ]
    best = trainer().load(tmp_path / checkpoints.BEST)
    assert best.steps == step
    again = fit(trainer(), step)
    assert torch.equal(parameters(best.G), parameters(again.G))
    assert resumed.steps == run.steps + 2


def test_no_best_checkpoint_without_a_finite_number(tmp_path):
    fit(trainer(), 2, out=tmp_path, callback=numbers(math.nan, math.inf), callback_every=1, best="FD")
    assert not (tmp_path / checkpoints.BEST).exists()


def test_best_needs_a_number_and_a_folder(tmp_path):
    with pytest.raises(ValueError, match="best='FD' needs out"):
        fit(trainer(), 1, callback=numbers(1.0), best="FD")
    with pytest.raises(ValueError, match="best='FD' needs out"):
        fit(trainer(), 1, out=tmp_path, best="FD")
    with pytest.raises(ValueError, match=r"number that the callback returns, got 'KD'; logged are .*FD"):
        fit(trainer(), 1, out=tmp_path, callback=numbers(1.0), best="KD")


@pytest.mark.parametrize("lead", [(), (2,)])
def test_watching_gives_the_scores_of_the_samples_and_leaves_training_alone(lead):
    def nets():
        return gk.pair(small, range(2)) if lead else small()

    alone = fit(trainer(nets=nets()), 6)
    watch = gk.metrics.watch(DIGITS, ["fd", "precision"], n=60, network="generator", seed=4)
    run = fit(trainer(nets=nets()), 6, callback=watch, callback_every=3)
    assert torch.equal(parameters(run.G), parameters(alone.G))
    samples = gk.sampling.sample(run.G, 60, seed=4)
    expected = gk.metrics.evaluate(samples, DIGITS, ["fd", "precision"], progress=False)
    for name, score in expected.items():
        steps, values = run.curve(name)
        assert steps.tolist() == [3, 6]
        assert values.shape == (2, *lead)
        np.testing.assert_allclose(values[-1], score.value, rtol=1e-5)
    with pytest.raises(ValueError, match="network must be one of teacher, generator, got 'student'"):
        gk.metrics.watch(DIGITS, network="student")


class BlowsUp(nn.Module):
    """A discriminator that returns NaN from its n-th call on, for one replica."""

    def __init__(self, net: nn.Module, calls: int, replica: int | None) -> None:
        super().__init__()
        self.net, self.calls, self.replica = net, calls, replica

    def forward(self, x: Tensor) -> Tensor:
        self.calls -= 1
        y = self.net(x)
        if self.calls >= 0:
            return y
        return (
            y * torch.nan
            if self.replica is None
            else torch.cat([y[: self.replica], y[self.replica :] * torch.nan])
        )


def test_nan_stops_the_run_says_where_and_keeps_the_last_good_checkpoint(tmp_path):
    G, D = small()
    # Two calls a step (real and fake go together): the 13th call is the discriminator's in step 7.
    run = trainer(nets=(G, BlowsUp(D, 12, None)))
    with pytest.raises(
        Diverged, match=r"the discriminator's cost became NaN or infinite at step 7; .*00000005\.pt"
    ):
        fit(run, 20, out=tmp_path, save_every=5, log_every=10)
    kept = checkpoints.latest(tmp_path)
    assert kept.name == "checkpoint-00000005.pt"
    assert all(value.isfinite().all() for value in checkpoints.read(kept)["G"].values())
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_nan_in_the_generators_step_names_the_generator():
    G, D = small()
    with pytest.raises(
        Diverged, match="the generator's cost became NaN or infinite at step 4; no checkpoint"
    ):
        fit(trainer(nets=(G, BlowsUp(D, 7, None))), 10)


def test_nan_names_the_replica():
    G, D = gk.pair(small, [0, 1])
    bad = BlowsUp(D, 4, 1)
    run = trainer(nets=(G, D))
    run.D = bad
    with pytest.raises(Diverged, match="at step 3 in replica 1"):
        fit(run, 10)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    run = trainer()
    with torch.no_grad():
        next(run.G.parameters()).fill_(math.inf)
    with pytest.raises(Diverged, match="generator is NaN or infinite after step 0; not saved"):
        run.save(tmp_path / "checkpoint.pt")
    assert not list(tmp_path.iterdir())


# --- Layout in memory -------------------------------------------------------------------------------------------


def residual(seed: int = 0):
    return gk.models.sngan((1, 8, 8), z_dim=8, width=4, seed=seed)


def test_networks_hand_on_feature_maps_with_channels_innermost():
    run = trainer(nets=residual())
    maps = []
    for net in (run.G, run.D, run.teacher.net):
        for layer in net.modules():
            # Kernels of one pixel and pictures of one channel have one layout only: they take their input's.
            if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1) and layer.in_channels > 1:
                layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
    run.D(run.teacher.net(run.draw_latents()[0]))
    run.D(run.G(run.draw_latents()[0]))
    assert len(maps) > 15
    for x in maps:
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_the_layout_changes_no_value(monkeypatch):
    ours = fit(trainer(nets=residual()), 3)
    monkeypatch.setattr("gankit.training.trainer.channels_last", lambda net: net)
    plain = fit(trainer(nets=residual()), 3)
    assert any(
        p.stride() != q.stride() for p, q in zip(ours.G.parameters(), plain.G.parameters(), strict=True)
    )
    for name in ("d_loss", "g_loss", "g_grad"):
        np.testing.assert_allclose(ours.curve(name)[1], plain.curve(name)[1], rtol=1e-4)


@pytest.mark.parametrize("optimizer", [gk.Adam(1e-3), gk.SGD(1e-2, 0.9), gk.RMSProp(1e-3)])
def test_a_checkpoint_of_another_layout_goes_on_alike(tmp_path, monkeypatch, optimizer):
    settings = {"nets": residual(), "g_optimizer": optimizer, "d_optimizer": optimizer}
    with monkeypatch.context() as patched:
        patched.setattr("gankit.training.trainer.channels_last", lambda net: net)
        plain = fit(trainer(**settings), 3)
        plain.save(tmp_path / "checkpoint.pt")
    resumed = trainer(**settings | {"nets": residual()}).load(tmp_path / "checkpoint.pt")
    gradient = [p.detach() * 0.1 + 0.01 for p in plain.d_params]
    for run in (plain, resumed):
        descend(run.d_opt, run.d_params, gradient)
    for ours, theirs in zip(resumed.d_params, plain.d_params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


# --- Compiled networks ------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_networks_train_alike(tmp_path, precision):
    """By the backend that traces and differentiates but makes no machine code, which would take minutes."""

    def make():
        settings = {
            "leak": gk.Leak(0.5),
            "n_dis": 2,
            "g_optimizer": gk.SGD(0.05),
            "d_optimizer": gk.SGD(0.05),
        }
        return trainer(nets=residual(), precision=precision, **settings)

    eager, compiled = fit(make(), 3, log_every=1), fit(make().compile(backend="aot_eager"), 3, log_every=1)
    for name in ("d_loss", "g_loss", "real_logit"):
        tolerance = 1e-4 if precision == "float32" else 0.05
        np.testing.assert_allclose(
            compiled.curve(name)[1], eager.curve(name)[1], rtol=tolerance, atol=tolerance
        )
    assert compiled.G.state_dict().keys() == eager.G.state_dict().keys()
    compiled.save(tmp_path / "checkpoint.pt")
    resumed = make().load(tmp_path / "checkpoint.pt")
    assert torch.equal(parameters(resumed.G), parameters(compiled.G))
    for a, b in zip(
        compiled.D.buffers(), eager.D.buffers(), strict=True
    ):  # the vectors of spectral normalisation
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 if precision == "float32" else 0.05)
    if precision == "float32":
        samples = [gk.sampling.sample(run.teacher.net, 3) for run in (compiled, eager)]
        torch.testing.assert_close(*samples, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(ValueError, match="this run has an Ensemble"):
        trainer(nets=gk.pair(small, [0, 1])).compile()
    with pytest.raises(ValueError, match=r"this run has penalties of the slope \(R1"):
        trainer(d_terms=(R1(1.0),)).compile()


# --- Nothing waits ----------------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """Records operations whose result, or its shape, Python has to know: a GPU would be waited for."""

    NAMES = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "equal", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if by_mask or any(name.strip("_").startswith(part.strip("_")) for part in self.NAMES):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_what_waits_is_recorded():
    x = torch.ones(3)
    for wait in (
        lambda: x.sum().item(),
        lambda: float(x[0]),
        lambda: bool(x.any()),
        lambda: x[x > 0],
        x.nonzero,
    ):
        with Waits() as waits:
            wait()
        assert waits.seen
    with Waits() as waits:
        torch.where(x > 0, x, -x).sum() * 2
    assert not waits.seen


@pytest.mark.parametrize(
    ("nets", "loss", "leak"),
    [
        ("sngan", "mm-nsat", "sync"),
        ("sngan", "mm-unit", "most-realistic"),
        ("biggan", "hinge", "generator"),
        ("biggan", "mm-nsat", None),
        ("ensemble", "mm-unit", "sync"),
        ("ensemble", "hinge", "most-realistic"),
    ],
)
def test_nothing_in_a_step_waits_for_the_device(monkeypatch, nets, loss, leak):
    make = {
        "sngan": residual,
        "biggan": lambda: gk.models.biggan((1, 8, 8), 10, z_dim=6, width=2),
        "ensemble": lambda: gk.pair(small, [0, 1]),
    }
    run = trainer(
        nets=make[nets](), loss=loss, batch_size=4, n_dis=2, accumulate=2, d_terms=(R1(1.0),),
        leak=None if leak is None else gk.Leak(0.5, source=leak), projections=(ClipWeights(1.0),),
        g_terms=(Orthogonal(),),
    )  # fmt: skip
    for name in ("tolist", "numpy", "cpu"):
        monkeypatch.setattr(Tensor, name, lambda *args, name=name: pytest.fail(f"Tensor.{name} in a step"))
    with Waits() as waits:
        run.step()
    assert not waits.seen


# --- What does not fit is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: trainer(batch_size=0), ValueError, "batch_size must be at least 1"),
        (lambda: trainer(n_dis=0), ValueError, "n_dis must be at least 1"),
        (lambda: trainer(loss="nss"), ValueError, "loss 'nss' is unknown"),
        (lambda: trainer(loss=["ns", "mm"]), ValueError, "goes with an Ensemble"),
        (
            lambda: trainer(nets=gk.pair(small, [0, 1]), loss=["ns"]),
            ValueError,
            r"one per replica \(2\), got 1",
        ),
        (lambda: trainer(nets=(gk.pair(small, [0])[0], small()[1])), ValueError, "equally many replicas"),
        (lambda: trainer(nets=(nn.Linear(2, 2), nn.Linear(2, 1))), ValueError, "z_dim"),
        (
            lambda: trainer(RING, small()),
            ValueError,
            r"samples of shape \(1, 8, 8\), but data 'ring' has \(2,\)",
        ),
        (
            lambda: trainer(
                nets=(gk.models.sagan((1, 8, 8), 10, width=1)[0], gk.models.sngan((1, 8, 8), width=2)[1])
            ),
            ValueError,
            "both be conditional or neither, got n_classes {'G': 10, 'D': 0}",
        ),
        (
            lambda: trainer(nets=gk.models.sagan((1, 8, 8), 9, width=1)),
            ValueError,
            "must know the 10 classes of data 'digits', got n_classes {'G': 9, 'D': 9}",
        ),
        (lambda: trainer(device="gpu"), ValueError, "device must be auto"),
        (
            lambda: trainer(nets=gk.pair(small, [0, 1]), leak=gk.Leak((0.1,) * 3)),
            ValueError,
            "one per replica",
        ),
        (lambda: fit(trainer(), -1), ValueError, "steps must be at least 0"),
        (lambda: fit(trainer(), 1, log_every=0), ValueError, "log_every must be at least 1 step"),
        (lambda: gk.Adam(lr=0), ValueError, "lr must lie in"),
        (lambda: gk.Adam(beta2=(0.9, 1.0)), ValueError, r"beta2 must lie in \[0, 1\), got 1.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def test_a_missing_gpu_is_said_to_be_missing():
    if torch.cuda.is_available():
        assert pick_device("auto").type == "cuda"
    else:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="sees no GPU"):
            pick_device("cuda")


def test_small_networks_train_on_one_thread_and_large_ones_do_not():
    before = torch.get_num_threads()
    for net, expected in {
        small()[0]: 1,
        gk.models.conv((1, 8, 8))[0]: before,
        nn.Linear(2000, 2000): before,
    }.items():
        with threads_for(net):
            assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == before


# --- Checkpoints ------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_what_the_issue_lists(tmp_path):
    run = fit(trainer(recipe={"name": "x", "seeds": [0]}), 3, out=tmp_path)
    state = checkpoints.read(checkpoints.latest(tmp_path))
    assert {"G", "D", "teacher", "g_opt", "d_opt", "streams", "recipe", "versions"} <= set(state)
    assert json.loads(state["recipe"])["name"] == "x"
    assert state["versions"]["torch"] == str(torch.__version__)
    assert len(state["streams"]["states"]) == 1
    assert run.steps == state["step"]


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named_and_the_earlier_one_kept(tmp_path, keep):
    fit(trainer(), 4, out=tmp_path, save_every=2)
    earlier, newest = checkpoints.saved(tmp_path)
    data = newest.read_bytes()
    newest.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(
        CheckpointError, match=r"00000004\.pt is truncated .* earlier checkpoint-00000002\.pt is kept"
    ):
        trainer().load(newest)
    assert trainer().load(earlier).steps == 2


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    fit(trainer(), 1, out=tmp_path)
    other = trainer(nets=gk.models.mlp(DIGITS.shape, z_dim=8, depth=3, width=17))
    before = parameters(other.G).clone()
    with pytest.raises(
        CheckpointError, match=r"another architecture: G's '0.weight' has shape \(16, 8\) there"
    ):
        other.load(checkpoints.latest(tmp_path))
    assert torch.equal(parameters(other.G), before)
    seeds = trainer(seed=3)
    with pytest.raises(CheckpointError, match=r"seeds \[0\], this run has \[3\]"):
        seeds.load(checkpoints.latest(tmp_path))


class Sabotage:
    def __reduce__(self):
        return (np.save, ("/nowhere", 0))


def test_loading_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"step": Sabotage()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        checkpoints.read(tmp_path / "checkpoint.pt")


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoints.read(tmp_path / "checkpoint.pt")
    torch.save({"step": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="it lacks D, G"):
        checkpoints.read(tmp_path / "other.pt")


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    run = fit(trainer(), 2, out=tmp_path)
    kept = checkpoints.latest(tmp_path)
    before = kept.read_bytes()

    def no_space(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OSError, match="No space left"):
        run.save(kept)
    assert kept.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []
