"""Training: a discriminator step, a generator step, a teacher, and what a run needs to go on where it stopped.

    >>> data = gk.data.load("digits")
    >>> G, D = gk.models.mlp(data.shape)
    >>> run = gk.Trainer(G, D, data, loss="mm-nsat", leak=gk.Leak(beta=0.5, start=1_000))
    >>> run.fit(3_000)
    >>> run.teacher.sample(64)

The clock is the generator step. Nothing in a step waits for the device: costs and statistics stay there until
they are logged. Around the step: `gankit.training.recording` logs, measures and saves; `gankit.training.gradients`
averages and rescales what the two players descend.

Started by `torchrun`, P processes share each minibatch out: every P-th row is a process's own. Gradients, costs, batch
norm's statistics and the means inside a cost are those of the whole minibatch, so P processes train as one would, and
a run may go on with another number of them. Process 0 writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from gankit import processes
from gankit.data import Dataset
from gankit.device import autocast, channels_last, pick_device, products, threads_for
from gankit.game.leak import Leak
from gankit.game.losses import Loss, losses, per_replica
from gankit.game.play import (
    Augment,
    Game,
    Play,
    Projection,
    Rule,
    States,
    Term,
    d_gradient,
    draw_data,
    draw_latents,
    g_gradient,
)
from gankit.models.ensemble import Ensemble, lead_shape
from gankit.streams import Streams
from gankit.training import checkpoints
from gankit.training.average import EMA, Teacher
from gankit.training.capture import Captured
from gankit.training.freezing import freeze
from gankit.training.gradients import averaged, unit_gradient
from gankit.training.optimisers import Adam, Optimizer, descend, load_optimizer, set_rates
from gankit.training.recording import Diverged, Recorder, Schedule

if TYPE_CHECKING:
    from gankit.training.listeners import Listener


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
        precision: of matrix products and convolutions, "float32", "tf32" or "bfloat16" (`gankit.device.PRECISIONS`);
            costs and penalties stay in float32.
        g_optimizer, d_optimizer: settings of the optimisers (`gankit.training.optimisers`).
        ema: decay of the averaged generator (`run.teacher`).
        leak: replace real samples by the teacher's (LeakyEMA), or None.
        d_terms, g_terms: added to the cost of D and of G (`gankit.game.penalties`).
        augment: how D sees every sample, in its own steps and in G's, or None (`gankit.game.augment`).
        data_augment: what happens to real samples alone, or None: a part of the data, which G learns.
        rules: states that a step updates and terms may read.
        projections: applied to D after each of its steps (`ClipWeights`).
        share_fakes: let G learn from the samples that D saw in its last step, in place of new ones. That saves a pass
            of G, 3 to 10 % of a step's operations with the networks of the papers, and in twenty paired seeds on the
            digits made no difference that shows (`figures.book.shared_fakes`).
        freeze_d: blocks of D, those nearest the image, that keep the weights they begin with
            (`gankit.training.freezing`).
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
        d_terms: Sequence[Term] = (),
        g_terms: Sequence[Term] = (),
        augment: Augment | None = None,
        data_augment: Augment | None = None,
        rules: Sequence[Rule] = (),
        projections: Sequence[Projection] = (),
        share_fakes: bool = False,
        freeze_d: int = 0,
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
        self.game = Game(
            _as_loss(loss, self.lead),
            leak,
            augment,
            data_augment,
            tuple(d_terms),
            tuple(g_terms),
            tuple(rules),
            tuple(projections),
            share_fakes,
        )
        self.seeds = G.seeds if isinstance(G, Ensemble) else (seed,)
        part = (processes.rank(), processes.world_size())
        self.streams = Streams(self.seeds, self.lead, self.device, part=part)
        self.own_batch_size = batch_size // processes.world_size()
        self.batch_size, self.n_dis, self.accumulate = batch_size, n_dis, accumulate
        self.precision = precision
        autocast(self.device, precision)  # refuses an unknown one here, not in the first step
        self.recipe = recipe
        _check_fit(self)
        freeze(D, freeze_d)
        self.g_params = [p for p in G.parameters() if p.requires_grad]
        self.d_params = [p for p in D.parameters() if p.requires_grad]
        self.g_opt = g_optimizer.build(self.g_params)
        self.d_opt = d_optimizer.build(self.d_params)
        self.schedules = {
            "g_lr": (self.g_opt, getattr(g_optimizer, "schedule", None)),
            "d_lr": (self.d_opt, getattr(d_optimizer, "schedule", None)),
        }
        self.teacher = Teacher(self.G, ema, batch_size)
        self.states: States = _initial_states(self.game.rules, self.lead, self.device)
        self._to_share: list[Play] = []
        self.captured: Captured | None = None
        self.steps = 0
        self.folder: Path | None = None
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0

    # --- One step --------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """Learning rates as scheduled, then `update`; returns what that does."""
        self._grow()
        for optimizer, schedule in self.schedules.values():
            set_rates(optimizer, schedule, self.steps)
        with products(self.device, self.precision):
            seen = self.update() if self.captured is None else self.captured()
        self.steps += 1
        return seen

    def update(self) -> dict[str, Any]:
        """`n_dis` discriminator updates and one generator update; then the rules' states follow.

        Returns:
            Costs and mean logits of the last minibatch (`d_loss`, `g_loss`, `real_logit`, `fake_logit`), what terms and
            rules noted of it, and the rules' states, `[*lead]` each, on the device; and the gradients of both networks
            (`d_grad`, `g_grad`), lists.
        """
        for _ in range(self.n_dis):
            d = self.d_step()
        seen = d | self.g_step()
        per_step = self.n_dis * self.accumulate * self.batch_size
        for rule in self.game.rules:
            self.states = {**self.states, **rule.update(self.states, {**seen, "step_images": per_step})}
        return seen | self.states

    def d_step(self) -> dict[str, Any]:
        """One discriminator update."""
        self._to_share = []
        seen = averaged(lambda: d_gradient(self._d_play(), self.d_params, self.precision), self.accumulate)
        descend(self.d_opt, self.d_params, seen["d_grad"])
        for project in self.game.projections:
            project(self.D)
        return seen

    def g_step(self) -> dict[str, Any]:
        """One generator update; then the teacher follows."""
        seen = averaged(lambda: g_gradient(self._g_play(), self.g_params, self.precision), self.accumulate)
        gradient, unit = seen["g_grad"], self.game.loss.unit
        descend(self.g_opt, self.g_params, unit_gradient(gradient, self.lead, unit) if unit else gradient)
        self.teacher.update(self.G, self.steps)
        return seen

    def _d_play(self) -> Play:
        play = self.play(self.D)
        if self.game.share_fakes:
            self._to_share.append(play)
        return play

    def _g_play(self) -> Play:
        return self._to_share.pop(0).for_generator() if self._to_share else self.play(self.G)

    def play(self, learner: nn.Module) -> Play:
        """A new minibatch for one of the players, `self.D` or `self.G`."""
        return Play(
            self.game, learner, self.G, self.D, self.teacher.net, self.data, self.streams, self.own_batch_size,
            self.steps, self.states,
        )  # fmt: skip

    def draw_latents(self) -> tuple[Tensor, Tensor | None]:
        """z `[*lead, N, z_dim]` and, for a conditional generator, labels `[*lead, N]`."""
        return draw_latents(self.G, self.streams, self.own_batch_size)

    def draw_data(self) -> tuple[Tensor, Tensor]:
        """A minibatch of real samples `[*lead, N, *shape]` with labels, drawn with replacement."""
        return draw_data(self.data, self.G, self.streams, self.own_batch_size)

    def _grow(self) -> None:
        """Tell growing networks how far training is: `net.growth(images)` gives the new values of named buffers.

        At a new stage the optimiser begins afresh, as ProGAN's does.
        """
        for net, optimizer in ((self.G, self.g_opt), (self.D, self.d_opt)):
            if (growth := getattr(net, "growth", None)) is not None and fill_buffers(
                net, growth(self.images)
            ):
                optimizer.state.clear()

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
        listeners: Sequence[Listener] = (),
        survive: bool = False,
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
            listeners: called with the trainer and every row (`gankit.training.listeners`: TensorBoard, pictures).
            survive: go on as long as one replica is sound. Those whose costs are no longer finite stay what they are,
                and their numbers are NaN in rows.
            progress: show a bar (the environment variable TQDM_DISABLE=1 turns every bar off).

        Returns:
            The trainer itself.

        Raises:
            Diverged: at the first log row after a cost became NaN or infinite (with `survive`, in all replicas). No
                checkpoint is written after that point, so the last one is good.
            Disagreement: if several processes are not at the same point of the same run.
            FolderInUse: if `out` holds a run that this one does not come from, or another process writes there.
            ValueError: if a number of steps is out of range, or `best` is given without `out` and a callback that
                returns it.
        """
        if best is not None and (out is None or callback is None):
            raise ValueError(
                f"best={best!r} needs out, where the checkpoint is kept, and a callback that returns it"
            )
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        schedule = Schedule(log_every, callback_every or log_every, save_every, keep_every)
        check_agreement(self)
        self.G.train(), self.D.train()
        out = None if out is None else Path(out)
        with (
            Recorder(self, steps, schedule, out, callback, best, progress, listeners, survive) as recorder,
            threads_for(self.G, self.D),
        ):
            while self.steps < recorder.last:
                recorder.after(self.step())
        return self

    def compile(self, mode: str | None = None, **settings: Any) -> Trainer:
        """Let `torch.compile` rewrite the three networks, in place; to be called before `fit`.

        It joins the operations between convolutions, and compiling takes minutes. Where a step is nearly all
        convolutions there is little to gain: `tests/bench/bench_step.py` shows how much. On a CPU a step of SNGAN-32
        with 64 filters became 1.13 times faster.

        The mode "cuda-graph" leaves the networks as they are and records whole steps as CUDA graphs
        (`gankit.training.capture`): for networks so small that a card waits for Python. Both can be had, one after the
        other.

        Args:
            mode: "cuda-graph", or one of `torch.compile`.
            settings: others of `torch.compile` (`backend`).

        Returns:
            The trainer itself.

        Raises:
            ValueError: for an Ensemble, which `vmap` runs, or with penalties of the slope, whose gradient of a gradient
                compiled networks do not have; with "cuda-graph", see `gankit.training.capture.check`.
        """
        if mode == "cuda-graph":
            if settings:
                raise ValueError(f"mode 'cuda-graph' takes no settings of torch.compile, got {settings}")
            self.captured = Captured(self)
            return self
        if self.lead or self.game.d_terms:
            what = "an Ensemble" if self.lead else f"penalties of the slope ({self.game.d_terms[0]})"
            raise ValueError(
                f"compile works for plain networks without penalties of the slope, and this run has {what}"
            )
        for net in (self.G, self.D, self.teacher.net):
            net.compile(mode=mode, **settings)
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
            # A layer of the user's own, dropout for example, may draw from PyTorch's global generators.
            "global_streams": [torch.get_rng_state(), *_gpu_random_states()],
            "states": dict(self.states),
            "data": self._data_facts,
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

    @cached_property
    def _data_facts(self) -> dict[str, Any]:
        """What a checkpoint remembers of the data, so that a run does not go on with others under the same name."""
        return {
            "name": self.data.name,
            "shape": list(self.data.shape),
            "classes": list(self.data.classes),
            "checksum": _checksum_of_some(self.data),
        }

    def load(self, path: str | Path, *, same_data: bool = True) -> Trainer:
        """Continue from a checkpoint. On a CPU the continued run is bit-identical to an uninterrupted one.

        Args:
            path: of the checkpoint.
            same_data: refuse data that are not those of the run. False where it will only be sampled.

        Raises:
            CheckpointError: if the file is missing or damaged, or was written by other networks or on other data.
        """
        state = checkpoints.read(Path(path))
        with checkpoints.loading(Path(path), "G and D"):
            checkpoints.check_architecture(state, {"G": self.G, "D": self.D}, Path(path))
        if same_data:
            checkpoints.check_data(state["data"], self._data_facts, Path(path))
        if tuple(state["seeds"]) != tuple(self.seeds):
            raise checkpoints.CheckpointError(
                f"{path} was written with seeds {state['seeds']}, this run has {list(self.seeds)}"
            )
        for part, read in {
            "G": self.G.load_state_dict,
            "D": self.D.load_state_dict,
            "teacher": self.teacher.load_state_dict,
            "g_opt": partial(load_optimizer, self.g_opt),
            "d_opt": partial(load_optimizer, self.d_opt),
            "streams": self.streams.load_state_dict,
            "global_streams": _set_global_streams,
            "states": self._set_states,
        }.items():
            with checkpoints.loading(Path(path), part):
                read(state[part])
        self.folder = Path(path).resolve().parent
        self.steps, self.seconds = state["step"], state["seconds"]
        self.history = json.loads(state["history"])
        if self.captured is not None:  # the optimisers' means are other tensors now
            self.captured = Captured(self)
        return self

    def start_from(self, path: str | Path) -> Trainer:
        """Begin with the networks and the average of another run, of any data, rates or cost: a warm start.

        Optimisers, random streams and the number of steps stay as they are.

        Raises:
            CheckpointError: the file is missing or damaged, or of other networks.
        """
        state, nets = checkpoints.read(Path(path)), {"G": self.G, "D": self.D, "teacher": self.teacher}
        for part, net in nets.items():
            with checkpoints.loading(Path(path), part):
                checkpoints.check_architecture(state, {part: net}, Path(path))
        for part, net in nets.items():
            net.load_state_dict(state[part])
        return self

    def _set_states(self, stored: States) -> None:
        if stored.keys() != self.states.keys():
            raise ValueError(f"it holds {sorted(stored)}, and the rules keep {sorted(self.states)}")
        self.states = {name: x.to(self.device) for name, x in stored.items()}


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
    if run.game.leak is not None:
        run.game.leak.replaced(0, run.batch_size, run.lead)


def _initial_states(rules: Sequence[Rule], lead: tuple[int, ...], device: torch.device) -> dict[str, Tensor]:
    states: dict[str, Tensor] = {}
    for rule in rules:
        for name, value in rule.init(lead).items():
            if name in states:
                raise ValueError(f"two rules keep a state {name!r}; names of states must differ")
            if tuple(value.shape) != lead:
                raise ValueError(
                    f"the state {name!r} of {rule} must have shape {list(lead)}, got {list(value.shape)}"
                )
            states[name] = value.to(device)
    return states


def fill_buffers(net: nn.Module, values: dict[str, float]) -> bool:
    """Set every buffer of these names, in a plain network and in all replicas of an ensemble.

    Returns:
        Whether a buffer `stage`, which networks keep on the host, has another value now.

    Raises:
        ValueError: if the network has no buffer of a name.
    """
    found = {name.replace("/", ".").rpartition(".")[2]: buffer for name, buffer in net.named_buffers()}
    for name in values:
        if name not in found:
            raise ValueError(f"growth names a buffer {name!r}; the network has {', '.join(found) or 'none'}")
    new_stage = "stage" in values and int(found["stage"].reshape(-1)[0]) != values["stage"]
    for name, buffer in net.named_buffers():
        key = name.replace("/", ".").rpartition(".")[2]
        if key in values:
            buffer.fill_(values[key])
    return new_stage


def _set_global_streams(stored: Sequence[Tensor]) -> None:
    torch.set_rng_state(stored[0])
    for i, one in enumerate(stored[1 : 1 + torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, i)


def _gpu_random_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def check_agreement(run: Trainer) -> None:
    """Refuse to train with processes that have other settings, data or weights, or are at another step.

    Raises:
        Disagreement: in every process, saying in what they differ.
    """
    if processes.world_size() == 1:
        return
    weights = [x for net in (run.G, run.D, run.teacher) for x in net.state_dict().values()]
    facts = {
        "the recipe": json.dumps(run.recipe),
        "the data": repr(run.data),
        "the data's checksum": _checksum_of_some(run.data),
        "the loss": run.game.loss.name,
        "the seed": run.seeds,
        "batch_size": run.batch_size,
        "n_dis": run.n_dis,
        "the step": run.steps,
        "the weights' checksum": processes.checksum(weights),
        "the random streams' checksum": processes.checksum(run.streams.state_dict()["states"]),
    }
    processes.agree(facts)


def _checksum_of_some(data: Dataset) -> str:
    """Of all labels and a thousand samples: machines may have other pictures under one name, and reading all of a pack
    would take minutes."""
    some = torch.linspace(0, len(data) - 1, min(len(data), 1_000), dtype=torch.float64, device=data.device)
    return processes.checksum([data.labels, data.images[some.long()]])
