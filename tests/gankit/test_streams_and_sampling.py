import copy

import pytest
import torch
from scipy import stats
from torch import nn

import gankit as gk
from gankit import models
from gankit.models.ensemble import pair
from gankit.models.sampling import Sampler, sample, standing_statistics, truncated_normal
from gankit.streams import Streams


def test_a_replicas_numbers_depend_on_its_own_seed_alone():
    together = Streams([4, 9, 4], (3,), "cpu")
    alone = Streams([9], (), "cpu")
    for draw in ("normal", "uniform"):
        a, b = getattr(together, draw)(5, 2), getattr(alone, draw)(5, 2)
        assert a.shape == (3, 5, 2)
        assert torch.equal(a[1], b)
        assert torch.equal(a[0], a[2])
        assert not torch.equal(a[0], a[1])
    assert torch.equal(together.integers(10, 6)[1], alone.integers(10, 6))


def test_streams_continue_from_their_state():
    streams = Streams([1, 2], (2,), "cpu")
    streams.normal(100)
    state = streams.state_dict()
    expected = streams.normal(7)
    other = Streams([1, 2], (2,), "cpu")
    other.load_state_dict(state)
    assert torch.equal(other.normal(7), expected)
    with pytest.raises(ValueError, match="holds 2 random streams, this run has 1"):
        Streams([1], (), "cpu").load_state_dict(state)


def test_z_does_not_repeat_the_numbers_that_made_the_weights():
    G, _ = models.mlp((2,), z_dim=8, depth=2, width=64, seed=3)
    weights = G[0].weight.flatten()
    u = Streams([3], (), "cpu").uniform(weights.numel())
    assert abs(torch.corrcoef(torch.stack([weights, u]))[0, 1]) < 0.15
    torch.manual_seed(3)
    assert not torch.equal(torch.rand(8), Streams([3], (), "cpu").uniform(8))
    assert not torch.equal(
        Streams([3], (), "cpu").uniform(8), Streams([3], (), "cpu", name="sample").uniform(8)
    )


@pytest.mark.parametrize("truncation", [0.04, 0.5, 1.0, 3.0])
def test_truncated_normal_has_the_distribution_of_scipys(truncation):
    z = truncated_normal(Streams([0], (), "cpu"), truncation, 20_000)
    assert z.abs().max() <= truncation
    assert stats.kstest(z.numpy(), stats.truncnorm(-truncation, truncation).cdf).pvalue > 1e-3


@pytest.mark.parametrize("truncation", [0, -1.0, float("nan")])
def test_truncation_must_be_positive(truncation):
    with pytest.raises(ValueError, match="must be above 0"):
        truncated_normal(Streams([0], (), "cpu"), truncation, 3)


def test_samples_do_not_depend_on_the_batch_size_and_replicas_share_z():
    G, _ = pair(lambda seed: models.mlp((2,), z_dim=3, width=8, seed=seed), [0, 0, 1])
    a = sample(G, 50, seed=1)
    assert a.shape == (3, 50, 2)
    torch.testing.assert_close(a, sample(G, 50, seed=1, batch_size=7))
    assert torch.equal(a[0], a[1])
    torch.testing.assert_close(a[2], sample(G.replica(2), 50, seed=1))
    assert not torch.equal(a, sample(G, 50, seed=2))
    assert sample(G, 5, truncation=0.1).std() < a.std()


def test_sampling_leaves_batch_statistics_and_mode_alone():
    G, _ = models.dcgan((1, 8, 8), z_dim=3, width=2)
    G.train()
    before = {key: value.clone() for key, value in G.state_dict().items()}
    samples = sample(G, 10)
    assert G.training
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    torch.testing.assert_close(
        samples, sample(G, 10, batch_size=3)
    )  # evaluation mode: samples are independent


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0}, "must be at least 1, got 0"),
        ({"n": 4, "batch_size": 0}, "must be at least 1"),
        ({"n": 4, "labels": torch.zeros(3, dtype=torch.int64)}, r"labels must have shape \(4,\)"),
    ],
)
def test_bad_numbers_are_refused(arguments, sentence):
    G, _ = models.mlp((2,))
    with pytest.raises(ValueError, match=sentence):
        sample(G, **arguments)


def test_seeds_must_not_be_negative():
    with pytest.raises(ValueError, match="at least 0"):
        Streams([-1], (), "cpu")


class Conditional(nn.Module):
    """Samples are z times the class, so that each tells what it was made of."""

    z_dim, n_classes = 2, 3

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, z, labels):
        return self.one * z * labels[..., None]


@pytest.mark.parametrize("conditional", [False, True])
def test_batches_are_stretches_of_the_same_samples(conditional):
    """Any part of the batches, made alone, is what it is among the others, labels too."""
    G = Conditional() if conditional else pair(lambda s: models.mlp((2,), width=8, seed=s), [0, 1])[0]
    dim = 0 if conditional else 1
    sampler = Sampler(G, seed=4, truncation=0.7)
    every = list(sampler.batches(25, 10))
    assert [images.shape[dim] for images, _ in every] == [10, 10, 5]
    torch.testing.assert_close(torch.cat([images for images, _ in every], dim), sampler(25))
    torch.testing.assert_close(sampler(25), sample(G, 25, seed=4, truncation=0.7, batch_size=9))
    for part in (slice(0, 1), slice(1, 3), slice(2, 2)):
        alone = list(sampler.batches(25, 10, part))
        assert len(alone) == len(every[part])
        for (a, a_labels), (b, b_labels) in zip(alone, every[part], strict=True):
            assert torch.equal(a, b)
            assert (a_labels is None) == (b_labels is None) == (not conditional)
            assert not conditional or torch.equal(a_labels, b_labels)
    if conditional:
        zeros = torch.cat([y for _, y in every]) == 0
        assert torch.equal((torch.cat([x for x, _ in every]) == 0).all(-1), zeros)
        assert 0 < zeros.sum() < 25


def test_sampling_batch_by_batch_leaves_the_mode_alone_between_batches():
    G, _ = models.dcgan((1, 8, 8), z_dim=3, width=2)
    G.train()
    for _ in Sampler(G).batches(4, 2):
        assert G.training


# --- Standing statistics ----------------------------------------------------------------------------------------


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def untrained(family: str, seed: int = 0) -> nn.Module:
    """A generator with batch norm, some of whose statistics are far from those of its activations."""
    make = {
        "dcgan": lambda: gk.models.dcgan((1, 8, 8), z_dim=6, width=4, seed=seed),
        "sngan": lambda: gk.models.sngan((1, 8, 8), z_dim=6, width=4, seed=seed),
        "biggan": lambda: gk.models.biggan((1, 8, 8), 3, z_dim=6, width=2, seed=seed),
    }
    G = make[family]()[0]
    for norm in norms(G):
        norm.running_mean.fill_(5.0)
    return G.train()


def latents(G: nn.Module, batches: int, size: int, seed: int) -> list[tuple[torch.Tensor, ...]]:
    """The z (and labels) that `standing_statistics` draws."""
    streams = Streams((seed,), (), "cpu", "standing statistics")
    drawn = []
    for _ in range(batches):
        z = streams.normal(size, G.z_dim)
        drawn.append((z, streams.integers(G.n_classes, size)) if G.n_classes else (z,))
    return drawn


@pytest.mark.parametrize("family", ["dcgan", "sngan"])
def test_standing_statistics_are_those_of_pytorchs_update_bn(family):
    G = untrained(family)
    before = copy.deepcopy(G.state_dict())
    standing = standing_statistics(G, batches=5, batch_size=7, seed=3)
    assert not standing.training
    assert G.training, "the generator itself stays as it is"
    assert all(torch.equal(value, before[key]) for key, value in G.state_dict().items())
    reference = copy.deepcopy(G)
    torch.optim.swa_utils.update_bn([z for (z,) in latents(G, 5, 7, 3)], reference)
    assert len(norms(standing)) == len(norms(reference)) > 0
    for ours, theirs in zip(norms(standing), norms(reference), strict=True):
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)
        assert ours.momentum == 0.1
    for ours, theirs in zip(standing.parameters(), G.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", ["dcgan", "biggan"])
def test_standing_statistics_are_means_over_the_batches(family):
    """The closed form, for the layer nearest to z whose input no other statistics change."""
    G = untrained(family)
    standing = standing_statistics(G, batches=4, batch_size=6, seed=1)
    seen = []
    probe = copy.deepcopy(
        G
    ).eval()  # spectral normalisation as in evaluation; the first norm sees no other norm
    norms(probe)[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for inputs in latents(G, 4, 6, 1):
        probe(*inputs)
    means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
    torch.testing.assert_close(norms(standing)[0].running_mean, means)
    torch.testing.assert_close(norms(standing)[0].running_var, variances)


def test_standing_statistics_of_an_ensemble_are_those_of_its_replicas():
    G = gk.Ensemble(lambda seed: untrained("biggan", seed), (0, 4))
    standing = standing_statistics(G, batches=3, batch_size=5, seed=2, truncation=0.7)
    for i, seed in enumerate((0, 4)):
        alone = standing_statistics(
            untrained("biggan", seed), batches=3, batch_size=5, seed=2, truncation=0.7
        )
        for ours, theirs in zip(norms(standing.replica(i)), norms(alone), strict=True):
            torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(ours.running_mean, torch.tensor(5.0), atol=1.0)


def test_standing_statistics_repair_an_average_of_generators():
    """In evaluation, samples then have the pixel statistics that the same network has in training mode."""
    G = untrained("sngan")
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = copy.deepcopy(G)(z)
        stale, standing = copy.deepcopy(G).eval()(z), standing_statistics(G, batches=50, batch_size=200)(z)
    assert (standing - wanted).abs().mean() < 0.1 * (stale - wanted).abs().mean()


def test_standing_statistics_of_a_network_without_batch_norm_is_a_copy():
    G = gk.models.mlp((2,), z_dim=3, width=4)[0]
    same = standing_statistics(G, batches=2)
    assert all(
        torch.equal(a, b) and a is not b for a, b in zip(same.parameters(), G.parameters(), strict=True)
    )


@pytest.mark.parametrize("settings", [{"batches": 0}, {"batch_size": 1}])
def test_standing_statistics_need_a_batch(settings):
    with pytest.raises(ValueError, match="batches must be at least 1 and batch_size at least 2, got"):
        standing_statistics(untrained("dcgan"), **settings)
