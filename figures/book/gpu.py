"""What one card does: speed and memory of a step, equality with the CPU, NCCL, and packs at full speed.

Measured are training steps of the papers' networks at the batch sizes of their recipes, on noise, since no operation's
time depends on its data. Each network is tried in float32, TF32 and bfloat16, without the layout that has channels
innermost, compiled, and as a CUDA graph. What does not fit or cannot be recorded is a sentence in the result instead
of a number. A measurement that is in the folder is not repeated, so that an interrupted command goes on.

On a CPU the same command runs with the same code, graphs and memory excepted: `--minutes 0.01 --width 4` is the check
before a card is at hand.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch import Tensor

from figures.provenance import command_line, device_name, rounded, stamp
from gankit.data import Dataset
from gankit.data.dataset import MappedDataset
from gankit.device import pick_device, products
from gankit.files import write_json
from gankit.game.play import d_gradient, g_gradient
from gankit.plotting import use_style
from gankit.recipes import Recipe, recipes
from gankit.streams import Streams
from gankit.training import Trainer

NETWORKS: Mapping[str, tuple[str, tuple[int, ...], Mapping[str, Any]]] = {
    "SNGAN-32": ("sn-cifar10", (3, 32, 32), {"loss": "hinge", "width": 128, "n_dis": 5}),
    "BigGAN-32": ("biggan-cifar10", (3, 32, 32), {}),
    "BigGAN-128": (
        "biggan-imagenet128",
        (3, 128, 128),
        {"batch_size": 64, "accumulate": 1},
    ),
    "StyleGAN2-32": ("stylegan2-cifar10", (3, 32, 32), {}),
    "Conv-4": ("ns-mnist-conv4", (1, 28, 28), {}),
}
"""Name -> recipe, shape of a picture, and what is changed; a quarter of BigGAN-128's batch of 256 fits on any card."""

WAYS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "TF32": {"precision": "tf32"},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, channels first": {"precision": "bfloat16", "layout": torch.contiguous_format},
    "bfloat16, CUDA graph": {"precision": "bfloat16", "modes": ("cuda-graph",)},
    "bfloat16, compiled": {"precision": "bfloat16", "modes": ("default",)},
    "bfloat16, compiled, CUDA graph": {"precision": "bfloat16", "modes": ("default", "cuda-graph")},
}
"""How a step is computed."""

WARM = 6
"""Steps before the clock runs: a graph is recorded in the fourth."""
MOST = 50
"""Timed steps of a measurement, at most."""
SIDE = 128
"""Of the pictures of the pack, in pixels."""
SHARE = {"step": 0.75, "packs": 0.1, "collectives": 0.05}
"""Of the minutes. Equality takes a fixed number of steps."""


def compute(
    minutes: float = 6.0,
    networks: str = "",
    ways: str = "",
    width: int = 0,
    batch_size: int = 0,
    pictures: int = 20_000,
    device: str = "auto",
    folder: str = "runs/gpu",
) -> dict[str, Any]:
    """Measure everything.

    Args:
        minutes: to measure for, about; compiling comes on top, about a minute for each network.
        networks: names of `NETWORKS` with commas between them; "" takes all.
        ways: numbers of `WAYS`, from 0, with commas between them; "" takes all.
        width: filters in place of the recipe's; 0 for those.
        batch_size: in place of the recipe's; 0 for that.
        pictures: in the pack, 49 kB each.
        device: "auto", "cpu" or "cuda".
        folder: where finished measurements are kept.

    Returns:
        "steps": network -> way -> "ms", median and extremes of a step; "images_per_second" (real ones that D sees);
        "memory_mb", the most allocated (None on a CPU); or "not" (why). "equal": network -> largest difference of
        gradients on the CPU and on the device over their norm, for "float32" and the other precisions; "collectives"
        and "packs": rates; "ratios": network -> way -> float32's time over this one's; "provenance".

    Raises:
        ValueError: an unknown network or way.
    """
    names = [name for name in networks.split(",") if name] or list(NETWORKS)
    if unknown := set(names) - set(NETWORKS):
        raise ValueError(f"networks must be among {', '.join(NETWORKS)}, got {', '.join(sorted(unknown))}")
    numbers = [int(number) for number in ways.split(",") if number] or list(range(len(WAYS)))
    if not set(numbers) <= set(range(len(WAYS))):
        raise ValueError(f"ways must be numbers from 0 to {len(WAYS) - 1}, got {ways!r}")
    chosen = [list(WAYS)[i] for i in numbers]
    target, kept = pick_device(device), Path(folder)
    begun = time.perf_counter()
    each = 60 * minutes * SHARE["step"] / (len(names) * len(chosen))
    sizes = {"width": width, "batch_size": batch_size}

    def once(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = kept / f"{target.type}-{name.replace(' ', '_')}-{width}-{batch_size}.json"
        if not path.exists():
            write_json(path, attempted(work))
        return json.loads(path.read_text())

    equal = {name: once(f"equal-{name}", lambda n=name: equality(n, target, sizes)) for name in names}
    steps: dict[str, dict[str, Any]] = {name: {} for name in names}
    for way in chosen:  # all networks in one way before the next: the first ones matter most
        for name in names:
            steps[name][way] = once(f"{name}-{way}", lambda n=name, w=way: speed(n, w, target, sizes, each))
    return {
        "steps": steps,
        "equal": equal,
        "collectives": once("collectives", lambda: collectives(target, 60 * minutes * SHARE["collectives"])),
        "packs": once("packs", lambda: packs(target, pictures, 60 * minutes * SHARE["packs"])),
        "ratios": ratios(steps),
        "sizes": sizes,
        "provenance": stamp(
            time.perf_counter() - begun,
            [0],
            ("torch", "numpy"),
            device=card() if target.type == "cuda" else device_name(),
        ),
    }


def attempted(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` finds; or, where it cannot be done here, {"not": why}: one measurement must not cost the others."""
    try:
        return work()
    except Exception as error:  # compilers raise anything
        return {"not": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def card() -> str:
    """The card in words."""
    facts = torch.cuda.get_device_properties(0)
    return f"GPU: {facts.name}, {facts.total_memory / 2**30:.0f} GiB; CUDA {torch.version.cuda}"


def recipe_of(name: str, sizes: Mapping[str, int], precision: str = "float32") -> Recipe:
    """A network's recipe at other sizes, where they are above 0."""
    recipe, _, changes = NETWORKS[name]
    given = {key: value for key, value in sizes.items() if value}
    if name == "StyleGAN2-32" and "width" in given:  # its filters come in groups
        given["width"] = max(16, given["width"])
    return recipes[recipe].changed(dict(changes) | given | {"precision": precision})


def noise(shape: tuple[int, ...], n: int = 512, classes: int = 10) -> Dataset:
    """Random pictures with labels."""
    images = torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset("noise", images, torch.arange(n) % classes, tuple(map(str, range(classes))))


def build(name: str, device: torch.device, sizes: Mapping[str, int], precision: str = "float32") -> Trainer:
    """The run whose step is measured."""
    recipe = recipe_of(name, sizes, precision)
    classes = 1_000 if name == "BigGAN-128" else 10
    return recipe.build([0], data=noise(NETWORKS[name][1], max(512, classes), classes), device=device)


# --- Speed --------------------------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speed(
    name: str, way: str, device: torch.device, sizes: Mapping[str, int], seconds: float
) -> dict[str, Any]:
    """Time and memory of a step: at least one timed step, and at most `MOST` or as many as fit into the seconds."""
    settings = WAYS[way]
    run = build(name, device, sizes, settings.get("precision", "float32"))
    if (layout := settings.get("layout")) is not None:
        for net in (run.G, run.D, run.teacher.net):
            for p in net.parameters():
                p.data = p.data.contiguous(memory_format=layout)
    for mode in settings.get("modes", ()):
        run.compile(mode=mode)
    run.G.train(), run.D.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begun = time.perf_counter()
    for _ in range(WARM if device.type == "cuda" else 1):
        run.step()
    wait(device)
    first = time.perf_counter() - begun
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or (len(taken) < MOST and time.perf_counter() < until):
        begun = time.perf_counter()
        run.step()
        wait(device)
        taken.append(1e3 * (time.perf_counter() - begun))
    images = run.n_dis * run.accumulate * run.batch_size
    return {
        "ms": [rounded(f(taken), 4) for f in (np.median, np.min, np.max)],
        "steps": len(taken),
        "first_seconds": rounded(first, 3),
        "images_per_second": rounded(1e3 * images / float(np.median(taken)), 4),
        "memory_mb": rounded(torch.cuda.max_memory_allocated(device) / 2**20, 4)
        if device.type == "cuda"
        else None,
        "batch_size": run.batch_size,
        "parameters": [sum(p.numel() for p in net.parameters()) for net in (run.G, run.D)],
    }


def ratios(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Network -> way -> how many times as fast as float32 it is."""
    return {
        name: {
            way: rounded(found["float32"]["ms"][0] / one["ms"][0], 3)
            for way, one in found.items()
            if "ms" in one and "ms" in found.get("float32", {})
        }
        for name, found in steps.items()
    }


# --- Equality -----------------------------------------------------------------------------------------------------


class HostStreams(Streams):
    """Streams that draw on the CPU, whatever the device: numbers are then the same on all of them."""

    def __init__(self, seeds: tuple[int, ...], lead: tuple[int, ...], device: torch.device) -> None:
        super().__init__(seeds, lead, "cpu")
        self.target = device

    def each(self, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        return super().each(draw).to(self.target)


def gradients(run: Trainer) -> list[Tensor]:
    """Gradients of D and of G on one minibatch that is the same on every device, on the CPU, in float64."""
    run.streams = HostStreams(run.seeds, run.lead, run.device)
    run.G.train(), run.D.train()
    with products(run.device, run.precision):
        both = [
            *d_gradient(run.play(run.D), run.d_params, run.precision)["d_grad"],
            *g_gradient(run.play(run.G), run.g_params, run.precision)["g_grad"],
        ]
    return [g.double().cpu() for g in both]


def equality(name: str, device: torch.device, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Gradients on the device and on the CPU: norm of the difference over the norm, for each precision."""
    small = dict(sizes) | {"batch_size": min(sizes["batch_size"] or 8, 8)}
    run = build(name, torch.device("cpu"), small)
    weights = copy.deepcopy({"G": run.G.state_dict(), "D": run.D.state_dict()})
    reference = torch.cat([g.flatten() for g in gradients(run)])
    found = {}
    for precision in ("float32", "tf32", "bfloat16"):
        other = build(name, device, small, precision)
        other.G.load_state_dict(weights["G"]), other.D.load_state_dict(weights["D"])
        mine = torch.cat([g.flatten() for g in gradients(other)])
        found[precision] = rounded(float((mine - reference).norm() / reference.norm()), 3)
    return found


# --- Messages and pictures ----------------------------------------------------------------------------------------


def collectives(device: torch.device, seconds: float, numbers: int = 25_000_000) -> dict[str, Any]:
    """Sums over the processes of one card (NCCL) or CPU (gloo), which is one: what a message costs at the least.

    Returns:
        "backend"; "ms" of a sum of `numbers` float32; "exact", whether it gave them back.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    if dist.is_initialized():
        raise ValueError("processes are connected already: run this command without torchrun")
    with tempfile.TemporaryDirectory() as place:
        dist.init_process_group(backend, init_method=f"file://{place}/store", rank=0, world_size=1)
        try:
            x = torch.arange(numbers if device.type == "cuda" else 1_000, dtype=torch.float32, device=device)
            before, taken = x.clone(), []
            until = time.perf_counter() + seconds
            while len(taken) < 2 or (len(taken) < MOST and time.perf_counter() < until):
                begun = time.perf_counter()
                dist.all_reduce(x)
                wait(device)
                taken.append(1e3 * (time.perf_counter() - begun))
            exact = bool(torch.equal(x, before))
        finally:
            dist.destroy_process_group()
    return {"backend": backend, "ms": rounded(float(np.median(taken)), 4), "numbers": len(x), "exact": exact}


def packs(device: torch.device, pictures: int, seconds: float, batch: int = 256) -> dict[str, Any]:
    """How fast batches of a pack, which stays in its file, reach the device, beside the same pictures in its memory.

    Returns:
        "mapped" and "memory", pictures a second; "mb_per_second" of the first, in bytes that are read.
    """
    batch = min(batch, pictures)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "images.npy")
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(pictures, 3, SIDE, SIDE))
        for i in range(0, pictures, batch):
            file[i : i + batch] = rng.integers(0, 256, file[i : i + batch].shape, dtype=np.uint8)
        file.flush()
        del file
        images = torch.from_numpy(np.load(path, mmap_mode="c"))
        labels = torch.zeros(pictures, dtype=torch.long)
        mapped = MappedDataset("pack", images, labels, ("all",)).to(device)
        rates = {}
        for name, data in {
            "mapped": mapped,
            "memory": Dataset("pack", images, labels, ("all",)).to(device),
        }.items():
            generator = torch.Generator(device).manual_seed(0)
            done, begun = 0, time.perf_counter()
            while done < 2 or time.perf_counter() < begun + seconds / 2:
                data.batch(data.draw(batch, generator))
                done += 1
            wait(device)
            rates[name] = rounded(done * batch / (time.perf_counter() - begun), 4)
        del mapped, data, images
    return rates | {"mb_per_second": rounded(rates["mapped"] * 3 * SIDE**2 / 1e6, 4), "pictures": pictures}


# --- Pictures and words -------------------------------------------------------------------------------------------


def draw(result: Mapping[str, Any]) -> Figure:
    """How many times as fast as float32 each way is, a panel for each network."""
    use_style()
    found = result["ratios"]
    figure, axes = plt.subplots(
        1, len(found), figsize=(1 + 2.2 * len(found), 2.8), sharey=True, squeeze=False
    )
    for ax, (name, row) in zip(axes[0], found.items(), strict=True):
        ax.barh(list(row), list(row.values()), color="#0072B2")
        ax.axvline(1, color="black", lw=0.8, ls=":")
        ax.set(xlabel="float32's time / this one's", title=name)
    axes[0, 0].set_ylabel("way")
    axes[0, 0].invert_yaxis()
    return figure


def table(result: Mapping[str, Any]) -> str:
    """A line for each network and way."""
    lines = []
    for name, found in result["steps"].items():
        lines.append(f"{name}: gradients differ from the CPU's by {result['equal'][name]} of their norm")
        for way, one in found.items():
            said = one.get("not") or (
                f"{one['ms'][0]:9.2f} ms  {one['images_per_second']:9.0f} images/s  {one['memory_mb'] or 0:8.0f} MB"
            )
            lines.append(f"  {way:32} {said}")
    lines += [f"{part}: {result[part]}" for part in ("collectives", "packs")]
    return "\n".join(lines)


def main() -> None:
    """The command line, which also prints the table."""
    print(table(json.loads(command_line(compute, draw).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
