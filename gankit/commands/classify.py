"""`gankit classify`: train a classifier on what runs generate."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gankit import data
from gankit.classifiers import read, synthetic
from gankit.classifiers.networks import NETWORKS
from gankit.classifiers.synthetic import Augment, FixedSet, Generated, Protocol, Source
from gankit.commands import flags
from gankit.data import DataError, Dataset, pack_writer
from gankit.device import PRECISIONS
from gankit.files import write_json
from gankit.models.ensemble import lead_shape
from gankit.models.union import Union
from gankit.recipes import open_run
from gankit.training import Trainer

STUDENTS = {"mlp": synthetic.perceptron, "resnet20": synthetic.resnet20, **NETWORKS}
"""Networks that can be trained: (shape of an image, number of classes) -> module."""

ABOUT = """\
Train a classifier on generated images and test it on real ones (Slim 2020,
"Boosting generative networks for incremental learning"). New images are made
for every batch, or --fixed N once; several --from make a mixture.

  gankit classify --from runs/a
      300 batches of 64, a small network
  gankit classify --from runs/a --from runs/b --shares 3 1
      three quarters of the images from the first
  gankit classify --from runs/a --filter --shift 4 --flip \\
      --student resnet20 --paper
      the best column of the paper's table 1
  gankit classify --from runs/a --real
      the baseline: the run's real images, as many steps
"""


def add(commands: flags.Commands) -> None:
    """The flags of `classify`."""
    command = commands.add_parser(
        "classify",
        parents=[flags.common()],
        help="train a classifier on generated images",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--from", type=Path, action="append", required=True, dest="folders", metavar="RUN",
        help="folder of a conditional run; again for several",
    )  # fmt: skip
    command.add_argument(
        "--shares", type=float, nargs="+", help="how often each run is drawn (default: equally)"
    )
    command.add_argument(
        "--network", choices=("teacher", "generator"), default="teacher", help="averaged or current generator"
    )
    command.add_argument("--best", action="store_true", help="the checkpoints that `train --best` kept")
    command.add_argument("--truncation", type=float, metavar="PSI", help="largest |z| (default: none)")
    command.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="float32",
        help="of the generators; bfloat16 takes less time where the processor has it (default: %(default)s)",
    )
    images = command.add_argument_group("images")
    images.add_argument(
        "--fixed", type=flags.positive, metavar="N", help="N images made once, not new ones in each batch"
    )
    images.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the images of --fixed as a pack")
    images.add_argument("--real", action="store_true", help="real images instead: the baseline")
    images.add_argument(
        "--filter", action="store_true", help="only images that a classifier of real ones is sure of"
    )
    images.add_argument(
        "--threshold", type=float, default=0.9, help="how sure, a probability (default: %(default)s)"
    )
    images.add_argument(
        "--judge", type=Path, metavar="FILE",
        help="the filter, of `gankit classifier ... --to FILE` (default: the student's network on real images)",
    )  # fmt: skip
    images.add_argument(
        "--shift", type=int, default=0, help="random crops, by up to so many pixels (default: %(default)s)"
    )
    images.add_argument("--flip", action="store_true", help="mirror half of the images; not for digits")
    student = command.add_argument_group("classifier")
    student.add_argument(
        "--student", choices=tuple(STUDENTS), default="mlp", help="network (default: %(default)s)"
    )
    student.add_argument(
        "--paper", action="store_true", help="180 epochs of 400 batches of 125, learning rate 0.1"
    )
    quick = synthetic.QUICK
    for name, kind in (
        ("epochs", flags.positive),
        ("batches", flags.positive),
        ("batch_size", flags.positive),
    ):
        student.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            help=f"(default: {getattr(quick, name)}; --paper has its own)",
        )
    student.add_argument("--learning-rate", type=float, help=f"of SGD (default: {quick.learning_rate})")
    student.add_argument(
        "--seed", type=flags.seed, default=0, help="of weights, z and order (default: %(default)s)"
    )
    command.add_argument("--test", metavar="PATH", help="test images (default: the data's test split)")
    command.add_argument("--to", type=Path, metavar="FILE", help="write the result as JSON")
    command.set_defaults(run=classify)


def classify(arguments: argparse.Namespace) -> None:
    """Train a classifier on generated images and print how many real ones it gets right."""
    if arguments.keep is not None and arguments.fixed is None:
        raise ValueError("--keep keeps the images of --fixed N, which was not given")
    where = {"best": arguments.best, "device": arguments.device, "root": arguments.root}
    members = [open_run(folder, **where) for folder in arguments.folders]
    run = members[0]
    if any(lead_shape(other.G) for other in members):
        raise ValueError("--from must be a run with one seed, and this one trained several side by side")
    test = _test_images(run, arguments).to(run.device)
    if test.shape != run.data.shape or test.n_classes != run.data.n_classes:
        raise ValueError(f"--test must hold images like {run.data}, got {test}")
    protocol = _protocol(arguments)
    augment = Augment(arguments.shift, arguments.flip) if arguments.shift or arguments.flip else None
    judge = _judge(run, test, protocol, augment, arguments) if arguments.filter else None
    G = Union([m.teacher.net if arguments.network == "teacher" else m.G for m in members], arguments.shares)
    generated = Generated(
        G,
        judge=judge,
        threshold=arguments.threshold,
        truncation=arguments.truncation,
        seed=arguments.seed,
        precision=arguments.precision,
    )
    source = _source(generated, run.data, arguments)
    student = _student(run.data, arguments).to(run.device)
    trained = synthetic.train(
        source, student, test, protocol, augment=augment, seed=arguments.seed, progress=not arguments.quiet
    )
    result = {
        "from": [str(folder) for folder in arguments.folders],
        "images": _in_words(arguments),
        "best": float(trained.best),
        "last": float(trained.last),
        "test images": len(test),
        "steps": protocol.steps,
        "seconds": round(trained.seconds, 1),
    }
    if judge is not None:
        result["share accepted"] = float(generated.share_accepted)
    if arguments.to is not None:
        write_json(arguments.to, result)
    accepted = f", {result['share accepted']:.1%} of images accepted" if judge is not None else ""
    print(
        f"{', '.join(result['from'])}: accuracy {trained.last:.2%} (best epoch {trained.best:.2%}) on {len(test):,} "
        f"real test images after {protocol.steps:,} steps on {result['images']}{accepted}"
    )


def _test_images(run: Trainer, arguments: argparse.Namespace) -> Dataset:
    if arguments.test is not None:
        return data.load(arguments.test, root=arguments.root, size=run.data.shape[-1])
    try:
        return data.load(run.data.name, root=arguments.root, split="test")
    except DataError as error:
        raise DataError(
            f"there are no test images of {run.data.name!r}: give --test PATH ({error})"
        ) from error


def _protocol(arguments: argparse.Namespace) -> Protocol:
    names = ("epochs", "batches", "batch_size", "learning_rate")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return dataclasses.replace(synthetic.PAPER if arguments.paper else synthetic.QUICK, **given)


def _student(images: Dataset, arguments: argparse.Namespace) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        return STUDENTS[arguments.student](images.shape, images.n_classes)


def _judge(
    run: Trainer, test: Dataset, protocol: Protocol, augment: Augment | None, arguments: argparse.Namespace
) -> nn.Module:
    """The filter, read from a file or trained by the student's protocol on the run's real images."""
    if arguments.judge is not None:
        return read(arguments.judge)[0].to(run.device).requires_grad_(False)
    net = _student(run.data, arguments).to(run.device)
    source = FixedSet.real(run.data)
    trained = synthetic.train(source, net, test, protocol, augment=augment, progress=not arguments.quiet)
    return trained.network.requires_grad_(False)


def _source(generated: Generated, real: Dataset, arguments: argparse.Namespace) -> Source:
    if arguments.real:
        return FixedSet.real(real)
    if arguments.fixed is None:
        return generated
    made = synthetic.make_set(
        generated,
        arguments.fixed,
        name=f"generated-{real.name}",
        classes=real.classes,
        progress=not arguments.quiet,
    )
    if arguments.keep is not None:
        pack_writer.pack(pack_writer.from_dataset(made), arguments.keep, progress=not arguments.quiet)
    return FixedSet.real(made.to(real.device))


def _in_words(arguments: argparse.Namespace) -> str:
    if arguments.real:
        kind: list[Any] = ["real images"]
    else:
        kind = [
            "new images in each batch" if arguments.fixed is None else f"{arguments.fixed:,} fixed images"
        ]
        if arguments.truncation is not None:
            kind.append(f"|z| <= {arguments.truncation:g}")
        if arguments.filter:
            kind.append(f"filtered at {arguments.threshold:g}")
    if arguments.shift:
        kind.append(f"shifted by up to {arguments.shift}")
    if arguments.flip:
        kind.append("mirrored")
    return ", ".join(kind)
