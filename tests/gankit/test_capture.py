"""A step that can be recorded: nothing is decided or copied by the host, no tensor moves, and phases say what changes.

Where there is no card these are what is tested of it: that equal phases are equal operations, and that what outlives a
step stays where it is. With a card, recorded steps are compared with steps that are not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import gankit as gk
from gankit.data import Dataset
from gankit.data.dataset import MappedDataset
from gankit.device import PRECISIONS, constant, products
from gankit.game.penalties import R1
from gankit.game.play import Every
from gankit.recipes import Recipe, recipes
from gankit.training import capture
from gankit.training.optimisers import Adam, LinearDecay, RMSProp

DIGITS = gk.data.load("digits")
CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here")
HOST = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "lift_fresh", "unique", "equal")
"""What makes the host wait for a number, or the device for numbers of the host (`torch.tensor`)."""

RECIPES = {
    "ns-digits": {},
    "mm-nsat-digits": {"leak": gk.Leak(0.5, 0, "most-realistic")},
    "biggan-cifar10": {"width": 4},
    "leakyema-biggan-cifar10": {"width": 4, "leak_start": 0, "ema_start": 1},
    "stylegan2-cifar10": {"width": 16},
    "ada-cifar10": {"width": 16},
    "diffaugment-cifar10-10percent": {"width": 4, "subset": None},
    "icr-biggan-cifar10": {"width": 4},
    "gp-cifar10": {"width": 4},
    "sn-cifar10": {"width": 4, "precision": "tf32"},
    "acgan-cifar10": {"width": 4, "precision": "bfloat16"},
    "began-cifar10-conv4": {"width": 4},
    "r3gan-cifar10": {"width": 8, "schedule": None},
}


def noise(recipe: Recipe, n: int = 40) -> Dataset:
    shape = (1, 8, 8) if recipe.data == "digits" else (3, 32, 32)
    images = torch.randint(0, 17, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("noise", images, torch.arange(n) % 10, tuple("0123456789"), levels=16)


def build(name: str, seeds: tuple[int, ...] = (0,), device: str = "cpu", **changes: Any) -> gk.Trainer:
    recipe = recipes[name].changed(RECIPES.get(name, {}) | {"batch_size": 4} | changes)
    return recipe.build(seeds, data=noise(recipe), device=device)


class Operations(TorchDispatchMode):
    """Names and shapes of all operations, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen.append((function.name(), tuple(result.shape) if isinstance(result, Tensor) else ()))
        return result


def lasting(run: gk.Trainer) -> dict[str, int]:
    """Where in memory everything is that a step finds and leaves, the rules' states excepted."""
    nets = {"G": run.G, "D": run.D, "teacher": run.teacher.net}
    found = {
        f"{key}.{name}": x.data_ptr()
        for key, net in nets.items()
        for name, x in (*net.named_parameters(), *net.named_buffers())
    }
    for key, optimizer in {"g": run.g_opt, "d": run.d_opt}.items():
        for i, state in enumerate(optimizer.state.values()):
            found |= {
                f"{key}_opt.{i}.{name}": x.data_ptr() for name, x in state.items() if isinstance(x, Tensor)
            }
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_asks_the_host_for_nothing_and_leaves_everything_in_its_place(name):
    run = build(name)
    run.step(), run.step()  # constants are copied once, and optimisers make their means
    before = lasting(run)
    with Operations() as operations:
        run.step()
    waits = {operation for operation, _ in operations.seen if any(part in operation for part in HOST)}
    assert not {one for one in waits if "not_equal" not in one}
    assert lasting(run) == before


def test_an_ensemble_of_several_costs_asks_for_nothing_either():
    costs = ["ns", "mm", "ns-unit", "mm-nsat", "ns"]
    group = gk.study.groups("ns-digits", {str(i): {"loss": loss} for i, loss in enumerate(costs)})[0]
    run = gk.study.build(group, [0, 1], data=DIGITS, device="cpu")
    run.game = dataclasses.replace(run.game, leak=gk.Leak([0.0, 0.5] * 5, 0))
    run.step(), run.step()
    before = lasting(run)
    with Operations() as operations:
        run.step()
    assert not [name for name, _ in operations.seen if any(part in name for part in HOST)]
    assert lasting(run) == before


@pytest.mark.parametrize(
    ("name", "changes", "phases"),
    [
        ("ns-digits", {}, 1),
        ("ns-digits", {"leak": gk.Leak(0.5, 6)}, 2),
        ("ns-digits", {"ema_start": 5, "leak": gk.Leak(0.5, 8)}, 3),
        ("ns-digits", {"d_terms": (Every(R1(1.0), 3),)}, 2),
    ],
)
def test_steps_of_one_phase_are_the_same_operations_and_others_are_not(name, changes, phases):
    run = build(name, **changes)
    found: dict[Any, list[list[tuple[str, tuple[int, ...]]]]] = {}
    for step in range(14):
        now = capture.phase(run)
        with Operations() as operations:
            run.step()
        if step > 1:
            found.setdefault(now, []).append(operations.seen)
    for steps in found.values():
        assert all(one == steps[0] for one in steps)
    firsts = [steps[0] for steps in found.values()]
    assert all(a != b for i, a in enumerate(firsts) for b in firsts[:i])
    assert len(found) == phases


def test_a_capturable_optimiser_steps_as_before():
    plain, other = build("ns-digits"), build("ns-digits")
    capture.capturable(other.g_opt), capture.capturable(other.d_opt)
    for _ in range(3):
        plain.step(), other.step()
    for a, b in zip(plain.G.parameters(), other.G.parameters(), strict=True):
        assert torch.equal(a, b)
    assert other.g_opt.param_groups[0]["capturable"]
    fields = {"g_optimizer": RMSProp(), "d_optimizer": gk.SGD(0.1)}
    capture.capturable(dataclasses.replace(recipes["ns-digits"], **fields).build([0], data=DIGITS).d_opt)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: build("ns-digits"), "it needs a CUDA device, and this run is on cpu"),
        (lambda: build("ns-digits", schedule=LinearDecay(9)), "a learning rate that follows a schedule"),
        (lambda: on_file(), "images that stay in a file are read by the host in every step"),
        (lambda: hooked(), "an optimiser has hooks, which Python would not run again"),
    ],
)
def test_what_cannot_be_recorded_is_refused(make, sentence, monkeypatch):
    run = make()
    if "CUDA" not in sentence:  # as if on a card: that reason comes first
        run.device = torch.device("cuda")
    with pytest.raises(ValueError, match=f"mode 'cuda-graph' cannot record a step of this run: {sentence}"):
        run.compile(mode="cuda-graph")
    assert run.captured is None
    run.device = torch.device("cpu")
    with pytest.raises(ValueError, match=r"takes no settings of torch\.compile, got"):
        run.compile(mode="cuda-graph", backend="eager")


def on_file() -> gk.Trainer:
    recipe = recipes["ns-digits"]
    data = noise(recipe)
    mapped = MappedDataset("file", data.images, data.labels, data.classes, data.levels)
    return recipe.build([0], data=mapped, device="cpu")


def hooked() -> gk.Trainer:
    run = build("ns-digits")
    run.g_opt.register_step_post_hook(lambda *_: None)
    return run


# --- Constants and precisions -------------------------------------------------------------------------------------


def test_constants_are_copied_once_and_keep_their_types():
    cpu = torch.device("cpu")
    assert constant((1.0, 2.0), cpu, torch.float32) is constant((1.0, 2.0), cpu, torch.float32)
    # Equal numbers of other types are other tensors.
    assert constant((True, False), cpu, torch.bool).dtype == torch.bool
    assert constant((1, 0), cpu, torch.long).dtype == torch.long
    torch.testing.assert_close(
        constant(((1, 2), (3, 4)), cpu, torch.float64), torch.tensor([[1.0, 2], [3, 4]]).double()
    )
    with torch.inference_mode():
        made = constant((7.0, 8.0), cpu, torch.float32)
    weight = torch.ones(2, requires_grad=True)
    (weight * made).sum().backward()  # what inference mode makes could not be differentiated
    assert weight.grad.tolist() == [7, 8]
    for values in ((9.0, 1.0), (7.0, 8.0)):  # not there before, and there
        with FakeTensorMode():
            assert isinstance(constant(values, cpu, torch.float32), FakeTensor)
        assert type(constant(values, cpu, torch.float32)) is Tensor


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_on_a_card_are_as_named_and_what_was_set_comes_back(precision):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with products(torch.device("cuda"), precision):
        rounds = torch.get_float32_matmul_precision() != "highest"
        assert rounds == torch.backends.cudnn.allow_tf32 == (precision == "tf32")
    with products(torch.device("cpu"), precision):
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with pytest.raises(ZeroDivisionError), products(torch.device("cuda"), precision):
        _ = 1 / 0
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_tf32_is_float32_on_a_cpu():
    runs = [build("ns-digits", precision=precision) for precision in ("float32", "tf32")]
    for run in runs:
        run.step()
    for a, b in zip(*(run.G.parameters() for run in runs), strict=True):
        assert torch.equal(a, b)
    assert runs[1].recipe["precision"] == "tf32"
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, got 'float16'"):
        recipes["ns-digits"].changed({"precision": "float16"})


def test_batches_of_a_file_are_those_of_memory():
    data = noise(recipes["ns-digits"])
    mapped = MappedDataset("file", data.images, data.labels, data.classes, data.levels)
    rows = torch.tensor([[3, 3, 0], [39, 1, 2]])
    for mine, other in zip(mapped.batch(rows), data.batch(rows), strict=True):
        assert torch.equal(mine, other)


# --- With a card --------------------------------------------------------------------------------------------------


@CARD
@pytest.mark.parametrize(
    ("name", "seeds", "changes"),
    [
        ("ns-digits", (0,), {}),
        ("ns-digits", (0, 1), {"leak": gk.Leak(0.5, 6)}),
        ("sn-cifar10", (0,), {}),
        ("biggan-cifar10", (0,), {"precision": "bfloat16"}),
        ("stylegan2-cifar10", (0,), {}),
        ("ada-cifar10", (0,), {}),
    ],
)
def test_recorded_steps_train_as_others_do(name, seeds, changes):
    eager, recorded = (build(name, seeds, "cuda", **changes) for _ in range(2))
    recorded.compile(mode="cuda-graph")
    for _ in range(24):
        a, b = eager.step(), recorded.step()
    assert recorded.captured.graphs
    rough = changes.get("precision") == "bfloat16"
    for key in ("d_loss", "g_loss", "real_logit", *eager.states):
        torch.testing.assert_close(b[key], a[key], rtol=0.1 if rough else 1e-2, atol=0.1 if rough else 1e-3)
    for mine, other in zip(recorded.streams.generators, eager.streams.generators, strict=True):
        assert torch.equal(mine.get_state(), other.get_state())  # random numbers went on alike


@CARD
def test_a_recorded_run_goes_on_from_its_checkpoint(tmp_path):
    run = build("ns-digits", device="cuda").compile(mode="cuda-graph").fit(12, out=tmp_path, progress=False)
    other = (
        build("ns-digits", device="cuda").compile(mode="cuda-graph").load(tmp_path / "checkpoint-00000012.pt")
    )
    run.fit(8, progress=False), other.fit(8, progress=False)
    for a, b in zip(run.G.parameters(), other.G.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@CARD
def test_tf32_and_bfloat16_are_near_float32():
    found = {}
    for precision in PRECISIONS:
        run = build("sn-cifar10", device="cuda", precision=precision, width=16)
        found[precision] = torch.cat([g.flatten() for g in run.step()["d_grad"]]).double()
    for precision, limit in {"tf32": 1e-2, "bfloat16": 0.2}.items():
        assert 0 < (found[precision] - found["float32"]).norm() < limit * found["float32"].norm()


@CARD
def test_batches_of_a_file_are_pinned_and_do_not_wait(tmp_path):
    data = noise(recipes["ns-digits"])
    mapped = MappedDataset("file", data.images, data.labels, data.classes, data.levels).to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, _ = mapped.batch(torch.arange(8))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(images.cpu(), data.batch(torch.arange(8))[0])


@CARD
def test_a_step_on_a_card_waits_for_nothing():
    run = build("leakyema-biggan-cifar10", device="cuda")
    run.step(), run.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@CARD
def test_adam_of_a_recorded_step_counts_on_the_device():
    run = build("ns-digits", device="cuda", g_optimizer=Adam(1e-3)).compile(mode="cuda-graph")
    for _ in range(6):
        run.step()
    assert {int(state["step"]) for state in run.g_opt.state.values()} == {6}
