import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gankit as gk
from gankit.metrics.path_length import (
    ConsecutiveDistance,
    consecutive_distance,
    cropped,
    path_lengths,
    perceptual_path_length,
    slerp,
)
from gankit.metrics.similarity import squared_distance
from gankit.models.sampling import sample

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=60)


class Linear(nn.Module):
    """Images that are a matrix times z, in one network or in the two halves of a StyleGAN."""

    def __init__(self, z_dim=3, out=5, dtype=torch.float64, noise=0.0):
        super().__init__()
        self.z_dim, self.noise, self.seen = z_dim, noise, []
        matrix = torch.randn(z_dim, out, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.matrix = nn.Parameter(matrix.to(dtype))

    def mapping(self, z):
        self.seen.append(z)
        return 2 * z

    def synthesis(self, w):
        x = w @ self.matrix
        return x + self.noise * torch.randn_like(x)

    def forward(self, z):
        return self.synthesis(z)


class Identity(nn.Module):
    """Images that are their latent vectors; remembers what it was given."""

    def __init__(self, z_dim, n_classes=0):
        super().__init__()
        self.z_dim, self.n_classes, self.seen = z_dim, n_classes, []
        self.nothing = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, z, labels=None):
        self.seen.append((z, labels, self.training))
        return z + 0


# --- Arcs ------------------------------------------------------------------------------------------------------


@relaxed
@given(st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_slerp_runs_along_the_arc_at_constant_speed(d, seed, s, t):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 4, d, generator=generator, dtype=torch.float64)
    whole = torch.nn.functional.cosine_similarity(a, b).clamp(-1, 1).acos()
    start, stop = (slerp(a, b, torch.full((4,), share, dtype=torch.float64)) for share in (s, t))
    assert torch.allclose(start.norm(dim=1), torch.ones(4, dtype=torch.float64))
    chord = (start - stop).norm(dim=1)
    assert torch.allclose(chord, 2 * (abs(t - s) * whole / 2).sin(), atol=1e-7)
    zero = torch.zeros(4, dtype=torch.float64)
    assert torch.allclose(slerp(a, b, zero), a / a.norm(dim=1, keepdim=True))
    assert torch.allclose(slerp(a, b, zero + 1), b / b.norm(dim=1, keepdim=True))
    assert torch.allclose(slerp(3 * a, b / 2, zero + t), stop)  # lengths do not matter


def test_slerp_between_equal_and_nearly_equal_directions_stays_there():
    a = torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    assert torch.allclose(slerp(a, a, half), a / 3)
    near = a + torch.tensor([[0.0, 1e-9, -1e-9]], dtype=torch.float64)
    moved = (slerp(a, near, half) - a / 3).norm().item()
    assert moved == pytest.approx(0.5 * math.sqrt(2) * 1e-9 / 3, rel=1e-6)


# --- Path lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t_range", [(0.0, 1.0), (0.0, 0.0), (1.0, 1.0)])
def test_linear_generator_along_straight_lines_in_closed_form(t_range):
    """(w_2 - w_1) A does not depend on t or epsilon."""
    G = Linear()
    lengths = path_lengths(G, squared_distance, 40, space="w", t_range=t_range, batch_size=40)
    a, b = (2 * z for z in G.seen)
    expected = ((b - a) @ G.matrix).square().sum(1)
    assert lengths.dtype == torch.float64
    assert torch.allclose(lengths, expected, rtol=1e-6)
    mean = perceptual_path_length(G, squared_distance, 40, space="w", t_range=t_range, discard=0)
    assert mean.item() == pytest.approx(expected.mean().item(), rel=1e-6)


def test_mean_of_the_linear_generator():
    """E |(w_2 - w_1) A|^2 = 2 * 2^2 |A|_F^2, for w = 2 z."""
    G = Linear()
    lengths = path_lengths(G, squared_distance, 20_000, space="w", batch_size=5000)
    error = lengths.std() / math.sqrt(len(lengths))
    assert abs(lengths.mean() - 8 * G.matrix.square().sum()) < 4 * error


@pytest.mark.parametrize(("z_dim", "square"), [(2, math.pi**2 / 3), (3, (math.pi**2 - 4) / 2)])
def test_identity_along_arcs_is_the_squared_angle_in_closed_form(z_dim, square):
    """Angles of normal vectors: uniform in the plane, sin(t) / 2 in space. The sphere has radius sqrt(z_dim)."""
    G = Identity(z_dim)
    lengths = path_lengths(G, squared_distance, 20_000, batch_size=20_000) / z_dim
    (start, _, _), (moved, _, _) = G.seen
    assert torch.allclose(start.norm(dim=1), torch.full((20_000,), math.sqrt(z_dim), dtype=torch.float64))
    assert torch.allclose(moved.norm(dim=1), start.norm(dim=1))
    assert abs(lengths.mean() - square) < 4 * lengths.std() / math.sqrt(20_000)
    assert lengths.max() <= math.pi**2 * (1 + 1e-6)
    chord = (start - moved).norm(dim=1) / math.sqrt(z_dim)
    assert torch.allclose(lengths, (2 * torch.asin(chord / 2) / 1e-4).square(), rtol=1e-6)


def test_single_precision_hardly_matters_at_the_usual_step():
    exact = path_lengths(Linear(), squared_distance, 500)
    single = path_lengths(Linear(dtype=torch.float32), squared_distance, 500)
    assert torch.allclose(single.mean(), exact.mean(), rtol=1e-4)
    assert torch.allclose(single, exact, rtol=0.05, atol=0.05 * exact.mean().item())


def test_the_ends_of_paths_are_the_first_latent_vectors():
    G = Identity(4)
    path_lengths(G, squared_distance, 10, t_range=(0, 0), batch_size=10)
    path_lengths(G, squared_distance, 10, t_range=(0, 1), batch_size=10)
    path_lengths(G, squared_distance, 10, t_range=(1, 1), batch_size=10)
    first, full, last = (G.seen[2 * i][0] / 2 for i in range(3))
    along = (first * full).sum(1).acos() + (full * last).sum(1).acos()
    assert torch.allclose(along, (first * last).sum(1).acos(), atol=1e-6)  # full lies on the arc between them


@pytest.mark.parametrize("space", ["z", "w"])
def test_both_images_of_a_pair_see_the_same_noise(space):
    quiet = path_lengths(Linear(), squared_distance, 20, space=space, batch_size=6)
    before = torch.get_rng_state()
    noisy = path_lengths(Linear(noise=1.0), squared_distance, 20, space=space, batch_size=6)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.allclose(noisy, quiet, rtol=1e-5)


class Speckled(Linear):
    """Noise that multiplies: it does not cancel between the two images of a pair."""

    def synthesis(self, w):
        x = w @ self.matrix
        return x * torch.rand_like(x)


def test_noise_comes_from_the_seed_and_not_from_the_global_state():
    results = []
    for state in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state)
            results.append(path_lengths(Speckled(), squared_distance, 20))
    assert torch.equal(*results)
    assert not torch.allclose(results[0], path_lengths(Speckled(), squared_distance, 20, seed=1))


def test_seeds_and_batches():
    G = Linear()
    one = path_lengths(G, squared_distance, 25, batch_size=25)
    assert torch.allclose(one, path_lengths(G, squared_distance, 25, batch_size=4), rtol=1e-9)
    assert not torch.allclose(one, path_lengths(G, squared_distance, 25, seed=1))


def test_conditional_generators_get_one_label_for_each_pair_in_evaluation_mode():
    G = Identity(3, n_classes=4)
    path_lengths(G, squared_distance, 50, batch_size=50)
    (_, first, training), (_, second, _) = G.seen
    assert torch.equal(first, second)
    assert first.unique().tolist() == [0, 1, 2, 3]
    assert not training
    assert G.training


def test_an_ensemble_gives_each_replica_its_own_length():
    G = gk.Ensemble(lambda seed: gk.models.mlp((2,), z_dim=3, depth=2, width=8, seed=seed)[0], seeds=(3, 5))
    lengths = path_lengths(G, squared_distance, 11, batch_size=5)
    assert lengths.shape == (2, 11)
    means = perceptual_path_length(G, squared_distance, 11, discard=0.2, batch_size=5)
    for i in range(2):
        alone = path_lengths(G.replica(i), squared_distance, 11)
        # float32: the images of a pair are equal in their first four digits.
        assert torch.allclose(lengths[i], alone, rtol=0.05, atol=0.05 * alone.mean().item())
        assert means[i].item() == pytest.approx(lengths[i].sort().values[2:-2].mean().item(), rel=1e-9)
    assert means[0] != means[1]


@relaxed
@given(st.integers(2, 300), st.sampled_from([0.0, 0.01, 0.1, 0.3]), st.integers(0, 1000))
def test_extremes_are_left_out_as_numpys_percentiles_say(n, discard, seed):
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 50, n) * 1e-8)  # with ties
    given_out = iter([values])
    mean = perceptual_path_length(
        Linear(), lambda a, b: next(given_out), n, discard=discard, batch_size=n
    ).item()
    lengths = values.numpy() / 1e-8
    low = np.percentile(lengths, 100 * discard, method="lower")
    high = np.percentile(lengths, 100 * (1 - discard), method="higher")
    assert mean == pytest.approx(lengths[(low <= lengths) & (lengths <= high)].mean(), rel=1e-9, abs=1e-12)


def first_coordinate(a, b):
    return (a - b)[:, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: path_lengths(Linear(), squared_distance, 1), "n must be at least 2, got 1"),
        (lambda: path_lengths(Linear(), squared_distance, 9, batch_size=0), "batch_size must be at least 1"),
        (lambda: path_lengths(Linear(), squared_distance, 9, t_range=(0.5, 0.2)), r"t_range .* \(0.5, 0.2\)"),
        (
            lambda: path_lengths(Linear(), squared_distance, 9, epsilon=0.0),
            "epsilon must be above 0, got 0.0",
        ),
        (lambda: path_lengths(Linear(), squared_distance, 9, epsilon=math.nan), "epsilon .* got nan"),
        (
            lambda: path_lengths(Linear(), squared_distance, 9, space="v"),
            "space must be one of z, w, got 'v'",
        ),
        (lambda: path_lengths(Linear(z_dim=1), squared_distance, 9), "z_dim of at least 2, got 1"),
        (lambda: path_lengths(Identity(3), squared_distance, 9, space="w"), "G.mapping .* got Identity"),
        (lambda: perceptual_path_length(Linear(), squared_distance, 9, discard=0.5), "discard .* got 0.5"),
        (
            lambda: path_lengths(Linear(), lambda a, b: (a - b).abs(), 9),
            r"one number for each of 9 pairs, got shape \[9, 5\]",
        ),
        (
            lambda: path_lengths(Linear(), lambda a, b: first_coordinate(a, b) * math.nan, 9),
            "distance must be finite",
        ),
        (
            lambda: path_lengths(
                gk.Ensemble(lambda seed: gk.models.mlp((2,), z_dim=3, seed=seed)[0], [0, 1]),
                squared_distance,
                9,
                space="w",
            ),
            "one generator .* got Ensemble",
        ),
    ],
)
def test_path_lengths_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- Consecutive steps -----------------------------------------------------------------------------------------


@relaxed
@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 1000))
def test_consecutive_distance_is_the_mean_over_samples(n, batch_size, seed):
    before, after = np.random.default_rng(seed).standard_normal((2, n, 1, 4, 4))
    value = consecutive_distance(
        torch.from_numpy(before), torch.from_numpy(after), squared_distance, batch_size=batch_size
    )
    assert value.item() == pytest.approx(((before - after) ** 2).sum() / n, rel=1e-12)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), r"\[3, 2\] and \[4, 2\]"),
        (torch.zeros(1, 2), torch.zeros(1, 2), "N >= 2"),
        (torch.zeros(3), torch.zeros(3), r"\[3\] and \[3\]"),
        (torch.zeros(3, 2), torch.full((3, 2), math.nan), "distance must be finite"),
    ],
)
def test_consecutive_distance_refuses(before, after, message):
    with pytest.raises(ValueError, match=message):
        consecutive_distance(before, after, squared_distance)


def ring_run(seeds=None):
    data = gk.data.load("ring", n=500)

    def make(seed):
        return gk.models.mlp(data.shape, z_dim=4, depth=1, width=8, seed=seed)

    G, D = make(0) if seeds is None else gk.pair(make, seeds)
    return gk.Trainer(G, D, data, batch_size=8, g_optimizer=gk.Adam(lr=1e-2))


@pytest.mark.parametrize("seeds", [None, (0, 1)])
def test_the_callback_compares_neighbouring_steps_and_leaves_training_alone(seeds):
    run, plain = ring_run(seeds), ring_run(seeds)
    moved = ConsecutiveDistance(run, squared_distance, every=3, n=20, seed=5)
    run.fit(10, callback=moved, callback_every=3, log_every=5, progress=False)
    steps, values = run.curve("consecutive_distance")
    assert steps.tolist() == [3, 6, 9]  # fit calls back after its last step, 10, too: no value belongs there
    expected = {}
    for step in range(1, 11):
        before = sample(plain.G, 20, seed=5)
        plain.fit(1, progress=False)
        after = sample(plain.G, 20, seed=5)
        expected[step] = (after - before).square().sum(-1).mean(-1)
    for step, value in zip(steps, values, strict=True):
        assert np.allclose(value, expected[step].detach().numpy(), rtol=1e-5)
    for ours, theirs in zip(run.G.parameters(), plain.G.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert run.G.training


def test_every_step_and_per_replica_settings_and_removal():
    run = ring_run((0, 1))
    run.g_opt = gk.Adam(lr=(1e-2, 1e-3)).build(run.g_params)
    moved = ConsecutiveDistance(run, squared_distance, every=1, n=10)
    run.fit(4, callback=moved, callback_every=1, progress=False)
    steps, values = run.curve("consecutive_distance")
    assert steps.tolist() == [1, 2, 3, 4]
    assert (values[:, 0] > values[:, 1]).all()  # the replica with the larger rate moves further
    moved.remove()
    run.fit(2, callback=moved, callback_every=1, progress=False)
    assert run.curve("consecutive_distance")[0].tolist() == [1, 2, 3, 4]


def test_images_of_more_than_one_step_ago_are_not_compared():
    run = ring_run()
    moved = ConsecutiveDistance(run, squared_distance, every=4, n=10)
    run.fit(13, callback=moved, callback_every=3, progress=False)  # at 3, 6, 9, 12 and, as the last, 13
    assert run.curve("consecutive_distance")[0].tolist() == [12]


def test_callbacks_at_other_steps_give_no_value():
    run = ring_run()
    moved = ConsecutiveDistance(run, squared_distance, every=4, n=10)
    run.fit(9, callback=moved, callback_every=1, progress=False)
    assert run.curve("consecutive_distance")[0].tolist() == [4, 8]
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        ConsecutiveDistance(run, squared_distance, every=4, n=1)
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        ConsecutiveDistance(run, squared_distance, every=0)


# --- Crops -----------------------------------------------------------------------------------------------------


def test_faces_are_cut_out_and_averaged_down_to_at_least_256_pixels():
    """The crop of StyleGAN's code: with c = H / 8, rows 3c to 7c and columns 2c to 6c, then means of 2 x 2 pixels."""
    images = torch.rand(2, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    seen = []
    cropped(lambda a, b: seen.append(a) or squared_distance(a, b))(images, images)
    c = 128
    face = images[:, :, 3 * c : 7 * c, 2 * c : 6 * c]
    assert torch.allclose(seen[0], face.reshape(2, 3, 256, 2, 256, 2).mean((3, 5)), atol=1e-6)
    cropped(lambda a, b: seen.append(a) or squared_distance(a, b), side=300)(images, images)
    assert torch.equal(seen[1], face)  # 512 pixels are not twice 300


def test_the_path_length_of_a_crop_is_that_of_its_pixels():
    """Of pictures that are A z, a crop keeps some rows of A."""

    class Pictures(Linear):
        def synthesis(self, w):
            return super().synthesis(w).reshape(*w.shape[:-1], 1, 8, 8)

    G, part = Pictures(out=64), Pictures(out=64)
    corner = cropped(squared_distance, (0.5, 1), (0, 0.25), 8)
    kept = torch.zeros(8, 8, dtype=torch.float64)
    kept[4:, :2] = 1
    with torch.no_grad():
        part.matrix.mul_(kept.flatten())
    lengths = path_lengths(G, corner, 5, space="w")
    torch.testing.assert_close(lengths, path_lengths(part, squared_distance, 5, space="w"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": (0.5, 0.5)}, "rows must be two shares"),
        ({"columns": (0, 1.5)}, "columns must be two shares"),
        ({"side": 0}, "side must be at least 1"),
    ],
)
def test_crops_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        cropped(squared_distance, **settings)
    with pytest.raises(ValueError, match="leave nothing of 2 x 2 pixels"):
        cropped(squared_distance, (0, 0.25))(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
