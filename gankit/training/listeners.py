"""What listens to a run: it is told every row of the log, for dashboards and pictures.

A *listener* is any function of the run and a row (a dict: "step", "images", "seconds", costs, norms, measurements).
Of several processes, process 0 calls it. What it raises stops the run. Weights & Biases takes three lines, and MLflow
three others::

    import wandb
    wandb.init(project="gans", config=run.recipe)
    run.fit(10_000, listeners=[lambda run, row: wandb.log(numbers(row), step=row["step"])])

    import mlflow
    with mlflow.start_run():
        run.fit(10_000, listeners=[lambda run, row: mlflow.log_metrics(numbers(row), step=row["step"])])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from gankit import plotting
from gankit.files import replacing

if TYPE_CHECKING:
    from gankit.training.trainer import Trainer

Listener = Callable[["Trainer", Mapping[str, Any]], None]


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a row by name, without "step"; those of S replicas as "name/0" to "name/S-1".

    Longer arrays, class frequencies for example, and missing values are left out.
    """
    found = {}
    for name, value in row.items():
        if name == "step" or value is None or np.ndim(value) > 1:
            continue
        if np.ndim(value) == 0:
            found[name] = float(value)
        else:
            found |= {f"{name}/{i}": float(one) for i, one in enumerate(value)}
    return found


class Pictures:
    """Grids of samples of the averaged generator, from the same z each time: `samples-00001000.png` in a folder.

    Making them leaves the run's random streams alone, so training is the same with them and without.

    Args:
        folder: where they are written.
        every: generator steps between two, at least 1; each is drawn at the first row from then on.
        n: samples of each replica.
        seed: of z and of labels.

    Raises:
        ValueError: `every` or `n` is below 1.
    """

    def __init__(self, folder: str | Path, every: int, *, n: int = 64, seed: int = 0) -> None:
        if every < 1 or n < 1:
            raise ValueError(f"every and n must be at least 1, got {every} and {n}")
        self.folder, self.every, self.n, self.seed = Path(folder), every, n, seed
        self.drawn: int | None = None

    def __call__(self, run: Trainer, row: Mapping[str, Any]) -> None:
        if is_due(row["step"], self.every, self.drawn):
            self.drawn = row["step"]
            self.folder.mkdir(parents=True, exist_ok=True)
            picture = plotting.sheet(run.teacher.sample(self.n, seed=self.seed), run.data.shape)
            with replacing(self.folder / f"samples-{row['step']:08d}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")


class TensorBoard:
    """Rows and grids of samples as TensorBoard reads them, with PyTorch's own writer.

    A run that goes on from a checkpoint goes on in the same curves: what was logged beyond it is hidden.

    Args:
        folder: for `tensorboard --logdir`; one for each run.
        pictures_every: generator steps between two grids of samples; None for no pictures.
        n: samples of each replica in a grid.

    Raises:
        ImportError: the package tensorboard is missing.
        ValueError: `pictures_every` or `n` is below 1.
    """

    def __init__(self, folder: str | Path, *, pictures_every: int | None = 1_000, n: int = 64) -> None:
        if n < 1 or (pictures_every is not None and pictures_every < 1):
            raise ValueError(f"pictures_every and n must be at least 1, got {pictures_every} and {n}")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError('TensorBoard needs a package: pip install "gankit[tensorboard]"') from None
        self.open, self.writer = SummaryWriter, None
        self.folder, self.pictures_every, self.n = Path(folder), pictures_every, n
        self.drawn: int | None = None

    def __call__(self, run: Trainer, row: Mapping[str, Any]) -> None:
        step = row["step"]
        if self.writer is None:
            self.writer = self.open(str(self.folder), purge_step=step)
        for name, value in numbers(row).items():
            self.writer.add_scalar(name, value, step)
        if self.pictures_every is not None and is_due(step, self.pictures_every, self.drawn):
            self.drawn = step
            picture = plotting.sheet(run.teacher.sample(self.n), run.data.shape)
            self.writer.add_image("samples", picture, step, dataformats="HWC")
        self.writer.flush()


def is_due(step: int, every: int, last: int | None) -> bool:
    """Whether a multiple of `every` steps lies between the last time and now; true the first time."""
    return last is None or step // every > last // every
