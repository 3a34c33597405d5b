"""Training: a discriminator step, a generator step, a teacher, and what a run needs to go on where it stopped.

    >>> data = gk.data.load("digits")
    >>> G, D = gk.models.mlp(data.shape)
    >>> run = gk.Trainer(G, D, data, loss="mm-nsat", leak=gk.Leak(beta=0.5, start=1_000))
    >>> run.fit(3_000)
    >>> run.teacher.sample(64)

The clock is the generator step. Nothing in a step waits for the device: costs and statistics stay there until
they are logged. Around the step: `gankit.training.loop` repeats it, logs and saves; `gankit.training.gradients`
averages and rescales what the two players descend.

Started by `torchrun`, P processes share each minibatch out: every P-th row is a process's own. Gradients, costs, batch
norm's statistics and the means inside a cost are those of the whole minibatch, so P processes train as one would, and
a run may go on with another number of them. Process 0 writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gankit import processes
from gankit.data import Dataset
from gankit.device import autocast, channels_last, pick_device
from gankit.game.leak import Leak, leak_batch
from gankit.game.losses import Loss, losses, per_replica
from gankit.game.penalties import Penalty, Projection, WeightPenalty
from gankit.models.ensemble import Ensemble, lead_shape
from gankit.models.sampling import generate, score
from gankit.streams import Streams
from gankit.training import checkpoints, loop
from gankit.training.average import EMA, Teacher
from gankit.training.gradients import averaged, unit_gradient
from gankit.training.loop import Diverged
from gankit.training.optimisers import Adam, Optimizer, descend, load_optimizer


class Trainer:
    """Train a generator against a discriminator.

    One run and S runs side by side are the same thing here: give `Ensemble`s for G and D, and every minibatch,
    cost and statistic gains a leading S.

    Args:
        G: generator with an attribute `z_dim`, called as `G(z)` (or `G(z, labels)` where `G.n_classes` > 0).
        D: discriminator, called as `D(x)` -> logits (or `D(x, labels)`).
        data: what to imitate; moved to the device once.
        loss: a name from `gankit.game.losses.losses`, a `Loss`, or a sequence of S of them, one per replica.
        seed: seed of z and of the order of the data. An ensemble uses its own seeds.
        batch_size: samples of each kind in a minibatch, N; of P processes, each has N / P of them.
        n_dis: discriminator steps per generator step.
        accumulate: minibatches whose gradients are averaged for one step of an optimiser, for batches that do not fit
            into memory. A cost that rescales a minibatch (MM-nsat) rescales each of them on its own.
        precision: "float32", or "bfloat16" for matrix products and convolutions; costs and penalties stay in float32.
        g_optimizer, d_optimizer: settings of the optimisers (`gankit.training.optimisers`).
        ema: decay of the averaged generator (`run.teacher`).
        leak: replace real samples by the teacher's (LeakyEMA), or None.
        penalties: of D's slope, added to the discriminator's cost (`gankit.game.penalties`).
        g_penalties: of G's weights, added to the generator's cost.
        projections: applied to D after each of its steps (`ClipWeights`).
        device: "auto" takes a GPU where there is one.
        recipe: a JSON-able dict stored in checkpoints, so that a run can be rebuilt from its folder.

    Attributes:
        teacher: the averaged generator.
        steps: generator steps done.
        seconds: spent in `fit`, as of the last row.
        images: real images seen by the discriminator.
        history: logged rows, oldest first; `curve` reads one quantity out of them.

    Raises:
        ValueError: if the networks, the data and the cost do not fit together; the message says which.

    Several processes: `Leak` replaces `round(beta N / P)` samples in each, `most-realistic` picks in each the best of
    its own, and DRAGAN's noise has the spread of each one's samples. All processes must make the same calls, since
    they wait for each other; a callback is called in all.
    """

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        data: Dataset,
        *,
        loss: str | Loss | Sequence[str | Loss] = "ns",
        seed: int = 0,
        batch_size: int = 64,
        n_dis: int = 1,
        accumulate: int = 1,
        precision: str = "float32",
        g_optimizer: Optimizer = Adam(),
        d_optimizer: Optimizer = Adam(),
        ema: EMA = EMA(),
        leak: Leak | None = None,
        penalties: Sequence[Penalty] = (),
        g_penalties: Sequence[WeightPenalty] = (),
        projections: Sequence[Projection] = (),
        device: str | torch.device = "auto",
        recipe: dict[str, Any] | None = None,
    ) -> None:
        for name, value in {"batch_size": batch_size, "n_dis": n_dis, "accumulate": accumulate}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.device = pick_device(device)
        self.G, self.D = channels_last(G.to(self.device)), channels_last(D.to(self.device))
        self.data = data.to(self.device)
        self.lead = lead_shape(G)
        self.loss = _as_loss(loss, self.lead)
        self.seeds = G.seeds if isinstance(G, Ensemble) else (seed,)
        part = (processes.rank(), processes.world_size())
        self.streams = Streams(self.seeds, self.lead, self.device, part=part)
        self.own_batch_size = batch_size // processes.world_size()
        self.batch_size, self.n_dis, self.accumulate = batch_size, n_dis, accumulate
        self.precision = precision
        autocast(self.device, precision)  # refuses an unknown one here, not in the first step
        self.leak, self.penalties = leak, tuple(penalties)
        self.g_penalties, self.projections = tuple(g_penalties), tuple(projections)
        self.recipe = recipe
        _check_fit(self)
        self.g_params = [p for p in G.parameters() if p.requires_grad]
        self.d_params = [p for p in D.parameters() if p.requires_grad]
        self.g_opt = g_optimizer.build(self.g_params)
        self.d_opt = d_optimizer.build(self.d_params)
        self._d_has_batch_norm = any("running_mean" in name for name, _ in D.named_buffers())
        self.teacher = Teacher(self.G, ema, batch_size)
        self.steps = 0
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0

    # --- One step --------------------------------------------------------------------------------------------

    def d_step(self) -> dict[str, Any]:
        """One discriminator update."""
        stats = averaged(self.d_gradient, self.accumulate)
        descend(self.d_opt, self.d_params, stats["d_grad"])
        for project in self.projections:
            project(self.D)
        return stats

    def d_gradient(self) -> dict[str, Any]:
        """The discriminator's gradient on a minibatch: draw it, mix in the teacher, score, add penalties."""
        z, z_labels = self.draw_latents()
        real, real_labels = self.draw_data()
        with autocast(self.device, self.precision):
            with torch.no_grad():
                fake = generate(self.G, z, z_labels).to(real.dtype)
            if self.leak is not None:
                real, real_labels = leak_batch(
                    self.leak, self.steps, real, real_labels, z, z_labels, self.G, self.teacher.net, self.D,
                    self.streams,
                )  # fmt: skip
            real_logits, fake_logits = self.score_pair(real, real_labels, fake, z_labels)
            cost = self.loss.d_loss(real_logits, fake_logits)
            penalty = sum(
                p(lambda x: score(self.D, x, real_labels), real, fake, self.streams) for p in self.penalties
            )
        return {
            "d_loss": cost.detach(),
            "real_logit": real_logits.detach().mean(-1),
            "fake_logit": fake_logits.detach().mean(-1),
            "d_grad": torch.autograd.grad((cost + penalty).sum(), self.d_params),
        }

    def g_step(self) -> dict[str, Any]:
        """One generator update; then the teacher follows."""
        stats = averaged(self.g_gradient, self.accumulate)
        gradient, unit = stats["g_grad"], self.loss.unit
        descend(self.g_opt, self.g_params, unit_gradient(gradient, self.lead, unit) if unit else gradient)
        self.teacher.update(self.G, self.steps)
        return stats

    def g_gradient(self) -> dict[str, Any]:
        """The generator's gradient on a minibatch: generate, score, weigh, add penalties."""
        z, labels = self.draw_latents()
        with autocast(self.device, self.precision):
            cost = self.loss.g_loss(score(self.D, generate(self.G, z, labels), labels))
        penalty = sum(p(self.G) for p in self.g_penalties)
        return {
            "g_loss": cost.detach(),
            "g_grad": torch.autograd.grad((cost + penalty).sum(), self.g_params),
        }

    def step(self) -> dict[str, Tensor]:
        """`n_dis` discriminator updates and one generator update.

        Returns:
            Costs and mean logits of the last minibatch (`d_loss`, `g_loss`, `real_logit`, `fake_logit`),
            `[*lead]` each, on the device, and the gradients of both networks (`d_grad`, `g_grad`), lists.
        """
        for _ in range(self.n_dis):
            d = self.d_step()
        g = self.g_step()
        self.steps += 1
        return d | g

    def draw_latents(self) -> tuple[Tensor, Tensor | None]:
        """z `[*lead, N, z_dim]` and, for a conditional generator, labels `[*lead, N]`."""
        z = self.streams.normal(self.own_batch_size, self.G.z_dim)
        n_classes = getattr(self.G, "n_classes", 0)
        return z, self.streams.integers(n_classes, self.own_batch_size) if n_classes else None

    def draw_data(self) -> tuple[Tensor, Tensor]:
        """A minibatch of real samples `[*lead, N, *shape]` with labels, drawn with replacement."""
        x, labels = self.data.batch(self.streams.rows(self.own_batch_size, self.data.draw))
        return x.to(self.g_params[0].dtype), labels

    def score_pair(
        self, real: Tensor, real_labels: Tensor | None, fake: Tensor, fake_labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits of real and of fake samples, `[*lead, N]` each.

        They go through D as one batch, which is faster; through a D with batch normalisation they go
        separately, each normalised by its own statistics (as DCGAN is trained).
        """
        if self._d_has_batch_norm:
            return score(self.D, real, real_labels), score(self.D, fake, fake_labels)
        dim = len(self.lead)
        labels = None if fake_labels is None else torch.cat([real_labels, fake_labels], dim)
        logits = score(self.D, torch.cat([real, fake], dim), labels)
        return logits.split([real.shape[dim], fake.shape[dim]], dim)

    # --- The loop --------------------------------------------------------------------------------------------

    def fit(
        self,
        steps: int,
        *,
        out: str | Path | None = None,
        log_every: int = 50,
        save_every: int | None = None,
        keep_every: int | None = None,
        callback: Callable[[Trainer], dict[str, Any] | None] | None = None,
        callback_every: int | None = None,
        best: str | None = None,
        progress: bool = True,
    ) -> Trainer:
        """Train for `steps` more generator steps.

        Args:
            steps: how many.
            out: folder for `log.jsonl` and checkpoints; None keeps everything in memory.
            log_every: steps between two rows of `history`; each row costs one wait for the device.
            save_every: steps between two checkpoints; the last step is always saved. None: only the last. The newest
                two are kept.
            keep_every: steps between two checkpoints that are kept for good, for learning curves. None: none.
            callback: called with the trainer every `callback_every` steps (default: with each row); what it
                returns, a dict of numbers or arrays, joins the row (`gankit.metrics.watch` measures samples).
            best: name of a number that the callback returns. The checkpoint at which it was lowest is kept as
                `best.pt` in `out`, beside the newest ones; of several replicas the median counts, and NaN never wins.
            progress: show a bar (the environment variable TQDM_DISABLE=1 turns every bar off).

        Returns:
            The trainer itself.

        Raises:
            Diverged: at the first log row after a cost became NaN or infinite. No checkpoint is written
                after that point, so the last one is good.
            Disagreement: if several processes are not at the same point of the same run.
            ValueError: if a number of steps is out of range, or `best` is given without `out` and a callback that
                returns it.
        """
        if best is not None and (out is None or callback is None):
            raise ValueError(
                f"best={best!r} needs out, where the checkpoint is kept, and a callback that returns it"
            )
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        loop.fit(
            self,
            steps,
            loop.Schedule(log_every, callback_every or log_every, save_every, keep_every),
            out=None if out is None else Path(out),
            callback=callback,
            best=best,
            progress=progress,
        )
        return self

    def compile(self, **settings: Any) -> Trainer:
        """Let `torch.compile` rewrite the three networks, in place; to be called before `fit`.

        It joins the operations between convolutions, and compiling takes minutes. Where a step is nearly all
        convolutions there is little to gain: `tests/bench/bench_step.py` shows how much. On a CPU a step of SNGAN-32
        with 64 filters became 1.13 times faster.

        Args:
            settings: of `torch.compile` (`mode`, `backend`).

        Returns:
            The trainer itself.

        Raises:
            ValueError: for an Ensemble, which `vmap` runs, or with penalties of the slope, whose gradient of a gradient
                compiled networks do not have.
        """
        if self.lead or self.penalties:
            what = "an Ensemble" if self.lead else f"penalties of the slope ({self.penalties[0]})"
            raise ValueError(
                f"compile works for plain networks without penalties of the slope, and this run has {what}"
            )
        for net in (self.G, self.D, self.teacher.net):
            net.compile(**settings)
        return self

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps `[T]` and logged values `[T]` or `[T, S]` of one quantity.

        Raises:
            KeyError: if no row holds it; the message lists what was logged.
        """
        rows = [row for row in self.history if name in row]
        if not rows:
            known = sorted({key for row in self.history for key in row})
            raise KeyError(f"{name!r} was not logged; logged are {', '.join(known) or 'no rows yet'}")
        return np.array([row["step"] for row in rows]), np.array([row[name] for row in rows])

    @property
    def images(self) -> int:
        """Real images seen by the discriminator, per replica."""
        return self.steps * self.n_dis * self.accumulate * self.batch_size

    # --- Checkpoints -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that training from here on depends on, as tensors and plain values."""
        return {
            "step": self.steps,
            "seconds": self.seconds,
            "seeds": list(self.seeds),
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "teacher": self.teacher.state_dict(),
            "g_opt": self.g_opt.state_dict(),
            "d_opt": self.d_opt.state_dict(),
            "streams": self.streams.state_dict(),
            "history": json.dumps(self.history),
            "recipe": json.dumps(self.recipe),
            "versions": checkpoints.versions(),
        }

    def save(self, path: str | Path) -> None:
        """Write a checkpoint: to a temporary name first, then renamed. Of several processes, process 0 writes it.

        Raises:
            Diverged: if a parameter is NaN or infinite; nothing is written.
            OSError: if the disk refuses; nothing is left behind under the final name.
        """
        for name, net in {"generator": self.G, "discriminator": self.D}.items():
            if not all(bool(p.isfinite().all()) for p in net.parameters()):
                raise Diverged(
                    f"a parameter of the {name} is NaN or infinite after step {self.steps}; not saved"
                )
        if processes.rank() == 0:
            checkpoints.write(self.state_dict(), Path(path))

    def load(self, path: str | Path) -> Trainer:
        """Continue from a checkpoint. On a CPU the continued run is bit-identical to an uninterrupted one.

        Raises:
            CheckpointError: if the file is missing or damaged, or was written by other networks.
        """
        state = checkpoints.read(Path(path))
        checkpoints.check_architecture(state, {"G": self.G, "D": self.D}, Path(path))
        if tuple(state["seeds"]) != tuple(self.seeds):
            raise checkpoints.CheckpointError(
                f"{path} was written with seeds {state['seeds']}, this run has {list(self.seeds)}"
            )
        self.G.load_state_dict(state["G"])
        self.D.load_state_dict(state["D"])
        self.teacher.load_state_dict(state["teacher"])
        load_optimizer(self.g_opt, state["g_opt"])
        load_optimizer(self.d_opt, state["d_opt"])
        self.streams.load_state_dict(state["streams"])
        self.steps, self.seconds = state["step"], state["seconds"]
        self.history = json.loads(state["history"])
        return self


def _as_loss(loss: str | Loss | Sequence[str | Loss], lead: tuple[int, ...]) -> Loss:
    if isinstance(loss, str):
        return losses[loss]
    if isinstance(loss, Loss):
        return loss
    if not lead:
        raise ValueError("loss must be one cost for a plain run; a sequence of costs goes with an Ensemble")
    if len(loss) != lead[0]:
        raise ValueError(f"loss must be one cost or one per replica ({lead[0]}), got {len(loss)}")
    return per_replica(loss)


def _check_fit(run: Trainer) -> None:
    """Refuse parts that do not fit together, before the first step does."""
    if lead_shape(run.D) != run.lead:
        raise ValueError(f"G and D must have equally many replicas, got {run.lead} and {lead_shape(run.D)}")
    if getattr(run.G, "z_dim", None) is None:
        raise ValueError("G must have an attribute z_dim, the length of its latent vectors")
    shape = tuple(getattr(run.G, "shape", run.data.shape))
    if shape != run.data.shape:
        raise ValueError(f"G makes samples of shape {shape}, but data {run.data.name!r} has {run.data.shape}")
    classes = {name: getattr(net, "n_classes", 0) for name, net in (("G", run.G), ("D", run.D))}
    if bool(classes["G"]) != bool(classes["D"]):
        raise ValueError(f"G and D must both be conditional or neither, got n_classes {classes}")
    if classes["G"] and set(classes.values()) != {run.data.n_classes}:
        raise ValueError(
            f"G and D must know the {run.data.n_classes} classes of data {run.data.name!r}, got n_classes {classes}"
        )
    world = processes.world_size()
    if run.batch_size % world:
        raise ValueError(f"batch_size must be a multiple of the {world} processes, got {run.batch_size}")
    if run.lead and world > 1:
        raise ValueError(
            f"an Ensemble trains in one process, and there are {world}: start a process for each seed instead"
        )
    if run.leak is not None:
        run.leak.replaced(0, run.batch_size, run.lead)
