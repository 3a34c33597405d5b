"""A plan on paper for a large run: operations, memory, all-reduce and reading, for any number of devices.

Counts come from the networks themselves (`count`); what a device can do is measured or stated by its maker; the rest is
arithmetic (`plan`). `gankit.recipes.operations` counts every operation of a recipe's step, backwards too; here the step
is predicted from the forward passes of one image, as on paper, and a test compares the two. `compute` plans a recipe,
BigGAN on ImageNet at 128 x 128 pixels, as it stands and as one might start it on one GPU, on 8, on 8 nodes of 8; and it
asks what share of their GPUs' peak the authors of the PyTorch code reached.

Sources: the ring all-reduce of Patarasuk and Yuan (2009); the README and `launch_BigGAN_bs256x8.sh` of BigGAN-PyTorch
(8 V100s, full precision: 15 days for 150,000 iterations of 2,048 images and one discriminator step).
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from figures.provenance import command_line, rounded, stamp
from gankit.data import sample_shape
from gankit.models.sampling import generate, score
from gankit.plotting import use_style
from gankit.recipes import recipes


@dataclass(frozen=True)
class Counts:
    """What one image costs in a pair of networks.

    Attributes:
        g_parameters, d_parameters: numbers of float32 parameters.
        g_flops, d_flops: operations of one forward pass, in matrix products and convolutions; a product and a sum
            are two.
        g_saved, d_saved: bytes that autograd keeps of one image between the forward and the backward pass.
        image_bytes: of one image as it is stored, one byte for each value.
        g_norms: layers of batch normalisation in the generator, whose statistics are those of the joint batch.
    """

    g_parameters: int
    d_parameters: int
    g_flops: float
    d_flops: float
    g_saved: float
    d_saved: float
    image_bytes: int
    g_norms: int = 0


@dataclass(frozen=True)
class Machine:
    """Devices that work on one run.

    Attributes:
        devices: how many, >= 1.
        per_node: how many of them share a node.
        flops: operations per second that one device reaches in this network (not its peak).
        link: bytes per second and device and direction between the devices of a node.
        network: the same between nodes.
        latency: seconds until a message arrives.
    """

    devices: int
    per_node: int
    flops: float
    link: float
    network: float
    latency: float

    def __post_init__(self) -> None:
        if self.devices < 1 or self.per_node < 1:
            raise ValueError(
                f"devices and per_node must be at least 1, got {self.devices} and {self.per_node}"
            )
        if self.devices > self.per_node and self.devices % self.per_node:
            raise ValueError(
                f"devices must fill whole nodes: got {self.devices} devices, {self.per_node} in a node"
            )
        for name in ("flops", "link", "network"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.latency < 0:
            raise ValueError(f"latency must be at least 0 s, got {self.latency}")


def count(G: nn.Module, D: nn.Module, shape: tuple[int, ...], batch: int = 2) -> Counts:
    """Operations and memory of one image, from one forward pass.

    Args:
        G, D: the networks; under `FakeTensorMode` nothing is computed and nothing allocated.
        shape: of an image, channels first.
        batch: images in the pass; results are per image.
    """
    z = torch.zeros(batch, G.z_dim)
    labels = torch.zeros(batch, dtype=torch.long) if getattr(G, "n_classes", 0) else None

    def forward(run: Any) -> tuple[Tensor, float, float]:
        saved: dict[tuple, int] = {}

        def keep(x: Tensor) -> Tensor:
            # A view shares its storage; a parameter is no activation.
            if not isinstance(x, nn.Parameter):
                saved[id(x.untyped_storage())] = x.untyped_storage().nbytes()
            kept.append(x)
            return x

        kept: list[Tensor] = []  # so that no storage's id is used twice
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            out = run()
        return out, counter.get_total_flops() / batch, sum(saved.values()) / batch

    fake, g_flops, g_saved = forward(lambda: generate(G, z, labels))
    _, d_flops, d_saved = forward(lambda: score(D, fake.detach(), labels))
    return Counts(
        sum(p.numel() for p in G.parameters()),
        sum(p.numel() for p in D.parameters()),
        g_flops,
        d_flops,
        g_saved,
        d_saved,
        int(np.prod(shape)),
        sum(isinstance(layer, nn.BatchNorm2d) for layer in G.modules()),
    )


def step_flops(counts: Counts, batch: int, n_dis: int, beta: float = 0.0) -> float:
    """Operations of one generator step with its discriminator steps, for a minibatch.

    A backward pass costs two forward passes, one for the inputs' gradients and one for the parameters'. A
    discriminator step generates (forward only) and trains D on real and on generated images; the generator step
    trains G through D, whose parameters need no gradient then. LeakyEMA generates `beta * batch` images more in each
    discriminator step. Not counted: gradients of the first layers' inputs, which nobody needs; what does not grow with
    the batch, such as the singular values that a spectrally normalised teacher computes in each of its passes.

    Args:
        counts: of one image.
        batch: images of each kind in a minibatch.
        n_dis: discriminator steps.
        beta: LeakyEMA's share, in [0, 1].
    """
    d_step = (1 + beta) * counts.g_flops + 3 * 2 * counts.d_flops
    g_step = 3 * counts.g_flops + 2 * counts.d_flops
    return batch * (n_dis * d_step + g_step)


def all_reduce_seconds(size: float, machine: Machine) -> float:
    """Time to add `size` bytes of gradients over all devices, inside nodes and then between them.

    A ring of n devices sends each byte 2 (n - 1) / n times, in 2 (n - 1) messages. Between nodes each device carries
    on with its own share of the sum, one over the number of devices of a node.
    """

    def ring(n: int, size: float, bandwidth: float) -> float:
        return 2 * (n - 1) / n * size / bandwidth + 2 * (n - 1) * machine.latency

    inside = min(machine.devices, machine.per_node)
    nodes = machine.devices // inside
    return ring(inside, size, machine.link) + ring(nodes, size / inside, machine.network)


def plan(
    counts: Counts,
    machine: Machine,
    *,
    batch: int,
    n_dis: int,
    beta: float = 0.0,
    accumulate: int = 1,
    precision: str = "float32",
) -> dict[str, float]:
    """What one generator step takes on a machine, communication and computing one after the other.

    Args:
        counts: of one image.
        machine: the devices.
        batch: images of each kind in the joint minibatch; a multiple of the number of devices.
        n_dis: discriminator steps per generator step.
        beta: LeakyEMA's share.
        accumulate: minibatches of `batch` images whose gradients make one step; each has statistics of its own.
        precision: of the activations, a key of `PEAKS`; what `machine` reaches must be given for the same.

    Returns:
        "compute_s", "all_reduce_s" (gradients), "norm_s" (batch norm's statistics) and "step_s" in seconds;
        "images_per_s" and "read_bytes_per_s", of all devices, real images as uint8. For each device "state_bytes"
        (float32 parameters, gradients, two moments of Adam, the averaged generator) and "activation_bytes" (of a
        discriminator step with its real and generated images in one pass, or of a generator step if that is more).

    Raises:
        ValueError: a batch that the devices cannot share equally, or an unknown precision.
    """
    if batch % machine.devices:
        raise ValueError(f"batch must be a multiple of the {machine.devices} devices, got {batch}")
    if precision not in PEAKS:
        raise ValueError(f"precision must be one of {', '.join(PEAKS)}, got {precision!r}")
    compute = accumulate * step_flops(counts, batch // machine.devices, n_dis, beta) / machine.flops
    reduce = n_dis * all_reduce_seconds(4 * counts.d_parameters, machine) + all_reduce_seconds(
        4 * counts.g_parameters, machine
    )
    # Two numbers for each channel: a message's latency is all that counts. The generator's layers are passed once in
    # each discriminator step, and forwards and backwards in its own.
    norm = accumulate * (n_dis + 2) * counts.g_norms * all_reduce_seconds(0, machine)
    step = compute + reduce + norm
    local = batch // machine.devices
    return {
        "compute_s": compute,
        "all_reduce_s": reduce,
        "norm_s": norm,
        "step_s": step,
        "images_per_s": n_dis * accumulate * batch / step,
        "read_bytes_per_s": n_dis * accumulate * batch * counts.image_bytes / step,
        "state_bytes": 4.0 * (5 * counts.g_parameters + 4 * counts.d_parameters),
        "activation_bytes": local
        * max(2 * counts.d_saved, counts.g_saved + counts.d_saved)
        / (2 if precision == "bfloat16" else 1),
    }


PEAKS = {"float32": 67e12, "tf32": 495e12, "bfloat16": 989e12}
"""Operations a second of an H100 SXM at its peak, as its maker states them; float32 without tensor cores."""

REACHED = 0.25
"""The share of the peak that is assumed to be reached."""

STATED = {"link": 450e9, "network": 50e9, "latency": 10e-6}
"""NVLink 4 (450 GB/s in each direction), one 400 Gb/s port for each GPU; the latency is an assumption."""

V100_PEAK, V100_DEVICES, V100_STEP = 15.7e12, 8, 15 * 86_400 / 150_000
"""Of a V100 SXM2 in float32, which has no TF32; the authors' GPUs, and their seconds for one iteration."""


def starts(recipe: str = "leakyema-biggan-imagenet128") -> dict[str, dict[str, Any]]:
    """Ways to start a recipe: devices, batch, accumulate and precision of each, by name.

    The first is the recipe on one GPU, without a flag; the others say what `--precision`, `--batch-size`,
    `--accumulate` and more processes change. Each step has the recipe's number of images.
    """
    as_is = {"batch": recipes[recipe].batch_size, "accumulate": recipes[recipe].accumulate}
    as_is |= {"devices": 1, "precision": recipes[recipe].precision}
    joint = {"batch": as_is["batch"] * as_is["accumulate"], "accumulate": 1}
    half = {"precision": "bfloat16"}
    return {
        "1 GPU": as_is,
        "1 GPU, bfloat16": as_is | half,
        "8 GPUs": as_is | {"devices": 8},
        "8 GPUs, tf32": as_is | {"devices": 8, "precision": "tf32"},
        "8 GPUs, bfloat16": as_is | half | {"devices": 8},
        "64 GPUs, bfloat16": as_is | half | {"devices": 64},
        "64 GPUs, in one part": as_is | half | joint | {"devices": 64},
    }


def machine_of(devices: int, precision: str) -> Machine:
    """H100s, 8 in a node, at `REACHED` of their peak in a precision."""
    return Machine(devices, 8, PEAKS[precision] * REACHED, **STATED)


def compute(recipe: str = "leakyema-biggan-imagenet128") -> dict[str, Any]:
    """The plans for a recipe, while the leak is on.

    Args:
        recipe: the name of one with a leak and pictures of a known size.

    Returns:
        "counts", "recipe" (what the plan takes from it), "starts", "machines" and "plans" (by name), "flops" (of a step
        with the leak, and "before" it), "days" (of all steps, by name), "authors" (the step of BigGAN-PyTorch: its
        operations, seconds, and the share of the peak of their V100s), "provenance".
    """
    begun = time.perf_counter()
    settings = recipes[recipe]
    shape, n_classes = sample_shape(settings.data, settings.size)
    with FakeTensorMode():
        counts = count(*settings.networks(shape, 0, n_classes), shape)
    n_dis, beta, images = settings.n_dis, settings.leak.beta, settings.batch_size * settings.accumulate
    before = step_flops(counts, images, n_dis)
    ways, plans, days = starts(recipe), {}, {}
    machines = {name: machine_of(way["devices"], way["precision"]) for name, way in ways.items()}
    for name, way in ways.items():
        rest = {"n_dis": n_dis} | {key: way[key] for key in ("batch", "accumulate", "precision")}
        plans[name] = plan(counts, machines[name], beta=beta, **rest)
        early = plan(counts, machines[name], **rest)["step_s"]
        leaking = settings.steps - settings.leak.start
        days[name] = (settings.leak.start * early + leaking * plans[name]["step_s"]) / 86_400
    kept = ("n_dis", "batch_size", "accumulate", "precision", "steps")
    leak = {"leak_beta": beta, "leak_start": settings.leak.start}
    return {
        "recipe": {"name": recipe} | {name: getattr(settings, name) for name in kept} | leak,
        "counts": asdict(counts),
        "starts": ways,
        "machines": {name: asdict(machine) for name, machine in machines.items()},
        "flops": {"before": before, "leaking": step_flops(counts, images, n_dis, beta)},
        "plans": {name: {key: rounded(x) for key, x in values.items()} for name, values in plans.items()},
        "days": {name: rounded(x) for name, x in days.items()},
        "authors": {
            "step_s": V100_STEP,
            "flops": before,
            "peak": V100_PEAK,
            "devices": V100_DEVICES,
            "share": rounded(before / (V100_PEAK * V100_DEVICES * V100_STEP)),
        },
        "provenance": stamp(time.perf_counter() - begun, packages=("torch",)),
    }


def draw(result: dict[str, Any]) -> Figure:
    """Left: where a step's time goes, as shares, with its length; right: memory of each device, and that of one GPU."""
    use_style()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
    names, plans = list(result["plans"]), list(result["plans"].values())
    parts = {"compute_s": ("computing", "#0072B2"), "all_reduce_s": ("gradients", "#E69F00")}
    parts |= {"norm_s": ("batch norm", "#D55E00")}
    start = np.zeros(len(names))
    for key, (label, color) in parts.items():
        shares = np.array([p[key] / p["step_s"] for p in plans])
        left.barh(names, shares, left=start, label=label, color=color)
        start += shares
    for name, p in zip(names, plans, strict=True):
        left.annotate(f"{p['step_s']:.3f} s", (0.02, name), color="white", va="center")
    left.set_xlabel("share of a step")
    left.invert_yaxis()
    left.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    memory = {"activation_bytes": ("activations", "o"), "state_bytes": ("parameters, Adam", "s")}
    for key, (label, marker) in memory.items():
        right.plot([p[key] / 1e9 for p in plans], names, marker, color="#0072B2", mfc="none", label=label)
    right.axvline(80, color="black", lw=0.8, ls=":")
    right.set(xlabel="GB on each device (dotted: 80)", xscale="log")
    right.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


if __name__ == "__main__":
    command_line(compute, draw)
