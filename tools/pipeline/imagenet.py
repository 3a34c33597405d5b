"""Every command that a BigGAN on ImageNet needs, one after the other and killed twice, at a size for two cores.

    python -m tools.pipeline.imagenet --data imagenet1k-sample.zip

The commands are those of the full size; networks, batch and number of steps are small. So this is a test of the
pipeline (packing, several processes, restarts, evaluation), and no test of the method: after a hundred steps of a few
pictures each, a generator draws stains. Stages that are done leave a file in the folder and are not done again.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from figures.book import cluster, cluster_check
from figures.book.imagenet_pipeline import Row, attempts, draw, rows_from
from figures.leakyema import fig09_truncation, fig14_classes
from figures.provenance import command_line, load, rounded, save, stamp
from gankit import metrics
from gankit.data.packs import BLOCK
from gankit.metrics.features import FeatureSpace
from gankit.models.sampling import Sampler
from gankit.recipes import Recipe, operations, recipes
from gankit.recipes.records import differences
from tools.pipeline.watched import (
    ENVIRONMENT,
    POLL,
    Failed,
    Observer,
    difference,
    done,
    gankit,
    in_words,
    repeated,
    rows_of,
    run,
    step_seconds,
    torchrun,
    traced,
)

RECIPE = "leakyema-biggan-imagenet128"
IMAGES = 1_281_167
"""Training pictures of ImageNet."""

METRICS = ("precision", "recall", "density", "coverage")
SIDE = 8
"""Pixels of a side to which pictures are averaged for the sweep: 1,000 pictures give a covariance of 8 x 8 x 3 numbers
a meaning, and none of 128 x 128 x 3."""

# --- Packing ------------------------------------------------------------------------------------------------------


def blocks_done(partial: Path) -> tuple[int, int]:
    """Of a pack that is being written: blocks in its journal, and blocks that there will be (0 if not known yet)."""
    try:
        lines = (partial / "done.jsonl").read_text(encoding="utf-8").split("\n")
        n = np.load(partial / "pack" / "images.npy", mmap_mode="r").shape[0]
    except (OSError, ValueError):
        return 0, 0
    return sum(line.startswith("[") for line in lines), -(-n // BLOCK)


def kill_half_way(partial: Path) -> Callable[[subprocess.Popen], None]:
    """Wait until half of the blocks are written, and kill."""

    def act(process: subprocess.Popen) -> None:
        while process.poll() is None:
            have, of = blocks_done(partial)
            if of and have >= of / 2:
                process.kill()
                return
            time.sleep(POLL / 10)

    return act


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def pack(data: Path, folder: Path, size: int) -> dict[str, Any]:
    """Pack, killed half way; pack again; pack another time without a kill; compare; verify.

    Raises:
        Failed: packing ended before it could be killed, or the bytes differ.
    """
    for name in ("pack", "whole", ".pack.partial", ".whole.partial"):
        shutil.rmtree(folder / name, ignore_errors=True)
    command = gankit("pack", data, "pack", "--size", size)
    killed, _ = run(command, folder, kill_half_way(folder / ".pack.partial"))
    have, of = blocks_done(folder / ".pack.partial")
    if killed["code"] != -9 or not 0 < have < of:
        raise Failed(
            f"packing was to be killed half way, and ended with {killed['code']} at {have} of {of} blocks"
        )
    again, _ = done(command, folder)

    span: list[float] = []

    def clock(process: subprocess.Popen) -> None:
        while process.poll() is None and len(span) < 2:
            if (folder / ("whole" if span else ".whole.partial")).exists():
                span.append(time.perf_counter())
            time.sleep(POLL / 10)

    whole, _ = done(gankit("pack", data, "whole", "--size", size), folder, meanwhile=clock)
    ours, theirs = digests(folder / "pack"), digests(folder / "whole")
    if ours != theirs:
        raise Failed(f"the interrupted pack has other bytes than the other one: {ours} and {theirs}")
    shutil.rmtree(folder / "whole")
    verified, said = done(gankit("verify", "pack"), folder)
    shape = np.load(folder / "pack" / "images.npy", mmap_mode="r").shape
    return {
        "commands": [in_words(c, data) for c in (command, gankit("verify", "pack"))],
        "parts": {"killed": killed, "again": again, "uninterrupted": whole, "verify": verified},
        "shape": list(shape),
        "classes": len(np.unique(np.load(folder / "pack" / "labels.npy"))),
        "bytes": sum(p.stat().st_size for p in (folder / "pack").iterdir()),
        "blocks_at_kill": have,
        "blocks": of,
        "same_bytes": ours == theirs,
        "sha256": ours,
        "verified": "every checksum is right" in said,
        "pictures_per_s": rounded(shape[0] / (span[1] - span[0]), 3),
    }


# --- Training -----------------------------------------------------------------------------------------------------


def train_command(recipe: Recipe, steps: int, save_every: int, out: str) -> list[str]:
    """Words of `gankit train`, with every field in which the recipe differs from the named one."""
    words = ["train", RECIPE]
    for name, value in differences(recipe, recipes[RECIPE]).items():
        if name != "steps":
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--steps", str(steps), "--save-every", str(save_every), "--log-every", "1"]
    return [*words, "--device", "cpu", "--out", out]


def train(folder: Path, data: Path, recipe: Recipe, save_every: int, kill_at: int) -> dict[str, Any]:
    """Train on two processes, of which one is killed.

    Raises:
        Failed: none was killed, or the run did not end at the last step with finite costs.
    """
    shutil.rmtree(folder / "run", ignore_errors=True)
    command = torchrun(*train_command(recipe, recipe.steps, save_every, "run"))
    watched = Observer(folder / "run" / "log.jsonl", kill_at)
    ran, said = done(command, folder, meanwhile=watched)
    rows = watched.rows
    resumed = [int(step.replace(",", "")) for step in re.findall(r"going on from step ([\d,]+)", said)]
    _check_end(folder, recipe.steps, rows)
    if watched.killed_s is None or len(resumed) != 1:
        raise Failed(f"one process was to be killed once; the run was resumed from {resumed}")
    twice = repeated(rows)
    return {
        "commands": [in_words(command, data)],
        "parts": {"train": ran},
        "killed_s": rounded(watched.killed_s, 6),
        "killed_at_step": attempts(rows)[0][-1]["step"],
        "resumed_from": resumed[0],
        "end": recipe.steps,
        "steps_done_twice": len(twice),
        "difference_of_repeats": rounded(difference(rows), 3),
        "trace": traced(rows),
    }


def go_on(folder: Path, data: Path, recipe: Recipe, steps: int) -> dict[str, Any]:
    """The same folder, on one process."""
    command = gankit(*train_command(recipe, steps, recipe.steps, "run"))
    watched = Observer(folder / "run" / "log.jsonl")
    ran, said = done(command, folder, meanwhile=watched)
    rows = watched.rows
    _check_end(folder, steps, rows)
    resumed = re.search(r"going on from step ([\d,]+)", said)
    return {
        "commands": [in_words(command, data)],
        "parts": {"train": ran},
        "resumed_from": int(resumed[1].replace(",", "")) if resumed else 0,
        "end": steps,
        "logged_once": [row["step"] for row in rows_of(folder / "run" / "log.jsonl")]
        == list(range(1, steps + 1)),
        "trace": traced(rows),
    }


def _check_end(folder: Path, steps: int, rows: Sequence[Row]) -> None:
    logged = rows_of(folder / "run" / "log.jsonl")
    if [row["step"] for row in logged] != list(range(1, steps + 1)):
        raise Failed(
            f"the log of {steps} steps holds {len(logged)} rows, the last at step {logged[-1]['step']}"
        )
    if not np.isfinite([[row["d_loss"], row["g_loss"]] for row in rows]).all():
        raise Failed("a cost is not finite")


# --- Speed --------------------------------------------------------------------------------------------------------


def speed(folder: Path, data: Path, recipe: Recipe, steps: int) -> dict[str, Any]:
    """Two runs that know nothing of each other, each with half of the batch; and the messages of two processes."""
    half = recipe.changed(
        {"batch_size": recipe.batch_size // 2, "leak_start": recipe.steps, "ema_start": recipe.steps}
    )
    names = ("apart-0", "apart-1")
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
    commands = [gankit(*train_command(half, steps, steps, name)) for name in names]

    watched = Observer(folder / names[1] / "log.jsonl")
    ran, _ = done(commands[0], folder, meanwhile=lambda _: done(commands[1], folder, meanwhile=watched))
    apart = [step_seconds(rows_of(folder / name / "log.jsonl"), 1, steps) for name in names]
    begun = time.perf_counter()
    (together,) = cluster_check.measured((2,), 4, 4, 2)
    return {
        "commands": [in_words(c, data) for c in commands],
        "parts": {
            "apart": ran,
            "messages": {"seconds": rounded(time.perf_counter() - begun, 4), "cpu_seconds": None, "code": 0},
        },
        "step_s": rounded(apart),
        "step_cpu_s": rounded(step_seconds(watched.rows, 1, steps, "cpu_s")),
        "messages_s": rounded(together["messages_s"]),
    }


def predict(
    recipe: Recipe,
    size: int,
    classes: int,
    measured: Mapping[str, Any],
    train: Mapping[str, Any],
    alone: Mapping[str, Any],
) -> dict[str, Any]:
    """Seconds of a step by the plan of `figures.book.cluster` and by the logs, in three phases of the run.

    Returns:
        "machine"; "counts"; "flops", operations of a step with the mean beta of the run; and "phases": name -> "step"
        and "cpu", the time that passes and the processor's in each process -> "predicted_s", "measured_s" and
        "ratio" of the two. On a machine that others use, too, only the second can be foretold.
    """
    with FakeTensorMode():
        counts = cluster.count(*recipe.networks((3, size, size), 0, classes), (3, size, size))
    small, large = measured["messages_s"]
    sizes = cluster_check.MESSAGES
    bandwidth = (sizes[1] - sizes[0]) / max(large - small, 1e-9)
    flops = cluster.step_flops(counts, recipe.batch_size // 2, recipe.n_dis) / max(measured["step_s"])
    two = cluster.Machine(2, 2, flops, bandwidth, bandwidth, max(0.0, small - sizes[0] / bandwidth) / 2)
    one = dataclasses.replace(two, devices=1, per_node=1)
    mean_beta = recipe.leak.beta * (recipe.steps - recipe.leak.start) / recipe.steps
    busy = cluster.step_flops(counts, recipe.batch_size // 2, recipe.n_dis) / measured["step_cpu_s"]
    first, second = rows_from(train["trace"]), rows_from(alone["trace"])
    phases = {
        "two processes": (two, 0.0, first, 1, recipe.leak.start),
        "two processes, leaking": (two, recipe.leak.beta, first, recipe.leak.start, train["end"]),
        "one process, leaking": (one, recipe.leak.beta, second, train["end"], alone["end"]),
    }
    found = {}
    for name, (machine, beta, rows, *steps) in phases.items():
        settings = {"batch": recipe.batch_size, "n_dis": recipe.n_dis, "beta": beta}
        found[name] = {
            "step": _beside(cluster.plan(counts, machine, **settings)["step_s"], step_seconds(rows, *steps)),
            "cpu": _beside(
                cluster.plan(counts, dataclasses.replace(machine, flops=busy), **settings)["compute_s"],
                step_seconds(rows, *steps, "cpu_s"),
            ),
        }
    return {
        "counts": asdict(counts),
        "machine": {key: v if isinstance(v, int) else rounded(v) for key, v in asdict(two).items()},
        "flops": rounded(cluster.step_flops(counts, recipe.batch_size, recipe.n_dis, mean_beta)),
        "phases": found,
    }


def _beside(predicted: float, measured: float | None) -> dict[str, float | None]:
    if measured is None:
        raise Failed("too few steps to measure their time")
    found = {"predicted_s": predicted, "measured_s": measured, "ratio": predicted / measured}
    return {name: rounded(value) for name, value in found.items()}


# --- Looking at it ------------------------------------------------------------------------------------------------


def evaluate(folder: Path, data: Path, n: int) -> dict[str, Any]:
    """`gankit evaluate` and `gankit sample` of the averaged generator and of the current one."""
    commands, parts, scores, pictures = [], {}, {}, {}
    for network in ("teacher", "generator"):
        flags = ("run", "--network", network, "--device", "cpu")
        command = gankit(
            "evaluate", *flags, "-n", n, "--metrics", *METRICS, "--no-errors", "--to", f"{network}.json"
        )
        parts[f"evaluate {network}"], _ = done(command, folder)
        stored = json.loads((folder / f"{network}.json").read_text(encoding="utf-8"))
        scores[network] = {name: rounded(value, 4) for name, value in stored["scores"].items()}
        sampling = gankit("sample", *flags, "-n", 9, "--to", f"{network}.png")
        parts[f"sample {network}"], _ = done(sampling, folder)
        pictures[network] = small_jpeg(folder / f"{network}.png")
        commands += [in_words(command, data), in_words(sampling, data)]
    return {"commands": commands, "parts": parts, "n": n, "scores": scores, "samples": pictures}


def small_jpeg(path: Path, width: int = 320) -> str:
    """A picture of at most that width, as the text of a JPEG file."""
    picture = Image.open(path).convert("RGB")
    picture.thumbnail((width, width), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def coarse() -> FeatureSpace:
    """Pictures averaged to 8 x 8 pixels: colours and their places, and nothing that has a name."""
    return FeatureSpace(
        f"{SIDE} x {SIDE} pixels",
        lambda x: nn.functional.adaptive_avg_pool2d(x, SIDE).flatten(1),
        rule="averaged",
    )


def compare(fake: torch.Tensor, some: torch.Tensor, real: torch.Tensor) -> dict[str, float]:
    """Frechet distance to all real features, precision and recall against some of them, each `[N, d]`."""
    near = metrics.precision_recall(some, fake, fig09_truncation.K)
    distance = float(metrics.frechet_distance(fake, real))
    return {
        "FD": rounded(distance, 4),
        "precision": rounded(near.precision, 4),
        "recall": rounded(near.recall, 4),
    }


def sweep(folder: Path, n: int, classes: Sequence[int]) -> dict[str, Any]:
    """Figure 9's limits on |z|, and figure 14's scores of chosen classes or why there are none.

    Figure 15 needs an Inception Score: a classifier of the thousand classes, which one picture of each cannot train.

    Args:
        folder: with the run.
        n: samples at each limit, and pictures that they are compared with for precision and recall.
        classes: labels for figure 14.

    Returns:
        "limits", and for each of them "FD" (to all pictures), "precision" and "recall" of the averaged generator;
        "real": the same of n other pictures, with those left out of the reference; "classes": name -> scores, or
        "refused" and why; "space", "n", "commands" and "parts".
    """
    begun, used = time.perf_counter(), time.process_time()
    space = coarse()
    with contextlib.chdir(folder):
        player = fig09_truncation.players(run="run")["run"]
    real = fig09_truncation.seen(player.data.normalise(player.data.images), space)
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    some, others = real[order[:n]], real[order[n : 2 * n]]
    found = []
    for limit in fig09_truncation.LIMITS:
        batches = Sampler(player.net, 1, truncation=limit).batches(n, 64)
        fake = torch.cat([fig09_truncation.seen(images, space) for images, _ in batches])
        found.append(compare(fake, some, real))
    inside: dict[str, Any] = {}
    for label in classes:
        name = player.data.classes[label]
        try:
            inside[name] = fig14_classes.scores(player, space, label, n)
        except ValueError as error:
            inside[name] = {"refused": str(error)}
    return {
        "commands": [],
        "parts": {
            "sweep": {
                "seconds": rounded(time.perf_counter() - begun, 4),
                "cpu_seconds": rounded(time.process_time() - used, 4),
                "code": 0,
            }
        },
        "space": space.name,
        "n": n,
        "limits": list(fig09_truncation.LIMITS),
        **{key: [one[key] for one in found] for key in ("FD", "precision", "recall")},
        "real": compare(others, some, torch.cat([some, real[order[2 * n :]]])),
        "classes": inside,
    }


# --- All of it ----------------------------------------------------------------------------------------------------


def stage(folder: Path, name: str, action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a stage found, or what it had found when it was done before."""
    path = folder / f"stage-{name}.json"
    if not path.exists():
        save(action(), path)
    return json.loads(path.read_text(encoding="utf-8"))


def compute(
    data: str = "imagenet1k-sample.zip",
    folder: str = "runs/imagenet-pipeline",
    size: int = 128,
    width: int = 8,
    batch: int = 8,
    steps: int = 60,
    more: int = 20,
    save_every: int = 15,
    kill_at: int = 37,
    leak_start: int = 20,
    n: int = 400,
    classes: str = "937,980,800",
) -> dict[str, Any]:
    """The whole pipeline.

    Args:
        data: a folder or zip file of pictures.
        folder: where packs, runs and the results of the stages lie; stages that have one are not done again.
        size: side in pixels.
        width: filters of the networks next to the picture.
        batch: pictures of each kind in the joint minibatch, an even number.
        steps, more: generator steps on two processes, and then on one.
        save_every: steps between two checkpoints.
        kill_at: step after which one of two processes is killed.
        leak_start: step at which leaking begins.
        n: samples that are evaluated.
        classes: labels for figure 14, separated by commas.

    Returns:
        "settings"; "environment"; "stages": name -> its commands, the time of its parts, and what it found; "speed",
        see `predict`; "full": the recipe's own size; "provenance". JSON-able.

    Raises:
        Failed: a stage did not do what it should.
        ValueError: the folder holds stages of other settings.
    """
    settings = {
        "data": Path(data).name, "size": size, "width": width, "batch": batch, "steps": steps, "more": more,
        "save_every": save_every, "kill_at": kill_at, "leak_start": leak_start, "n": n, "classes": classes,
    }  # fmt: skip
    source, place = Path(data).resolve(), Path(folder).resolve()
    place.mkdir(parents=True, exist_ok=True)
    if stage(place, "settings", lambda: settings) != settings:
        raise ValueError(f"{folder} holds stages of other settings: remove it, or give another folder")
    recipe = recipes[RECIPE].changed({
        "data": "pack", "size": size, "width": width, "batch_size": batch, "accumulate": 1, "steps": steps,
        "leak_start": leak_start, "ema_start": save_every // 2, "ema_decay": 0.95,
    })  # fmt: skip
    chosen = [int(label) for label in classes.split(",")]
    stages = {
        "pack": stage(place, "pack", lambda: pack(source, place, size)),
        "speed": stage(place, "speed", lambda: speed(place, source, recipe, 6)),
        "two": stage(place, "two", lambda: train(place, source, recipe, save_every, kill_at)),
        "one": stage(place, "one", lambda: go_on(place, source, recipe, steps + more)),
        "evaluate": stage(place, "evaluate", lambda: evaluate(place, source, n)),
        "sweep": stage(place, "sweep", lambda: sweep(place, n // 2, chosen)),
    }
    parts = [part for one in stages.values() for part in one["parts"].values()]
    known, full = load("book/cluster"), recipes[RECIPE]
    return {
        "settings": settings,
        "environment": ENVIRONMENT,
        "recipe": {
            "n_dis": recipe.n_dis,
            "leak_beta": recipe.leak.beta,
            "ema_start": recipe.ema.start,
            "ema_decay": recipe.ema.decay,
        },
        "stages": stages,
        "speed": predict(
            recipe, size, stages["pack"]["classes"], stages["speed"], stages["two"], stages["one"]
        ),
        "operations": rounded(operations.of_recipe(recipe).step),
        "full": {
            "width": full.networks.width,
            "batch": full.batch_size * full.accumulate,
            "steps": full.steps,
            "leak_start": full.leak.start,
            "images": IMAGES,
            "operations": rounded(operations.of_recipe(full).step),
            "parameters": [known["counts"]["g_parameters"], known["counts"]["d_parameters"]],
        },
        "provenance": stamp(sum(part["seconds"] for part in parts), [0], ("torch", "numpy", "pillow")),
    }


if __name__ == "__main__":
    command_line(compute, draw, threads=1)
