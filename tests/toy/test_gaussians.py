from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor
from torch.nn.functional import logsigmoid

from toy.gaussians import SETUPS, Choices, Noise, Setup, full_noise, projected_noise, train

torch.set_num_threads(1)


def recorded(tape: list[Tensor]) -> Noise:
    """`full_noise`, writing down what it drew."""

    def noise(generator: torch.Generator, xi: Tensor, count: int):
        z = torch.randn(xi.shape[0], count, xi.shape[1], generator=generator)
        tape.append(z)
        return torch.einsum("snd,sd->sn", z, xi), lambda c: torch.einsum("sn,snd->sd", c, z)

    return noise


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "setup",
    [
        Setup("d", batch=3),
        Setup("i", batch=3, noise_variance=2.0),
        Setup("l", batch=4, beta=0.5),
        Setup("t", beta=1.0),
    ],
)
@pytest.mark.parametrize("loss", ["mm", "ns"])
def test_steps_are_sgd_on_the_papers_losses(setup: Setup, shared: bool, loss: str) -> None:
    """The same run with autograd, from the samples that were drawn."""
    tape: list[Tensor] = []
    choices = Choices(variance=0.2, d_std=0.3, shared_noise=shared, teacher_start=0.5, loss=loss)
    seeds, steps, d_steps, dim, batch, lr, alpha = [3, 4], 3, 2, 5, setup.batch, 0.1, 0.9
    run = train(
        setup,
        seeds,
        steps,
        choices,
        d_steps=d_steps,
        dim=dim,
        lr=lr,
        alpha=alpha,
        snapshot=steps,
        samples=7,
        noise=recorded(tape),
    )
    taught = round(setup.beta * batch)
    start = torch.stack(
        [0.3 * torch.randn(dim + 1, generator=torch.Generator().manual_seed(s)) for s in seeds]
    )
    xi, b = start[:, :dim], start[:, dim]
    mu, teacher = torch.ones(2, dim), 0.5 * torch.ones(2, dim)
    draws = iter(tape)

    def logits(x: Tensor) -> Tensor:
        return torch.einsum("snd,sd->sn", x, xi) + b[:, None]

    for step in range(steps):
        spread = (0.2 + setup.noise_variance * (1 - step / steps)) ** 0.5
        for _ in range(d_steps):
            z = next(draws)
            z_fake = z[:, :batch]
            z_teacher = z[:, :taught] if shared else z[:, batch : batch + taught]
            z_data = z[:, z.shape[1] - (batch - taught) :]
            real = torch.cat([teacher[:, None] + spread * z_teacher, spread * z_data], dim=1)
            assert real.shape == (2, batch, dim)
            xi.requires_grad_(), b.requires_grad_()
            d_loss = -logsigmoid(-logits(mu[:, None] + spread * z_fake)).mean(1) - logsigmoid(
                logits(real)
            ).mean(1)
            grad_xi, grad_b = torch.autograd.grad(d_loss.sum(), (xi, b))
            xi, b = (xi - lr * grad_xi).detach(), (b - lr * grad_b).detach()
        mu.requires_grad_()
        fake = logits(mu[:, None] + spread * next(draws))
        g_loss = logsigmoid(-fake).mean(1) if loss == "mm" else -logsigmoid(fake).mean(1)
        mu = (mu - lr * torch.autograd.grad(g_loss.sum(), mu)[0]).detach()
        teacher = alpha * teacher + (1 - alpha) * mu
    np.testing.assert_allclose(run.norms[-1], mu.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(run.teacher_norms[-1], teacher.norm(dim=1), rtol=1e-5)
    want = torch.sigmoid(logits(mu[:, None] + 0.2**0.5 * next(draws)))
    np.testing.assert_allclose(run.outputs, want, rtol=1e-4)
    assert next(draws, None) is None


@pytest.mark.parametrize("noise", [full_noise, projected_noise])
def test_weighted_sums_have_the_exact_mean_and_covariance(noise: Noise) -> None:
    """Coefficients that depend on the projections, against quadrature over one projection."""
    runs, dim, count = 40_000, 3, 4
    direction = torch.tensor([0.6, 0.0, -0.8])
    xi = (1.5 * direction).expand(runs, dim)
    projections, weighted_sum = noise(torch.Generator().manual_seed(1), xi, count)
    # sigmoid(<z, xi>) is a GAN's weight; the last sample counts negatively, as real ones do.
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0])
    sums = weighted_sum(signs * torch.sigmoid(projections)).double().numpy()
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    c = 1 / (1 + np.exp(-1.5 * nodes))
    first, along, across = weights @ (c * nodes), weights @ (c * nodes) ** 2, weights @ c**2
    e = direction.numpy().astype(float)
    mean = signs.sum().item() * first * e
    covariance = count * ((along - first**2) * np.outer(e, e) + across * (np.eye(dim) - np.outer(e, e)))
    np.testing.assert_allclose(sums.mean(0), mean, atol=5 * np.sqrt(covariance.max() / runs))
    np.testing.assert_allclose(np.cov(sums.T), covariance, atol=0.05)
    # The sum and the projections it was weighted by belong together.
    seen = np.corrcoef(sums @ e, (projections * signs).sum(1).numpy())[0, 1]
    assert seen > 0.8


def test_projected_noise_stays_exact_where_xi_is_zero() -> None:
    projections, weighted_sum = projected_noise(torch.Generator().manual_seed(0), torch.zeros(30_000, 2), 3)
    assert (projections == 0).all()
    covariance = np.cov(weighted_sum(torch.tensor([[1.0, -2.0, 0.5]]).expand(30_000, 3)).numpy().T)
    np.testing.assert_allclose(covariance, 5.25 * np.eye(2), atol=0.15)


@pytest.mark.parametrize(
    "setup",
    [SETUPS["default"], SETUPS["leakyema"], replace(SETUPS["instance-noise"], batch=4)],
    ids=["default", "leakyema", "noise"],
)
def test_whole_runs_have_the_same_distribution(setup: Setup) -> None:
    """Kolmogorov-Smirnov over 1,500 runs each, with different samples: chance is fixed by the seeds."""
    choices = Choices(variance=1.0, d_std=0.3)
    runs = {
        noise: train(setup, seeds, 150, choices, lr=0.2, dim=8, snapshot=150, samples=1, noise=noise)
        for noise, seeds in ((full_noise, range(1500)), (projected_noise, range(5000, 6500)))
    }
    for read in (lambda run: run.norms[20], lambda run: run.norms[-1], lambda run: run.outputs[:, 0]):
        assert ks_2samp(*(read(run) for run in runs.values())).pvalue > 1e-3
    # The test can tell: without the orthogonal part the sum is a different one.
    runs = [
        train(setup, range(2000, 3500), 150, choices, lr=0.2, dim=8, snapshot=150, samples=1, noise=noise)
        for noise in (full_noise, no_orthogonal_part)
    ]
    assert ks_2samp(*(run.norms[-1] for run in runs)).pvalue < 1e-6


def no_orthogonal_part(generator: torch.Generator, xi: Tensor, count: int):
    norm = xi.norm(dim=1, keepdim=True)
    p = torch.randn(xi.shape[0], count, generator=generator)
    return p * norm, lambda c: (c * p).sum(1, keepdim=True) * xi / norm


def test_a_seed_fixes_the_first_discriminator_in_every_setup() -> None:
    short = {
        name: train(setup, [5, 6], 1, Choices(d_std=0.1), snapshot=0, samples=400)
        for name, setup in SETUPS.items()
    }
    medians = {name: np.median(run.outputs, axis=1) for name, run in short.items()}
    for name in SETUPS:
        np.testing.assert_allclose(medians[name], medians["default"], atol=0.03)
    assert abs(np.diff(medians["default"])) > 0.06


def test_runs_repeat_and_start_where_they_should() -> None:
    first, again = (
        train(SETUPS["leakyema"], [0, 1], 20, Choices(teacher_start=0.0), snapshot=3) for _ in range(2)
    )
    assert (first.norms == again.norms).all()
    assert (first.outputs == again.outputs).all()
    assert first.norms.shape == (21, 2)
    assert first.norms[0] == pytest.approx(np.sqrt(32))
    assert (first.teacher_norms[0] == 0).all()
    assert ((first.outputs > 0) & (first.outputs < 1)).all()


def test_noise_is_gone_at_the_end() -> None:
    run = train(SETUPS["instance-noise"], [0, 1, 2], 30, Choices(d_std=0.3), snapshot=30, samples=4000)
    np.testing.assert_allclose(run.outputs.std(1), run.noisy_outputs.std(1), rtol=0.1)
    run = train(SETUPS["instance-noise"], [0, 1, 2], 30, Choices(d_std=0.3), snapshot=0, samples=4000)
    assert (run.noisy_outputs.std(1) > 2 * run.outputs.std(1)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "seeds must name"),
        ({"choices": Choices(loss="hinge")}, "must be one of"),
        ({"setup": Setup("x", beta=1.5)}, "must lie in"),
        ({"steps": 10, "snapshot": 11}, "snapshot <= steps"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(**{"setup": SETUPS["default"], "seeds": [0], **arguments})
