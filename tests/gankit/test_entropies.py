import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gankit.metrics.entropies import inception_score

# Hypothesis and torch start slowly on a busy machine; a deadline would test the machine.
relaxed = settings(deadline=None, max_examples=60)


def logits(n, n_classes, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, n_classes, generator=generator, dtype=torch.float64)


def one_hot(labels, n_classes):
    return torch.nn.functional.one_hot(torch.as_tensor(labels), n_classes).double()


def test_sure_and_even_over_the_classes_scores_their_number():
    p = one_hot(torch.arange(60) % 12, 12)
    mean, std = inception_score(p, splits=1)
    assert mean.item() == pytest.approx(12, rel=1e-14)
    assert std == 0
    assert mean.dtype == torch.float64
    mean, std = inception_score(p, splits=5)  # 12 samples in each part, one of each class
    assert mean.item() == pytest.approx(12, rel=1e-14)
    assert std.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n_classes", [1, 2, 1008])
def test_the_same_answer_for_all_images_scores_one(n_classes):
    p = logits(1, n_classes).softmax(-1).expand(20, n_classes)
    mean, std = inception_score(p, splits=2)
    assert mean.item() == pytest.approx(1, abs=1e-12)
    assert std.item() == pytest.approx(0, abs=1e-12)


def test_uneven_classes_score_the_exponential_of_their_entropy():
    p = one_hot([0] * 5 + [1] * 3 + [3] * 2, 4)  # class 2 is empty
    share = np.array([0.5, 0.3, 0.2])
    assert inception_score(p, splits=1).mean.item() == pytest.approx(
        math.exp(-(share * np.log(share)).sum()), rel=1e-14
    )


def test_is_the_mean_divergence_that_scipy_computes():
    entropy = pytest.importorskip("scipy.stats").entropy
    p = logits(200, 7).softmax(-1)
    divergence = entropy(p.numpy(), p.mean(0, keepdim=True).numpy(), axis=1)
    assert inception_score(p, splits=1).mean.item() == pytest.approx(math.exp(divergence.mean()), rel=1e-12)


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (103, 10), (37, 1), (50, 7)])
def test_agrees_with_torch_fidelity(n, splits):
    peer = pytest.importorskip("torch_fidelity.metric_isc")
    x = logits(n, 9)
    theirs = peer.isc_features_to_metric(x, splits=splits, shuffle=False)
    ours = inception_score(x.softmax(-1), splits=splits)
    assert ours.mean.item() == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert ours.std.item() == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features")
def test_agrees_with_torchmetrics():
    """Its parts are ``torch.chunk``'s, so they agree where N divides; it shuffles, and divides by one part less."""
    peer = pytest.importorskip("torchmetrics.image.inception")
    pytest.importorskip("torch_fidelity")

    class Given(torch.nn.Module):
        """Hands on what it gets: the features of the peer are our logits."""

        num_features = 9

        def forward(self, x):
            return x

    x = logits(200, 9).float()
    metric = peer.InceptionScore(feature=Given(), splits=4)
    metric.update(x)
    torch.manual_seed(5)
    mean, std = metric.compute()
    torch.manual_seed(5)
    order = torch.randperm(200)
    ours = inception_score(x[order].softmax(-1), splits=4)
    assert ours.mean.item() == pytest.approx(mean.item(), rel=1e-5)
    assert ours.std.item() * math.sqrt(4 / 3) == pytest.approx(std.item(), rel=1e-3)


def test_peers_give_nan_for_an_empty_class_and_we_do_not():
    peer = pytest.importorskip("torch_fidelity.metric_isc")
    x = torch.full((20, 3), -1e4, dtype=torch.float64)
    x[:, :2] = logits(20, 2)  # the probability of class 2 is 0, exactly
    assert math.isnan(peer.isc_features_to_metric(x, splits=1, shuffle=False)["inception_score_mean"])
    ours = inception_score(x.softmax(-1), splits=1).mean
    assert ours.item() == pytest.approx(
        inception_score(x[:, :2].softmax(-1), splits=1).mean.item(), rel=1e-12
    )


@relaxed
@given(st.integers(2, 40), st.integers(1, 8), st.floats(0, 1e3), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_lies_between_one_and_the_number_of_classes(n, n_classes, scale, splits, seed):
    p = logits(n, n_classes, seed, scale).softmax(-1)
    splits = min(splits, n // 2)
    mean, std = inception_score(p, splits=splits)
    assert 1 <= mean <= n_classes
    assert std >= 0
    again = inception_score(p[:, torch.randperm(n_classes)], splits=splits).mean
    assert again.item() == pytest.approx(mean.item(), rel=1e-9)  # names of classes do not matter


@relaxed
@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_one_split_knows_no_order_and_copies_add_nothing(n, seed):
    p = logits(n, 5, seed).softmax(-1)
    value = inception_score(p, splits=1).mean.item()
    assert inception_score(p.flip(0), splits=1).mean.item() == pytest.approx(value, rel=1e-12)
    assert inception_score(torch.cat([p, p]), splits=1).mean.item() == pytest.approx(value, rel=1e-12)


def test_depends_on_order_and_splits_and_a_seed_shuffles():
    p = one_hot(torch.arange(10).repeat_interleave(100), 10)
    assert inception_score(p, splits=1).mean.item() == pytest.approx(10, rel=1e-12)
    assert inception_score(p, splits=10).mean == 1  # each part is one class
    shuffled = [inception_score(p, splits=10, seed=seed).mean.item() for seed in (0, 0, 1)]
    assert 9 < shuffled[0] < 10
    assert shuffled[0] == shuffled[1] != shuffled[2]


def test_few_samples_score_too_low_by_the_stated_factor():
    """A sure classifier and even classes: the entropy of n labels falls short by (C - 1) / 2n."""
    generator = torch.Generator().manual_seed(0)
    p = one_hot(torch.randint(10, (400, 500), generator=generator), 10)
    mean = inception_score(p, splits=1).mean.mean().item()
    assert mean == pytest.approx(10 * math.exp(-9 / 1000), rel=1e-3)


def test_leading_dimensions_equal_a_loop():
    p = logits(24, 5).reshape(2, 12, 5).softmax(-1)
    ours = inception_score(p, splits=3, seed=7)
    assert ours.mean.shape == ours.std.shape == (2,)
    for i in range(2):
        one = inception_score(p[i], splits=3, seed=7)
        assert torch.allclose(ours.mean[i], one.mean, rtol=1e-12)
        assert torch.allclose(ours.std[i], one.std, rtol=1e-9)


def test_rows_of_half_precision_are_taken():
    x = logits(50, 10)
    half = inception_score(x.softmax(-1).half(), splits=1).mean.item()
    assert half == pytest.approx(inception_score(x.softmax(-1), splits=1).mean.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("p", "splits", "message"),
    [
        (torch.tensor([[0.5, 0.5], [math.nan, 0.5]]), 1, "probabilities must not be negative and sum to 1"),
        (torch.tensor([[1.5, -0.5], [0.5, 0.5]]), 1, "got -0.5 to 1.5"),
        (logits(10, 4), 1, "the softmax of logits"),
        (torch.ones(1, 1), 1, r"splits=1 with N=1"),
        (torch.ones(10, 1), 6, r"splits=6 with N=10"),
        (torch.ones(10, 1), 0, r"splits=0"),
        (torch.ones(10), 1, r"\[10\]"),
        (torch.ones(10, 1).long(), 1, "int64"),
        (torch.ones(0, 4), 1, r"\[0, 4\]"),
    ],
)
def test_errors_name_the_argument_and_what_came(p, splits, message):
    with pytest.raises(ValueError, match=message):
        inception_score(p, splits=splits)
