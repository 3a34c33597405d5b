"""Disjoint supports: two Gaussians in R^32, a linear discriminator and four ways to train (LeakyEMA paper, 3.5).

The data are N(0, variance * I), the generator is N(mu, variance * I) with mu_0 = (1, ..., 1), and
D(x) = <x, xi> + b. Both are trained by plain SGD, five discriminator steps per generator step. All seeds run side
by side.

Because D is linear, a sample z enters a step only through its projection <z, xi>, which decides its weight, and
through the weighted sum of all samples. :func:`projected_noise` draws exactly these two: it costs one normal number
per sample in place of 32, and has the same distribution as :func:`full_noise`, which draws whole samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WeightedSum = Callable[[Tensor], Tensor]
Noise = Callable[[torch.Generator, Tensor, int], tuple[Tensor, WeightedSum]]
"""From a random generator, directions xi ``[S, d]`` and a number of samples n: the projections ``<z_i, xi>``,
``[S, n]``, of standard normal z_i in R^d, and a function from coefficients ``[S, n]``, which may depend on the
projections, to ``sum_i c_i z_i``, ``[S, d]``. The function may be called once."""


def full_noise(generator: torch.Generator, xi: Tensor, count: int) -> tuple[Tensor, WeightedSum]:
    """Whole samples, ``[S, n, d]``: the definition."""
    z = torch.randn(xi.shape[0], count, xi.shape[1], generator=generator, dtype=xi.dtype)
    return torch.einsum("snd,sd->sn", z, xi), lambda c: torch.einsum("sn,snd->sd", c, z)


def projected_noise(generator: torch.Generator, xi: Tensor, count: int) -> tuple[Tensor, WeightedSum]:
    """Only what a linear discriminator sees, with the same joint distribution as :func:`full_noise`.

    With the unit vector e along xi, ``z_i = p_i e + q_i`` where p_i is standard normal, q_i is standard normal in the
    hyperplane orthogonal to e, and all are independent. The coefficients depend on the p_i (and on other things
    independent of the q_i), so given the p_i

        sum_i c_i z_i = (sum_i c_i p_i) e + sum_i c_i q_i,    sum_i c_i q_i ~ N(0, (sum_i c_i^2) (I - e e^T)):

    one normal vector, projected on the hyperplane and scaled, takes the place of n of them. For xi = 0 there is no e;
    all projections are then 0, and the sum is N(0, (sum_i c_i^2) I).
    """
    norm = xi.norm(dim=1, keepdim=True)
    unit = xi / norm.clamp_min(torch.finfo(xi.dtype).tiny)
    p = torch.randn(xi.shape[0], count, generator=generator, dtype=xi.dtype)

    def weighted_sum(c: Tensor) -> Tensor:
        g = torch.randn(xi.shape, generator=generator, dtype=xi.dtype)
        across = g - (g * unit).sum(1, keepdim=True) * unit
        return (c * p).sum(1, keepdim=True) * unit + c.norm(dim=1, keepdim=True) * across

    return p * norm, weighted_sum


@dataclass(frozen=True)
class Setup:
    """One of the four ways to train.

    Attributes:
        title: name for a legend.
        batch: samples of each kind per step.
        noise_variance: variance of the instance noise at the start; it falls linearly to 0.
        beta: fraction of the real samples taken from the averaged generator, in [0, 1].
    """

    title: str
    batch: int = 2
    noise_variance: float = 0.0
    beta: float = 0.0


SETUPS: Mapping[str, Setup] = {
    "default": Setup("Default"),
    "instance-noise": Setup("Instance noise", noise_variance=3.0),
    "instance-noise-1024": Setup("Instance noise, batch 1024", batch=1024, noise_variance=3.0),
    "leakyema": Setup("LeakyEMA", beta=0.5),
}

GENERATOR_WEIGHTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mm": torch.sigmoid,
    "ns": lambda logits: torch.sigmoid(-logits),
}
"""How strongly a sample of logit f pulls the generator, -dL_G / df: the paper's L_G is "mm", the minimax loss;
"ns" is the non-saturating one."""


@dataclass(frozen=True)
class Choices:
    """What the text of section 3.5 leaves open; the defaults are our reading.

    Attributes:
        variance: of data and generator in each direction. "N(0, 0.1 I)" says 0.1; 0.01 reads 0.1 as a standard
            deviation.
        d_std: standard deviation of D's initial parameters ("picked from the normal distribution").
        shared_noise: whether the teacher's samples use the generator's z (section 3.3 says so) or fresh ones.
        teacher_start: where the average starts, as a multiple of mu_0: 1, or the 0 of appendix A (footnote 4).
        loss: a key of `GENERATOR_WEIGHTS`.
    """

    variance: float = 0.1
    d_std: float = 1.0
    shared_noise: bool = True
    teacher_start: float = 1.0
    loss: str = "mm"


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind; T generator steps, S seeds, K samples.

    Attributes:
        norms: |mu| before the first and after each generator step, ``[T + 1, S]``.
        teacher_norms: the same for the averaged generator.
        outputs: sigma(D(G(z))) after the snapshot step, ``[S, K]``, in [0, 1].
        noisy_outputs: the same with the instance noise of that step, as D sees its inputs in training.
    """

    norms: np.ndarray
    teacher_norms: np.ndarray
    outputs: np.ndarray
    noisy_outputs: np.ndarray


@dataclass
class _State:
    mu: Tensor
    teacher: Tensor
    xi: Tensor
    b: Tensor


def train(
    setup: Setup,
    seeds: Sequence[int],
    steps: int = 5000,
    choices: Choices | None = None,
    *,
    d_steps: int = 5,
    lr: float = 0.05,
    alpha: float = 0.99,
    dim: int = 32,
    snapshot: int = 200,
    samples: int = 500,
    noise: Noise = projected_noise,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Run:
    """Train one set-up on all seeds at once, in float32 on the CPU.

    A seed fixes D's first parameters, the same in every set-up; the samples are fixed by all seeds together.

    Args:
        setup: how to train, a value of `SETUPS`.
        seeds: one run each.
        steps: generator steps, >= 1.
        choices: the open choices; None for the defaults.
        d_steps: discriminator steps per generator step, >= 1.
        lr: learning rate of both players, > 0.
        alpha: decay of the average per generator step, in [0, 1).
        dim: dimension d of the samples, >= 1.
        snapshot: generator step after which D's outputs are kept, in [0, steps].
        samples: number K of those outputs per seed.
        noise: where the samples come from.
        progress: wrapped around the loop's range, `tqdm` say.

    Returns:
        Norms and outputs.

    Raises:
        ValueError: no seeds, an unknown loss, or a number out of its range.
    """
    choices = choices or Choices()
    if not seeds:
        raise ValueError("seeds must name at least one run, got none")
    if choices.loss not in GENERATOR_WEIGHTS:
        raise ValueError(f"choices.loss must be one of {list(GENERATOR_WEIGHTS)}, got '{choices.loss}'")
    if not 0 <= setup.beta <= 1:
        raise ValueError(f"setup.beta must lie in [0, 1], got {setup.beta}")
    if not (steps >= 1 and d_steps >= 1 and 0 <= snapshot <= steps):
        raise ValueError(
            f"need steps >= 1, d_steps >= 1 and 0 <= snapshot <= steps, got {steps}, {d_steps} and {snapshot}"
        )

    start = torch.stack(
        [
            torch.randn(dim + 1, generator=torch.Generator().manual_seed(seed)) * choices.d_std
            for seed in seeds
        ]
    )
    ones = torch.ones(len(seeds), dim)
    state = _State(ones, choices.teacher_start * ones, start[:, :dim].contiguous(), start[:, dim:])
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(list(seeds)).generate_state(1)[0]))
    weight = GENERATOR_WEIGHTS[choices.loss]

    norms, teacher_norms = [state.mu.norm(dim=1)], [state.teacher.norm(dim=1)]
    kept: tuple[Tensor, Tensor] | None = None
    with _one_thread():
        for step in progress(range(steps)):
            spread = _spread(setup, choices, step, steps)
            if step == snapshot:
                kept = _outputs(state, samples, choices, spread, generator, noise)
            for _ in range(d_steps):
                _d_step(state, setup, choices, spread, lr, generator, noise)
            projections, _ = noise(generator, state.xi, setup.batch)
            pull = weight(_logit(state, state.mu) + spread * projections).mean(1, keepdim=True)
            state.mu = state.mu + lr * pull * state.xi
            state.teacher = alpha * state.teacher + (1 - alpha) * state.mu
            norms.append(state.mu.norm(dim=1))
            teacher_norms.append(state.teacher.norm(dim=1))
    if kept is None:
        kept = _outputs(state, samples, choices, _spread(setup, choices, steps, steps), generator, noise)
    return Run(torch.stack(norms).numpy(), torch.stack(teacher_norms).numpy(), *(k.numpy() for k in kept))


@contextmanager
def _one_thread() -> Iterator[None]:
    """These tensors are too small to share: a second thread would only wait, and cost other processes their core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():  # gradients are written out: autograd need not keep records
            yield
    finally:
        torch.set_num_threads(before)


def _spread(setup: Setup, choices: Choices, step: int, steps: int) -> float:
    """Standard deviation of a sample with the instance noise of this step: two independent normals add up to one."""
    return (choices.variance + setup.noise_variance * (1 - step / steps)) ** 0.5


def _logit(state: _State, centre: Tensor) -> Tensor:
    return (centre * state.xi).sum(1, keepdim=True) + state.b


def _d_step(
    state: _State,
    setup: Setup,
    choices: Choices,
    spread: float,
    lr: float,
    generator: torch.Generator,
    noise: Noise,
) -> None:
    """One SGD step on L_D = -E log(1 - sigma(D(fake))) - E log sigma(D(real)), its gradient written out."""
    batch, taught = setup.batch, round(setup.beta * setup.batch)
    reused = taught if choices.shared_noise else 0
    count = 2 * batch - reused
    projections, weighted_sum = noise(generator, state.xi, count)
    projections = spread * projections
    # In this order: fake samples, the teacher's samples (the first fakes again if they share z), data.
    fake = torch.sigmoid(_logit(state, state.mu) + projections[:, :batch]) / batch
    real = torch.sigmoid(-(state.b + projections[:, count - (batch - taught) :])) / batch
    d_xi = fake.sum(1, keepdim=True) * state.mu
    d_b = fake.sum(1, keepdim=True) - real.sum(1, keepdim=True)
    if taught:
        theirs = projections[:, :taught] if reused else projections[:, batch : batch + taught]
        leaked = torch.sigmoid(-(_logit(state, state.teacher) + theirs)) / batch
        d_xi = d_xi - leaked.sum(1, keepdim=True) * state.teacher
        d_b = d_b - leaked.sum(1, keepdim=True)
        if reused:
            coefficients = torch.cat([fake[:, :taught] - leaked, fake[:, taught:], -real], dim=1)
        else:
            coefficients = torch.cat([fake, -leaked, -real], dim=1)
    else:
        coefficients = torch.cat([fake, -real], dim=1)
    d_xi = d_xi + spread * weighted_sum(coefficients)
    state.xi = state.xi - lr * d_xi
    state.b = state.b - lr * d_b


def _outputs(
    state: _State, samples: int, choices: Choices, spread: float, generator: torch.Generator, noise: Noise
) -> tuple[Tensor, Tensor]:
    projections, _ = noise(generator, state.xi, samples)
    centre = _logit(state, state.mu)
    return torch.sigmoid(centre + choices.variance**0.5 * projections), torch.sigmoid(
        centre + spread * projections
    )
