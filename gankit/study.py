"""A study: variants of a recipe x seeds, judged along the way, compared pair by pair.

    >>> variants = {"NS": {}, "MM": {"loss": "mm"}, "MM-nsat": {"loss": "mm-nsat"}}
    >>> result = gk.study.run("ns-digits", variants, seeds=range(10), steps=2_000)
    >>> print(gk.study.table(result))
    >>> gk.study.draw_curves(result)

A variant is a name and what it changes of the recipe. Variants that differ in what each replica of an ensemble may
have for itself (the cost, Adam's rates and betas, R1's gamma, the strengths of other penalties of D where they have
the same ones, LeakyEMA's beta and start) train as one run, the others in runs of their own. Replicas of one seed
share initial weights, z and data, in all variants, so what differs between them is the variant: seeds are *pairs*,
and `summary` counts in how many of them a variant is below the reference.

A result is a dict that JSON can hold:

.. table:: The parts of a result.

 ==============  ========================================================================================
 `recipe`        name of the recipe; `changes` (variant -> what it changes), `seeds` `[S]`
 `steps`         generator steps `[T]` of the judgements; `log_steps` `[T']` of the readings of costs, logits, gradients
 `judged`        names of the curves that are judgements: `[T][S]`, the others being `[T'][S]`
 `curves`        variant -> name -> numbers; what is missing or infinite is None
 `clocks`        name -> steps, of what a callback with its own interval returned
 `epochs`        passes over the data; `versions`; `device`; `wall_time_s` of training and judging
 ==============  ========================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gankit import data as datasets
from gankit import plotting
from gankit.data import DataError, Dataset
from gankit.files import replacing
from gankit.game.leak import Leak
from gankit.game.losses import losses, per_replica
from gankit.game.penalties import L2, R1, R2, Dragan, WganGP
from gankit.game.play import Term
from gankit.metrics import features, watch
from gankit.models.ensemble import pair
from gankit.recipes import Recipe, recipes
from gankit.training import Trainer, checkpoints
from gankit.training.optimisers import Adam

Changes = Mapping[str, Any]
Measure = Callable[[Trainer], Mapping[str, Any] | None]

_SIDES = ("g_optimizer", "d_optimizer")
_OF_ADAM = ("lr", "beta1", "beta2")
_STRENGTHS = {R2: "gamma", WganGP: "weight", Dragan: "weight", L2: "weight"}
"""Terms of D whose strength each replica may have for itself, in runs of variants that all have them. So has R1;
without it a replica's strength is 0, since it draws no random numbers."""


@dataclass(frozen=True)
class Group:
    """Variants that train as one run: name -> recipe of each alone."""

    variants: Mapping[str, Recipe]


def groups(recipe: Recipe | str, variants: Mapping[str, Changes]) -> list[Group]:
    """The runs of a study, in the order of their first variants.

    Raises:
        ValueError: no variant, a change of `steps` (a study has one clock), or one that the recipe refuses; the message
            names the variant.
    """
    if isinstance(recipe, str):
        recipe = recipes[recipe]
    if not variants:
        raise ValueError("variants is empty: give at least one name with its changes, {'NS': {}} say")
    found: list[tuple[Recipe, dict[str, Recipe]]] = []
    for name, changes in variants.items():
        if "steps" in changes:
            raise ValueError(f"variant {name!r} changes steps, which are the study's: run two studies")
        try:
            alone = recipe.changed(changes)
        except ValueError as error:
            raise ValueError(f"variant {name!r}: {error}") from error
        shared = _shared(alone)
        if shared not in [one for one, _ in found]:
            found.append((shared, {}))
        next(members for one, members in found if one == shared)[name] = alone
    return [Group(members) for _, members in found]


def build(
    group: Group,
    seeds: Sequence[int],
    *,
    data: Dataset | None = None,
    root: str | Path | None = None,
    device: str = "auto",
) -> Trainer:
    """The ensemble run of a group: replica ``v * len(seeds) + s`` is its variant v with seed s.

    The recipe itself makes the networks and the trainer, so that every field of it counts.
    """
    each = [one for one in group.variants.values() for _ in seeds]
    recipe = _together(each)
    if data is None:
        data = datasets.load(recipe.data, root=root, size=recipe.size)
    seeds = [int(seed) for _ in group.variants for seed in seeds]
    G, D = pair(lambda seed: recipe.networks(data.shape, seed, data.n_classes), seeds)
    run = recipe.trainer(G, D, data, seeds, device=device)
    # A recipe names one cost, a run may have one for each replica.
    run.game = dataclasses.replace(run.game, loss=per_replica([losses[one.loss] for one in each]))
    return run


def run(
    recipe: Recipe | str,
    variants: Mapping[str, Changes],
    seeds: Sequence[int] = range(10),
    steps: int | None = None,
    *,
    measures: Sequence[str | Measure] | None = None,
    evaluations: int = 8,
    every: int | None = None,
    samples: int = 1_000,
    network: str = "generator",
    log_every: int = 50,
    callback: Measure | None = None,
    callback_every: int = 1,
    prepare: Callable[[Trainer, Sequence[str]], None] | None = None,
    survive: bool = False,
    folder: str | Path | None = None,
    data: Dataset | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Train all variants with all seeds.

    Args:
        recipe: a `Recipe`, or a name of `gankit.recipes`.
        variants: name -> changes of the recipe (`Recipe.changed`), {} for the recipe itself.
        seeds: S different ones, the same for every variant.
        steps: generator steps; the recipe's own by default.
        measures: what judges a run: names of `gankit.metrics.METRICS`, and functions of the trainer that return one
            number per replica by name. By default those of `gankit.metrics.evaluate`. () judges nothing.
        evaluations: how often they are asked, the end included.
        every: steps from one time to the next, in place of ``steps // evaluations``.
        samples: of each replica, for metrics that are given by name.
        network: of which they are: "generator", or "teacher" for its average.
        log_every: steps between two readings of costs, logits and gradients.
        callback: asked every `callback_every` steps beside the measures; it may return None.
        prepare: called with each run and the names of its variants before it trains, for what no recipe can say.
        survive: let a run go on as long as one of its replicas is sound (`Trainer.fit`): of many settings some diverge.
            Measures must then take samples that are no numbers.
        folder: for checkpoints. A study that finds its own there goes on from them.
        data: in place of the recipe's, which are looked for in `root`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: show a bar for each run.

    Returns:
        The result (see the module).

    Raises:
        ValueError: no or equal seeds, an unknown change or metric, numbers out of range, or a folder of another study.
        Diverged: a cost of any replica became NaN or infinite; with `survive`, that of all replicas of a run.
    """
    recipe = recipes[recipe] if isinstance(recipe, str) else recipe
    seeds, steps = [int(seed) for seed in seeds], recipe.steps if steps is None else steps
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be at least one and differ from each other, got {seeds}")
    numbers = {"steps": steps, "evaluations": evaluations, "every": every, "callback_every": callback_every}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    parts = groups(recipe, variants)
    if folder is not None:
        _claim(Path(folder), parts, seeds)
    result: dict[str, Any] = {
        "recipe": recipe.name,
        "changes": {name: dict(changes) for name, changes in variants.items()},
        "seeds": seeds,
        "curves": {},
        "clocks": {},
        "versions": checkpoints.versions(),
    }
    seconds = 0.0
    for number, group in enumerate(parts):
        out = None if folder is None else Path(folder) / f"run-{number}"
        trainer = build(group, seeds, data=data, root=root, device=device)
        if out is not None and (found := checkpoints.latest(out)) is not None:
            trainer.load(found)
        if prepare is not None:
            prepare(trainer, list(group.variants))
        judges = _judges(measures, trainer.data, samples, network)
        interval = (every or max(1, steps // evaluations)) if judges else steps
        look = _Look(judges, interval, callback, callback_every, steps)
        trainer.fit(
            max(0, steps - trainer.steps),
            out=out,
            log_every=log_every,
            save_every=interval if out is not None else None,
            callback=look,
            callback_every=look.interval,
            survive=survive,
            progress=progress,
        )
        seconds += trainer.history[-1]["seconds"]
        _take_apart(result, trainer, list(group.variants), len(seeds), interval if judges else None, steps)
        result |= {"epochs": trainer.images / len(trainer.data), "device": str(trainer.device)}
    # In the order in which they were named, also where that is not the order of the runs.
    result["curves"] = {name: result["curves"][name] for name in variants}
    return result | {"wall_time_s": round(seconds, 1)}


# --- Numbers ------------------------------------------------------------------------------------------------------


def curve(result: Mapping[str, Any], variant: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[T]` and values `[T, S]` of one curve; NaN where a value is missing.

    Raises:
        KeyError: an unknown variant or name; the message lists the known ones.
    """
    for key, known in ((variant, result["curves"]), (name, result["curves"].get(variant, {}))):
        if key not in known:
            raise KeyError(f"{key!r} is not among {', '.join(known)}")
    clock = result["steps"] if name in result["judged"] else result["log_steps"]
    return np.array(result["clocks"].get(name, clock)), np.array(result["curves"][variant][name], float)


def sign_test(below: int, above: int) -> float:
    """p of a two-sided exact sign test: how likely pairs are so uneven if either side is as likely; ties do not count.

    Args:
        below, above: numbers of pairs, at least 0.
    """
    n = below + above
    tail = sum(math.comb(n, k) for k in range(min(below, above) + 1))
    return min(1.0, 2 * tail / 2**n)


def compare(ends: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Pairs `[S]`, `[S]`: in how many the first is "below" and "above", "p" of the sign test, "ratio" of the medians
    (the reference's over this one's; None for a median of 0)."""
    below, above = int((ends < reference).sum()), int((ends > reference).sum())
    middle = float(np.median(ends))
    return {
        "below": below,
        "above": above,
        "p": sign_test(below, above),
        "ratio": float(np.median(reference)) / middle if middle else None,
    }


def summary(
    result: Mapping[str, Any], reference: str | None = None, names: Sequence[str] | None = None
) -> dict[str, dict[str, dict[str, Any]]]:
    """What a study says in numbers.

    Args:
        result: of `run`.
        reference: the variant with which the others are compared; the first by default.
        names: of curves; by default all judgements that are one number per seed.

    Returns:
        Variant -> curve -> "median", "min" and "max" over the seeds at the end; "lowest" and "highest", medians of
        each run's extremes over training ("early stopping"); for all but the reference what `compare` says.
    """
    reference = next(iter(result["curves"])) if reference is None else reference
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in result["curves"]:
        table[variant] = {}
        for name in scalars(result) if names is None else names:
            values = curve(result, variant, name)[1]
            row = spread(values[-1]) | {
                "lowest": float(np.median(values.min(0))),
                "highest": float(np.median(values.max(0))),
            }
            if variant != reference:
                row |= compare(values[-1], curve(result, reference, name)[1][-1])
            table[variant][name] = row
    return table


def spread(values: np.ndarray) -> dict[str, float]:
    """ "median", "min" and "max" of one number per seed, `[S]`."""
    return {name: float(f(values)) for name, f in (("median", np.median), ("min", np.min), ("max", np.max))}


def scalars(result: Mapping[str, Any]) -> list[str]:
    """Names of the judgements that are one number per seed."""
    first = next(iter(result["curves"].values()))
    return [name for name in result["judged"] if np.ndim(first[name]) == 2]


def table(result: Mapping[str, Any], reference: str | None = None, names: Sequence[str] | None = None) -> str:
    """The `summary` as text, one block for each curve: median and range at the end, and pairs with their p."""
    rows, seeds = summary(result, reference, names), len(result["seeds"])
    wide = max(map(len, rows)) + 2
    lines = []
    for name in next(iter(rows.values())):
        lines.append(f"{name}, {seeds} seeds, after {curve(result, next(iter(rows)), name)[0][-1]:,} steps")
        lines.append(f"{'':{wide}}{'median':>9}  {'range':20}  {'lowest':>9}   below / above   p")
        for variant, row in ((variant, row[name]) for variant, row in rows.items()):
            between = f"{row['min']:.4g} to {row['max']:.4g}"
            pairs = f"{row['below']:5} / {row['above']:<5}   {row['p']:.2g}" if "p" in row else "  reference"
            lines.append(
                f"{variant:{wide}}{row['median']:9.4g}  {between:20}  {row['lowest']:9.4g}   {pairs}"
            )
        lines.append("")
    return "\n".join(lines).rstrip()


# --- Pictures -----------------------------------------------------------------------------------------------------


def draw_curves(
    result: Mapping[str, Any], names: Sequence[str] | None = None, *, single: bool = False
) -> Figure:
    """Curves over training, a panel each: medians and bands from the least to the greatest, or single seeds.

    Args:
        result: of `run`.
        names: of curves; by default all judgements that are one number per seed.
        single: draw a thin line for each seed in place of the band.
    """
    figure, panels = _panels(result, scalars(result) if names is None else names)
    for ax, name in panels:
        for i, variant in enumerate(result["curves"]):
            draw = plotting.lines if single else plotting.band
            draw(ax, *curve(result, variant, name), label=variant, color=_color(result, variant, i))
        ax.set(xlabel="generator steps", ylabel=name)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return figure


def draw_ends(result: Mapping[str, Any], names: Sequence[str] | None = None) -> Figure:
    """Where every run ended, a panel for each curve: a dot for each seed, a dash at the median."""
    figure, panels = _panels(result, scalars(result) if names is None else names)
    colors = [_color(result, variant, i) for i, variant in enumerate(result["curves"])]
    for ax, name in panels:
        ends = {variant: curve(result, variant, name)[1][-1] for variant in result["curves"]}
        plotting.dots(ax, ends, colors)
        ax.set(xlabel="variant, each seed at the end", ylabel=name)
    return figure


def _panels(result: Mapping[str, Any], names: Sequence[str]) -> tuple[Figure, list[tuple[Axes, str]]]:
    if not names:
        raise ValueError("names is empty, and nothing was judged: name a curve, such as 'g_grad'")
    plotting.use_style()
    figure, axes = plt.subplots(1, len(names), figsize=(0.8 + 3.4 * len(names), 3.4), squeeze=False)
    for ax, name in zip(axes[0], names, strict=True):
        values = np.concatenate([curve(result, v, name)[1].ravel() for v in result["curves"]])
        # Distances fall by powers of ten; costs and logits change their sign.
        if np.nanmin(values) > 0 and np.nanmax(values) > 5 * np.nanmin(values):
            ax.set_yscale("log")
    return figure, list(zip(axes[0], names, strict=True))


def _color(result: Mapping[str, Any], variant: str, i: int) -> str:
    """A cost has the colour that it has everywhere, as long as the cost is all that a variant changes."""
    changes = result["changes"][variant]
    return plotting.COLORS.get(changes["loss"], f"C{i}") if set(changes) == {"loss"} else f"C{i}"


# --- Pieces -------------------------------------------------------------------------------------------------------


def _shared(recipe: Recipe) -> Recipe:
    """What variants of one run have in common: the recipe without the numbers that each replica may have for itself."""
    alike = {
        side: dataclasses.replace(adam, lr=1.0, beta1=0.0, beta2=0.0)
        for side in _SIDES
        if isinstance(adam := getattr(recipe, side), Adam)
    }
    terms = tuple(_with_strength(term, 1.0) for term in recipe.d_terms if not isinstance(term, R1))
    leak = dataclasses.replace(recipe.leak or Leak(0.0), beta=0.0, start=0)
    return dataclasses.replace(recipe, loss="ns", leak=leak, d_terms=terms, **alike)


def _together(each: Sequence[Recipe]) -> Recipe:
    """One recipe for replicas that have one each, alike in `_shared`: their own numbers are tuples in its records."""
    first = each[0]

    def gather(read: Callable[[Recipe], Any]) -> Any:
        return _one_or_each([read(one) for one in each])

    parts: dict[str, Any] = {}
    for side in _SIDES:
        if isinstance(adam := getattr(first, side), Adam):
            own = {name: gather(lambda r, n=name, s=side: getattr(getattr(r, s), n)) for name in _OF_ADAM}
            parts[side] = dataclasses.replace(adam, **own)
    if leaks := [one.leak for one in each if one.leak is not None]:
        beta, start = (gather(lambda r, n=name: getattr(r.leak, n, 0)) for name in ("beta", "start"))
        parts["leak"] = dataclasses.replace(leaks[0], beta=beta, start=start)
    kept = [[term for term in one.d_terms if not isinstance(term, R1)] for one in each]
    terms = tuple(
        _with_strength(same[0], _one_or_each([getattr(term, _STRENGTHS[type(term)]) for term in same]))
        if type(same[0]) in _STRENGTHS
        else same[0]
        for same in zip(*kept, strict=True)
    )
    together = dataclasses.replace(first, **parts, d_terms=terms)
    return together.changed({"r1": gather(lambda r: sum(t.gamma for t in r.d_terms if isinstance(t, R1)))})


def _with_strength(term: Term, strength: Any) -> Term:
    """The term at another strength, if it has one for each replica."""
    name = _STRENGTHS.get(type(term))
    return term if name is None else dataclasses.replace(term, **{name: strength})


def _one_or_each(values: Sequence[Any]) -> Any:
    """The value if all are equal (PyTorch's fused Adam then takes the whole stack), else a tuple."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def _judges(
    measures: Sequence[str | Measure] | None, data: Dataset, samples: int, network: str
) -> list[Measure]:
    """Measures as functions; names, and the default, share one look at the samples."""
    named = None if measures is None else [one for one in measures if isinstance(one, str)]
    judges: list[Measure] = [one for one in measures or () if not isinstance(one, str)]
    if named is None or named:
        judges.insert(0, watch(data, named, _space(data), n=samples, network=network))
    return judges


def _space(data: Dataset) -> features.FeatureSpace | None:
    """The features of the book's classifier of the data, where there is one; else None, for the samples themselves."""
    try:
        return features.classifier(data.name, train=True)
    except DataError:
        return None


@dataclass(frozen=True, eq=False)
class _Look:
    """What `Trainer.fit` calls: measures and a callback, each when it is due, and at the end."""

    judges: Sequence[Measure]
    every: int
    callback: Measure | None
    callback_every: int
    steps: int

    @property
    def interval(self) -> int:
        return self.every if self.callback is None else math.gcd(self.every, self.callback_every)

    def __call__(self, run: Trainer) -> dict[str, Any]:
        row: dict[str, Any] = {}
        if self.callback is not None and (run.steps % self.callback_every == 0 or run.steps == self.steps):
            row |= self.callback(run) or {}
        if run.steps % self.every == 0 or run.steps == self.steps:
            for judge in self.judges:
                row |= judge(run) or {}
        return row


def _take_apart(
    result: dict[str, Any], run: Trainer, names: Sequence[str], n: int, every: int | None, steps: int
) -> None:
    """Write a run's history into a result, each variant's columns under its name."""
    rows = run.history
    logged = {"d_loss", "g_loss", "real_logit", "fake_logit", "g_grad", "d_grad"}
    judged = [row["step"] for row in rows if every and (row["step"] % every == 0 or row["step"] == steps)]
    result.setdefault("steps", judged)
    result.setdefault("log_steps", [row["step"] for row in rows])
    result.setdefault("judged", [])
    for key in dict.fromkeys(key for row in rows for key in row if key not in ("step", "images", "seconds")):
        held = [row for row in rows if key in row]
        clock = [row["step"] for row in held]
        if key not in logged and clock == judged:
            result["judged"] = list(dict.fromkeys([*result["judged"], key]))
        elif clock != result["log_steps"]:
            result["clocks"][key] = clock
        for i, name in enumerate(names):
            mine = slice(i * n, (i + 1) * n)
            result["curves"].setdefault(name, {})[key] = [_finite(row[key][mine]) for row in held]


def _finite(values: Any) -> Any:
    """Numbers that JSON can say."""
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return values if math.isfinite(values) else None


def _claim(folder: Path, parts: Sequence[Group], seeds: Sequence[int]) -> None:
    """Write down whose folder it is, or refuse one of another study."""
    ours = {
        "seeds": list(seeds),
        "variants": [{name: one.stored(seeds) for name, one in group.variants.items()} for group in parts],
    }
    ours = json.loads(json.dumps(ours, default=str))
    path = folder / "study.json"
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(ours, indent=1))
    elif json.loads(path.read_text()) != ours:
        raise ValueError(
            f"folder {folder} holds a study with other seeds, variants or recipe: choose another"
        )
