"""Walks, mixed styles, truncation in W, and projection into W."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import gankit as gk
from gankit.metrics.similarity import feature_distance, squared_distance
from gankit.models.walking import RANGES, mixed_styles, truncation_sweep, walk
from gankit.training.inversion import invert, rate_at


def style_generator(**settings) -> nn.Module:
    """A small StyleGAN2 whose mean w is not zero, in training mode."""
    G, _ = gk.models.stylegan2((1, 16, 16), z_dim=6, width=4, mapping=2, **settings)
    with torch.no_grad():
        G.w_avg.normal_(generator=torch.Generator().manual_seed(3))
    return G


def latents(n: int, z_dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, z_dim, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    """Pictures that are a matrix times w, and w that is z."""

    def __init__(self, z_dim: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.z_dim, self.shape = z_dim, shape
        matrix = torch.randn(math.prod(shape), z_dim, generator=torch.Generator().manual_seed(1))
        self.matrix = nn.Parameter(matrix.double())

    def mapping(self, z: Tensor) -> Tensor:
        return z

    def synthesis(self, w: Tensor) -> Tensor:
        return (w @ self.matrix.T).unflatten(-1, self.shape)

    def forward(self, z: Tensor) -> Tensor:
        return self.synthesis(z)


# --- Walks -------------------------------------------------------------------------------------------------------


def test_a_walk_comes_back_and_every_moment_of_it_is_an_ordinary_latent():
    G = Linear(5, (5,))
    with torch.no_grad():
        G.matrix.copy_(torch.eye(5))
    z = torch.stack(list(walk(G, 8, 20_000)))  # the pictures are the latents
    torch.testing.assert_close(z[0] + z[4], torch.zeros_like(z[0]), atol=1e-6, rtol=0)
    for moment, after in zip(z, z.roll(-1, 0), strict=True):
        assert torch.allclose(moment.mean(0), torch.zeros(5, dtype=torch.float64), atol=0.04)
        assert torch.allclose(torch.cov(moment.T), torch.eye(5, dtype=torch.float64), atol=0.04)
        # E|z(t) - z(t + dt)|^2 = 2 d (1 - cos(2 pi dt)): the speed is that of the whole way
        apart = (moment - after).square().sum(1).mean()
        assert apart.item() == pytest.approx(10 * (1 - math.cos(math.pi / 4)), rel=0.02)


def test_replicas_of_a_walk_see_the_same_latents_and_batch_norm_stays():
    G, _ = gk.pair(lambda seed: gk.models.dcgan((1, 8, 8), z_dim=3, width=2, seed=seed), (0, 1))
    before = copy.deepcopy(G.state_dict())
    frames = list(walk(G, 3, 2, seed=5))
    assert [frame.shape for frame in frames] == [(2, 2, 1, 8, 8)] * 3
    assert G.training
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    alone = list(walk(gk.models.dcgan((1, 8, 8), z_dim=3, width=2, seed=1)[0], 3, 2, seed=5))
    torch.testing.assert_close(frames[1][1], alone[1])


def test_labels_of_a_walk_stay():
    G, _ = gk.models.projection_gan((1, 8, 8), 4, z_dim=3, width=2)
    seen = []
    G.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].tolist()))
    list(walk(G, 2, 3, labels=torch.tensor([3, 0, 1])))
    list(walk(G, 2, 3))
    assert seen[0] == seen[1] == [3, 0, 1]
    assert seen[2] == seen[3]


# --- Styles ------------------------------------------------------------------------------------------------------


def test_mixed_styles_have_the_layers_of_either():
    G = style_generator()
    rows, columns = latents(2), latents(3, seed=1)
    a, b = (G.eval()(z) for z in (rows, columns))
    G.train()
    layers = G.synthesis.layers
    torch.testing.assert_close(
        mixed_styles(G, rows, columns, slice(0, layers)), b[None].expand(2, -1, -1, -1, -1)
    )
    mixed = mixed_styles(G, rows, columns, RANGES["coarse"])
    assert mixed.shape == (2, 3, 1, 16, 16)
    one = torch.cat([G.mapping(columns[1:2]).expand(4, -1), G.mapping(rows[:1]).expand(layers - 4, -1)])
    torch.testing.assert_close(mixed[0, 1], G.synthesis(one[None])[0])
    itself = mixed_styles(G, rows, rows, slice(2, 5))
    torch.testing.assert_close(itself.diagonal().movedim(-1, 0), a)  # a picture mixed with itself
    assert G.training


def test_styles_of_a_growing_generator_mix():
    G, _ = gk.models.stylegan((1, 16, 16), z_dim=4, width=4, mapping=2)
    assert mixed_styles(G, latents(2, 4), latents(2, 4, 1)).shape == (2, 2, 1, 16, 16)


def test_truncation_goes_from_the_mean_picture_to_the_generators_own():
    G = style_generator()
    z = latents(3)
    swept = truncation_sweep(G, z, [0.0, 0.5, 1.0])
    mean = G.synthesis(G.w_avg.expand(3, -1))
    torch.testing.assert_close(swept[0], mean)
    torch.testing.assert_close(swept[2], G.eval()(z))
    middle = G.synthesis((G.w_avg + G.mapping(z)) / 2)
    torch.testing.assert_close(swept[1], middle)
    torch.testing.assert_close(truncation_sweep(G, z, [0.0], cutoff=0)[0], swept[2])


# --- Projection into W -------------------------------------------------------------------------------------------


def test_the_projection_of_a_linear_generator_is_least_squares():
    G = Linear(3, (1, 4, 4))
    targets = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(2)).double()
    found = invert(G, targets, squared_distance, steps=400, n_mean=50)
    exact = torch.linalg.lstsq(G.matrix.detach(), targets.flatten(1).T).solution.T
    torch.testing.assert_close(found.w, exact, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        found.distances[-1], squared_distance(G(exact), targets).detach(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("each", [False, True])
def test_a_picture_of_the_generator_is_found_again(each):
    G = style_generator().eval()
    matrix = torch.randn(256, 64, generator=torch.Generator().manual_seed(0)) / 16
    distance = feature_distance(lambda x: (x.flatten(1) @ matrix).tanh())
    targets = G(latents(2, seed=4)).detach()
    found = invert(G, targets, distance, steps=150, n_mean=200, each=each)
    assert found.w.shape == ((2, 6, 6) if each else (2, 6))
    assert found.distances.shape == (151, 2)
    # With a w for each layer there are six times as many numbers to find, and as few steps.
    assert bool((found.distances[-1] < (0.1 if each else 0.001) * found.distances[0]).all())
    torch.testing.assert_close(found.pictures, G.synthesis(found.w))
    again = invert(G, targets, distance, steps=150, n_mean=200, each=each)
    assert torch.equal(again.w, found.w)


def test_a_projection_knows_the_class():
    G, _ = gk.models.stylegan2((1, 8, 8), z_dim=4, width=4, mapping=2, n_classes=3)
    targets = G.eval()(latents(1, 4), torch.tensor([2])).detach()
    found = invert(G, targets, squared_distance, steps=60, n_mean=50, labels=torch.tensor([2]))
    assert found.distances[-1] < 0.2 * found.distances[0]


def test_the_rate_rises_and_falls():
    rates = [rate_at(i / 1000) for i in range(1000)]
    assert max(rates) == rates[500] == 1
    assert rates[0] > 0
    assert rates[:50] == sorted(rates[:50])
    assert rates[750:] == sorted(rates[750:], reverse=True)
    assert rates[-1] < 1e-3


# --- Refusals ----------------------------------------------------------------------------------------------------


PLAIN = Linear(3, (1, 4, 4))
CALLS = {
    "at least 2 frames": lambda: next(walk(PLAIN, 1)),
    "one per picture, got": lambda: next(walk(PLAIN, 2, 3, labels=torch.zeros(2, dtype=torch.int64))),
    "as stylegan and stylegan2 have, got Generator": lambda: mixed_styles(
        gk.models.mlp((1, 8, 8))[0], latents(1), latents(1)
    ),
    r"layers must hold some of 0..5, got 8": lambda: mixed_styles(
        style_generator(), latents(1), latents(1), RANGES["fine"]
    ),
    "mean w, which Linear does not have": lambda: truncation_sweep(PLAIN, latents(1, 3), [0.5]),
    "psi must be finite": lambda: truncation_sweep(style_generator(), latents(1), [math.nan]),
    r"targets must be \[N, 1, 4, 4\]": lambda: invert(PLAIN, torch.zeros(1, 1, 8, 8), squared_distance),
    "lr must be above 0": lambda: invert(PLAIN, torch.zeros(1, 1, 4, 4), squared_distance, lr=0),
    "n_mean must be at least 2": lambda: invert(PLAIN, torch.zeros(1, 1, 4, 4), squared_distance, n_mean=1),
    "disturbance must be at least 0": lambda: invert(
        PLAIN, torch.zeros(1, 1, 4, 4), squared_distance, disturbance=-1
    ),
}


@pytest.mark.parametrize("message", CALLS)
def test_what_cannot_be_is_refused(message):
    with pytest.raises(ValueError, match=message):
        CALLS[message]()
