"""Algorithm 1, and what else weighs real images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

import gankit as gk
from gankit.classifiers import weights
from gankit.classifiers.weights import METHODS, ReplicaWeighted


def algorithm_1(real, real_labels, fake, fake_labels, method, printed):
    """The algorithm as a loop in float64, word for word; minima over real images (see `by_maximum`)."""
    w = np.zeros(len(real))
    for k in sorted(set(real_labels.tolist())):
        d = {}
        for r in np.flatnonzero(real_labels == k):
            d[r] = 0.0
            for g in np.flatnonzero(fake_labels == k):
                d[r] += math.sqrt(
                    sum((float(a) - float(b)) ** 2 for a, b in zip(real[r], fake[g], strict=True))
                )
        low, high = min(d.values()), max(d.values())
        for r in d:
            w[r] = (d[r] - low) / (high if printed else high - low)
        own = w[list(d)]
        mu, sigma = own.mean(), own.std()
        for r in d:
            if method == "A_mu":
                w[r] = 0 if w[r] < mu else w[r]
            elif method == "A_sigma":
                w[r] = 0 if w[r] < mu - sigma else w[r]
            elif method == "B":
                w[r] = 1 / (1 + math.exp(-2 * (w[r] - mu) / sigma))
    return w


def sets(seed=0, n=40, m=50, d=5, k=3):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, d)),
        rng.integers(k, size=n),
        rng.normal(size=(m, d)),
        rng.permutation(np.arange(m) % k),
    )


@pytest.mark.parametrize("printed", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_against_the_loop(method, printed):
    real, y, fake, fake_y = sets()
    tensors = [torch.from_numpy(x) for x in (real, y, fake, fake_y)]
    normalise = weights.by_maximum if printed else weights.by_range
    w = weights.transform(normalise(weights.class_distances(*tensors), tensors[1]), tensors[1], method)
    np.testing.assert_allclose(w, algorithm_1(real, y, fake, fake_y, method, printed), rtol=1e-10, atol=1e-12)


@given(
    real=arrays(np.float32, (12, 3), elements=st.floats(-5, 5, width=32)),
    fake=arrays(np.float32, (9, 3), elements=st.floats(-5, 5, width=32)),
    method=st.sampled_from(sorted(METHODS)),
    offset=st.sampled_from([0.0, 1e3]),
)
@settings(max_examples=150, deadline=None)
def test_weights_lie_in_0_1_and_distances_are_scipys(real, fake, method, offset):
    # Few values in few dimensions: copies and constant classes come up.
    y, fake_y = torch.arange(12) % 3, torch.arange(9) % 3
    real, fake = real + np.float32(offset), fake + np.float32(offset)
    d = weights.class_distances(torch.from_numpy(real), y, torch.from_numpy(fake), fake_y)
    for k in range(3):
        expected = cdist(real[y == k].astype(float), fake[fake_y == k].astype(float)).mean(1)
        np.testing.assert_allclose(d[y == k], expected, rtol=1e-9, atol=1e-9)
    for normalise in (weights.by_range, weights.by_maximum):
        w = weights.transform(normalise(d, y), y, method)
        assert bool(((w >= 0) & (w <= 1)).all())
    w = weights.transform(weights.by_range(d, y), y, method)
    balanced = weights.balance(w, y)
    sums = torch.zeros(3, dtype=torch.float64).index_add_(0, y, balanced)
    torch.testing.assert_close(sums, sums[:1].expand(3))
    assert bool((balanced <= 1).all())


def test_a_class_of_copies_is_drawn_evenly():
    y = torch.tensor([0, 0, 0, 1, 1])
    d = torch.tensor([2.0, 2.0, 2.0, 1.0, 3.0], dtype=torch.float64)
    w = weights.by_range(d, y)
    assert w.tolist() == [1, 1, 1, 0, 1]
    for method in METHODS:
        own = weights.transform(w, y, method)[:3]
        assert bool((own > 0).all())
        assert bool((own == own[0]).all())


def test_a_copy_of_a_generated_image_has_distance_zero_far_from_the_origin():
    point = torch.full((1, 4), 1e4)
    d = weights.class_distances(point, torch.tensor([0]), torch.cat([point, point]), torch.tensor([0, 0]))
    assert d.tolist() == [0.0]


def test_a_class_without_generated_images_is_named_and_one_without_real_is_nothing_to_weigh():
    real, y, fake, fake_y = [torch.from_numpy(x) for x in sets()]
    with pytest.raises(ValueError, match=r"class 2 has \d+ real images and no generated one"):
        weights.class_distances(real, y, fake[fake_y != 2], fake_y[fake_y != 2])
    assert weights.class_distances(real[y != 1], y[y != 1], fake, fake_y).isfinite().all()


def test_normalisations_draw_alike_inside_a_class_but_not_between_classes():
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    d = torch.tensor([9.0, 9.5, 10.0, 1.0, 5.0, 10.0], dtype=torch.float64)
    right, printed = weights.by_range(d, y), weights.by_maximum(d, y)
    for k in range(2):
        torch.testing.assert_close(printed[y == k] / printed[y == k].max(), right[y == k])

    def share(w):
        return (w[y == 0].sum() / w.sum()).item()

    assert share(right) == pytest.approx(1.5 / (1.5 + 13 / 9))
    assert share(printed) < 0.11
    torch.testing.assert_close(weights.balance(right, y), weights.balance(printed, y))


def test_replicas_at_once():
    real, y, fake, fake_y = [torch.from_numpy(x) for x in sets()]
    many, labels = torch.stack([fake, fake * 2]), torch.stack([fake_y, fake_y.flip(0)])
    d = weights.class_distances(real, y, many, labels)
    for s in range(2):
        torch.testing.assert_close(d[s], weights.class_distances(real, y, many[s], labels[s]))
    w = weights.transform(weights.by_range(d, y), y, "B")
    torch.testing.assert_close(w[1], weights.transform(weights.by_range(d[1], y), y, "B"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, y, f, g: (r[:, :2], y, f, g), "of one d"),
        (lambda r, y, f, g: (r, y[:3], f, g), "real_labels must be"),
        (lambda r, y, f, g: (r * float("nan"), y, f, g), "finite"),
    ],
)
def test_bad_sets(change, message):
    with pytest.raises(ValueError, match=message):
        weights.class_distances(*change(*(torch.from_numpy(x) for x in sets())))


def test_unknown_method():
    with pytest.raises(ValueError, match="one of A_mu, A_sigma, B, C, got 'D'"):
        weights.transform(torch.ones(2), torch.tensor([0, 0]), "D")


def test_density_ratio_weights_complete_the_mixture():
    # On a grid: p, q1 <= 2p; then (q1 + q2) / 2 = p for the q2 that the weights give.
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.dirichlet(np.ones(50)))
    q1 = p * torch.from_numpy(rng.uniform(0.1, 1.9, 50))
    q1 = q1 / q1.sum()
    assert bool((q1 <= 2 * p).all())
    q2 = p * weights.density_ratio_weights(q1 / p)
    torch.testing.assert_close((q1 + q2 / q2.sum()) / 2, p)
    assert weights.density_ratio_weights(torch.tensor([0.0, 1.0, 2.0, 9.0])).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert weights.density_ratio_weights(torch.tensor([1.0]), n=4).tolist() == [0.25]
    with pytest.raises(ValueError, match="at least 2"):
        weights.density_ratio_weights(torch.ones(2), n=1)
    with pytest.raises(ValueError, match="q/p"):
        weights.density_ratio_weights(torch.tensor([-1.0]))


@given(arrays(np.float64, 30, elements=st.floats(0, 1)))
@settings(max_examples=50, deadline=None)
def test_effective_sample_size_lies_between_1_and_n(w):
    w[0] = 1.0
    size = weights.effective_sample_size(torch.from_numpy(w))
    assert 1 - 1e-9 <= size <= 30 + 1e-9
    assert weights.effective_sample_size(torch.ones(30)) == 30


def test_effective_sample_size_is_that_of_a_weighted_mean():
    rng = np.random.default_rng(0)
    w = rng.uniform(size=40) ** 3
    means = rng.normal(size=(100_000, 40)) @ (w / w.sum())
    assert means.var() * weights.effective_sample_size(torch.from_numpy(w)) == pytest.approx(1, rel=0.03)


def test_replicas_draw_by_their_own_weights():
    data = gk.data.load("digits").subset(torch.arange(6))
    w = torch.tensor([[1.0, 0, 0, 1, 0, 2], [0, 0, 1, 1, 1, 0]])
    weighted = ReplicaWeighted.of(data, w).to("cpu")
    generator = torch.Generator().manual_seed(0)
    tickets = weighted.draw(40_000, generator).expand(2, -1)
    images, labels = weighted.batch(tickets)
    whole, _ = data.batch(torch.arange(6))
    for s in range(2):
        same = (images[s, :, None] == whole).flatten(2).all(2)
        shares = same.double().mean(0)
        torch.testing.assert_close(shares, (w[s] / w[s].sum()).double(), atol=0.012, rtol=0)
        assert bool((shares[w[s] == 0] == 0).all())
    ends = torch.tensor([0, 2**53 - 1]).expand(2, -1)
    _, labels = weighted.batch(ends)
    assert labels.tolist() == [data.labels[[0, 5]].tolist(), data.labels[[2, 4]].tolist()]


def test_an_ensemble_trains_on_its_weights():
    # Replica 0 sees white pictures only, replica 1 black ones: their generators part.
    images = torch.cat([torch.full((8, 1, 4, 4), 255), torch.zeros(8, 1, 4, 4)]).to(torch.uint8)
    data = gk.data.Dataset("two", images, torch.zeros(16, dtype=torch.int64), ("all",))
    w = torch.stack([(torch.arange(16) < 8).double(), (torch.arange(16) >= 8).double()])
    G, D = gk.pair(lambda s: gk.models.mlp((1, 4, 4), z_dim=4, depth=2, width=16, seed=s), [3, 3])
    adam = gk.Adam(lr=5e-3)
    run = gk.Trainer(G, D, ReplicaWeighted.of(data, w), g_optimizer=adam, d_optimizer=adam, device="cpu")
    run.fit(150, progress=False)
    grey = gk.sampling.sample(run.G, 64).mean((1, 2, 3, 4))
    assert grey[0] > 0.5 > -0.5 > grey[1]


@pytest.mark.parametrize("w", [torch.ones(6), torch.ones(1, 5), -torch.ones(1, 6), torch.zeros(1, 6)])
def test_bad_replica_weights(w):
    with pytest.raises(ValueError, match="weights must be"):
        ReplicaWeighted.of(gk.data.load("digits").subset(torch.arange(6)), w)


def test_a_class_that_could_not_be_drawn_is_refused():
    with pytest.raises(ValueError, match="class 1 has no positive weight"):
        weights.balance(torch.tensor([1.0, 0.0]).double(), torch.tensor([0, 1]))
