"""What commands do with the folder of a run: open it, sample it, write files into it."""

from __future__ import annotations

import argparse
import os

import torch

from gankit.device import pick_device
from gankit.models.sampling import Sampler, standing_statistics
from gankit.recipes import open_run
from gankit.training import Trainer


def opened(arguments: argparse.Namespace, *, needs_data: bool = True) -> Trainer:
    """The run that the flags of `flags.reading` name."""
    return open_run(
        arguments.folder,
        step=arguments.step,
        best=arguments.best,
        device=arguments.device,
        root=arguments.root,
        needs_data=needs_data,
    )


def own_device(device: str) -> torch.device:
    """The device of this process: of several that torchrun started, each has a GPU of its own."""
    found = pick_device(device)
    if found.type == "cuda" and found.index is None and "LOCAL_RANK" in os.environ:
        found = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(found)
    return found


def network_in_words(run: Trainer, arguments: argparse.Namespace) -> str:
    """What was sampled, in words; says so where the average is too young to be of use."""
    standing = f" with statistics of {arguments.standing} batches" if arguments.standing is not None else ""
    if arguments.network == "generator":
        return f"the generator at step {run.steps:,}{standing}"
    text = f"the averaged generator (teacher) at step {run.steps:,}{standing}"
    # After 2 / (1 - alpha) steps the initial weights still count for exp(-2), 14 %.
    if run.steps < 2 / (1 - run.teacher.alpha):
        text += "; it still remembers its initial weights, and --network generator may look better"
    return text


def sampler(run: Trainer, arguments: argparse.Namespace) -> Sampler:
    """What draws the samples that the flags of `flags.reading` ask for."""
    network = run.teacher.net if arguments.network == "teacher" else run.G
    if arguments.standing is not None:
        network = standing_statistics(network, batches=arguments.standing, truncation=arguments.truncation)
    return Sampler(network, arguments.sample_seed, truncation=arguments.truncation)
