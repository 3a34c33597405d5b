"""One pass over the samples for all metrics: values against the metrics themselves, and what is refused."""

import importlib
import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import nn

import gankit as gk
from gankit.classifiers import Classifier, Stacked
from gankit.metrics import features
from gankit.metrics.entropies import inception_score
from gankit.metrics.evaluation import evaluate, evaluate_classes, reference
from gankit.metrics.features import FeatureSpace
from gankit.metrics.frechet import frechet_distance
from gankit.metrics.kernel import kernel_distance_error
from gankit.metrics.measures import METRICS, Metric
from gankit.metrics.modes import class_divergence, frequencies, mode_assignment
from gankit.metrics.neighbours import prdc
from gankit.metrics.similarity import ms_ssim_diversity
from gankit.models.blocks import seeded
from gankit.models.sampling import Sampler, sample


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def digits():
    return gk.data.load("digits")


@pytest.fixture(scope="module")
def G(digits):
    return gk.pair(lambda seed: gk.models.mlp(digits.shape, z_dim=4, width=16, seed=seed), [0, 1])[0]


@pytest.fixture(scope="module")
@torch.no_grad()
def net(G):
    """A classifier with random weights, shifted so that it finds many classes in G's samples."""
    with seeded(0):
        net = Classifier((1, 8, 8), 10).eval()
    logits = net(sample(G, 200).flatten(0, 1))
    net.output.weight /= logits.std(0)[:, None]
    net.output.bias.copy_((net.output.bias - logits.mean(0)) / logits.std(0))
    return net.requires_grad_(False)


@pytest.fixture(scope="module")
def space(net):
    return features.of_classifier(net, "random")


class Conditional(nn.Module):
    """Images of one grey level, the level of the class."""

    z_dim, n_classes = 2, 10

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.05))

    def forward(self, z, labels):
        flat = self.scale * z.sum(-1) + labels / 5 - 1
        return flat[..., None, None, None].expand(*labels.shape, 1, 8, 8)


# --- Values -----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_metrics_on_all_samples(digits, net, space, G):
    names = ["fd", "is", "classes_covered", "class_divergence"]
    scores = evaluate(Sampler(G, seed=3), digits, names, space, n=500, splits=4, progress=False)
    images = sample(G, 500, seed=3)
    fake = torch.stack([net.features(x) for x in images]).detach()
    real = net.features(digits.normalise(digits.images)).detach()
    logits = net.logits(fake).detach()
    share = frequencies(logits.argmax(-1), 10)
    assert ((share > 0).sum(-1) > 3).all(), "one class in all samples would test little"
    expected = {
        "FD[random]": frechet_distance(fake, real),
        "IS[random]": inception_score(logits.softmax(-1), splits=4).mean,
        "classes_covered": (share >= 0.1 * digits.class_frequencies()).sum(-1).double(),
        "D_JS[classes]": class_divergence(share, digits.class_frequencies()),
    }
    assert list(scores) == list(expected)
    for name, value in expected.items():
        assert scores[name].value.shape == scores[name].error.shape == (2,)
        assert scores[name].value.dtype == scores[name].error.dtype == torch.float64
        torch.testing.assert_close(scores[name].value, value, rtol=1e-5, atol=1e-6)


def test_distances_of_neighbours_and_kernels_are_those_of_their_modules(digits, space, G):
    names = ["kd", "precision", "recall", "density", "coverage"]
    scores = evaluate(Sampler(G, seed=3), digits, names, space, n=150, n_real=200, k=4, progress=False)
    fake = space(sample(G, 150, seed=3))
    known = reference(digits, space, n=200, progress=False).observed.features
    kernel = kernel_distance_error(fake, known)
    torch.testing.assert_close(scores["KD[random]"].value, kernel.value, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores["KD[random]"].error, kernel.standard_error, rtol=1e-4, atol=1e-6)
    for i in range(2):
        for name, value in prdc(known, fake[i], 4).items():
            assert scores[f"{name}[random]"].value[i].item() == pytest.approx(value.item(), abs=1e-2), name
            assert scores[f"{name}[random]"].protocol.k == 4


def test_precision_and_recall_errors_are_the_spread_between_draws(digits):
    """Of points, whose manifolds overlap in part; leaving out a tenth keeps almost all neighbours."""
    real = gk.data.Dataset("plane", torch.randn(200, 2), torch.zeros(200, dtype=torch.int64), ("all",))
    names = ["precision", "recall", "density", "coverage"]
    fakes = torch.randn(24, 100, 2) * 0.9 + 0.7
    scores = evaluate(fakes, real, names, progress=False)
    for name in names:
        score = scores[f"{name}[points]"]
        assert (score.error.square().mean().sqrt() / score.value.std()).log2().abs() < 1, name


def test_metrics_inside_classes_need_a_generator_that_is_told_the_class(digits, space):
    sampler = Sampler(Conditional(), seed=1)
    scores = evaluate(sampler, digits, ["intra_fd", "fd"], space, n=400, progress=False)
    images = torch.cat([x for x, _ in sampler.batches(400)])
    labels = torch.cat([y for _, y in sampler.batches(400)])
    real, fake = space(digits.normalise(digits.images)), space(images)
    each = [frechet_distance(fake[labels == c], real[digits.labels == c]).item() for c in range(10)]
    assert scores["intra-FD[random]"].value.item() == pytest.approx(sum(each) / 10, rel=1e-4)
    assert 0 < scores["intra-FD[random]"].error < 0.2 * scores["intra-FD[random]"].value
    with pytest.raises(ValueError, match="a metric within classes needs the samples' labels"):
        evaluate(lambda n: images[:n], digits, ["intra_fd"], space, n=50, progress=False)


def test_similarity_within_classes_is_larger_where_each_class_has_one_level(monkeypatch):
    levels = torch.arange(10, dtype=torch.uint8).repeat(20) * 25
    data = gk.data.Dataset(
        "levels", levels[:, None, None, None].expand(-1, 1, 16, 16), levels.long() // 25, tuple("0123456789")
    )
    images = data.normalise(data.images) + 0.1 * torch.randn(200, 1, 16, 16).clamp(-1, 1)
    images = images.clamp(-1, 1)
    scores = evaluate(
        lambda n: (images, data.labels), data, ["ms_ssim", "intra_ms_ssim"], n=200, pairs=8, progress=False
    )
    expected = ms_ssim_diversity(images, data.labels, pairs=8)
    assert scores["MS-SSIM[within classes]"].value == expected.mean
    assert scores["MS-SSIM[within classes]"].error == expected.standard_error
    assert scores["MS-SSIM[within classes]"].value > scores["MS-SSIM"].value
    assert scores["MS-SSIM"].protocol == gk.metrics.Protocol(200, pairs=8)


def test_stacked_modes_and_their_divergence_agree_with_scipy():
    """On three channels of one digit each: 1,000 classes, most of which 500 samples cannot reach."""
    data = gk.data.load("stacked-digits", n=2_000)
    with seeded(0):
        stacked = features.of_classifier(Stacked(Classifier((1, 8, 8), 10)).eval(), "stacked")
    images = torch.rand(500, 3, 8, 8) * 2 - 1
    names = ["stacked_modes", "stacked_kl", "class_divergence"]
    scores = evaluate(images, data, names, stacked, progress=False)
    counts = stacked.logits(stacked(images)).argmax(-1).bincount(minlength=1000)
    assert scores["modes_hit"].value == (counts > 0).sum()
    assert scores["KL[modes]"].value.item() == pytest.approx(entropy(counts, torch.ones(1000)), rel=1e-12)
    assert (scores["modes_hit"].unit, scores["KL[modes]"].unit) == ("of 1000", "nats")


def test_mode_statistics_agree_with_scipy_for_any_hits():
    ring = gk.data.load("spiral", n=3_000)
    points = torch.stack([ring.images[:400], torch.full((400, 2), 9.0), ring.centers[3].expand(400, 2)])
    names = ["modes_covered", "high_quality", "mode_divergence", "mode_kl"]
    scores = evaluate(points, ring, names, progress=False)
    assigned = mode_assignment(points, ring.centers, ring.std)
    expected = ring.class_frequencies().numpy()
    for row, labels in enumerate(assigned):
        shares = frequencies(labels, len(expected)).numpy()
        none = shares.sum() == 0  # no mode is hit: the bounds, 1 bit and the KL of the rarest mode alone
        direct = {
            "modes_covered": (shares >= 0.1 * expected - 1e-12).sum(),
            "high_quality": shares.sum(),
            "D_JS[modes]": 1.0 if none else jensenshannon(shares, expected, base=2) ** 2,
            "KL[modes]": -math.log(expected.min()) if none else entropy(shares, expected),
        }
        for name, score in scores.items():
            assert score.value[row].item() == pytest.approx(direct[name], rel=1e-9, abs=1e-12), name


def test_the_data_themselves_score_as_a_perfect_generator(digits):
    """Classes drawn from the data: D_JS about (C - 1) / (8 n ln 2), all classes covered, no distance but noise."""
    judge = features.classifier("digits", train=True)

    def draw(n):
        chosen = digits.draw(n, torch.Generator().manual_seed(0))
        return digits.normalise(digits.images[chosen])

    scores = evaluate(draw, digits, features=judge, n=4_000, progress=False)
    assert list(scores) == ["classes_covered", "D_JS[classes]", "FD[digits classifier]"]
    assert (scores["classes_covered"].value, scores["classes_covered"].error) == (10, 0)
    assert scores["D_JS[classes]"].value < 5 * 9 / (8 * 4_000 * math.log(2))
    noise = evaluate(lambda n: torch.rand(n, 1, 8, 8) * 2 - 1, digits, features=judge, n=400, progress=False)
    assert scores["FD[digits classifier]"].value < 0.01 * noise["FD[digits classifier]"].value


@pytest.mark.parametrize("batch_size", [7, 250, 10_000])
def test_sampler_generator_function_and_tensor_score_the_same_in_any_batches(digits, space, G, batch_size):
    one = G.replica(1)
    whole = evaluate(sample(one, 60), digits, features=space, progress=False)
    for sampler in (one, Sampler(one), lambda n: sample(one, n), sample(one, 60)):
        scores = evaluate(sampler, digits, features=space, n=60, batch_size=batch_size, progress=False)
        for name, score in whole.items():
            torch.testing.assert_close(scores[name].value, score.value, rtol=1e-4, atol=1e-6)
    both = evaluate(G, digits, features=space, n=60, batch_size=batch_size, progress=False)
    torch.testing.assert_close(both["FD[random]"].value[1], whole["FD[random]"].value, rtol=1e-4, atol=1e-6)


def test_there_is_one_pass_over_the_samples_and_one_over_the_reference(digits, net):
    seen, calls = [], []

    def embed(x):
        seen.append(len(x))
        return net.features(x)

    counted = FeatureSpace("counted", embed, net=net, head=net.logits, shape=(1, 8, 8), n_classes=10)

    def draw(n):
        calls.append(n)
        return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

    names = ["fd", "is", "classes_covered", "class_divergence"]
    evaluate(draw, digits, names, counted, n=300, progress=False)
    assert calls == [300]
    assert sum(seen) == 300 + len(digits)
    seen.clear()
    evaluate(draw, digits, ["class_divergence"], counted, n=300, progress=False)
    assert sum(seen) == 300, "class frequencies need no features of the reference"
    known = reference(digits, counted, n=500, progress=False)
    seen.clear()
    for _ in range(2):
        scores = evaluate(draw, known, names, n=300, progress=False)
    assert sum(seen) == 2 * 300
    fresh = evaluate(draw, digits, names, counted, n=300, n_real=500, progress=False)
    assert {k: (v.value, v.protocol) for k, v in scores.items()} == {
        k: (v.value, v.protocol) for k, v in fresh.items()
    }


def test_a_smaller_reference_is_a_random_choice_that_stays(digits):
    ordered = digits.subset(digits.labels.argsort())  # as the pictures of a folder come
    one, two = (reference(ordered, n=200, progress=False) for _ in range(2))
    assert len(one.data) == 200
    assert torch.equal(one.data.images, two.data.images)
    assert (one.data.labels.bincount(minlength=10) > 5).all()
    assert len(reference(digits, n=10_000, progress=False).data) == len(digits)


def test_points_have_mode_statistics():
    ring = gk.data.load("ring", n=4_000)
    perfect = evaluate(gk.data.load("ring", n=1_000, seed=1).images, ring, progress=False)
    assert list(perfect) == ["modes_covered", "high_quality", "D_JS[modes]", "FD[points]"]
    assert perfect["modes_covered"].value == 8
    quality = perfect["high_quality"]
    assert quality.value.item() == pytest.approx(1 - math.exp(-9 / 2), abs=4 * quality.error.item())
    assert quality.error.item() == pytest.approx(math.sqrt(0.011 * 0.989 / 1_000), rel=0.4)
    half = evaluate(ring.images[ring.labels < 4], ring, progress=False)
    assert half["modes_covered"].value == 4
    expected = class_divergence(torch.tensor([1.0] * 4 + [0.0] * 4), ring.class_frequencies())
    assert half["D_JS[modes]"].value.item() == pytest.approx(expected.item(), abs=0.01)
    assert (
        evaluate(ring.images, ring, progress=False)["D_JS[modes]"].value < 1e-4
    )  # all but the 1.1 % that lie outside


def test_labels_of_a_conditional_generator_reach_the_metrics(digits, monkeypatch):
    """A metric is an entry of a dict; this one asks for labels and images."""

    def level_of_label(case):
        return ((case.fake.images.mean((-3, -2, -1)) + 1) * 5 - case.fake.labels).abs().max()

    monkeypatch.setitem(
        METRICS, "own", Metric("own", level_of_label, needs=("labels", "images"), compares=False)
    )
    scores = evaluate(Conditional(), digits, ["own", "fd"], n=50, progress=False)
    assert scores["own"].value < 1
    assert scores["own"].error is None
    assert scores["own"].protocol == gk.metrics.Protocol(50)
    images, labels = next(iter(Sampler(Conditional()).batches(50)))
    again = evaluate(lambda n: (images, labels), digits, ["own"], n=50, progress=False)
    assert torch.equal(again["own"].value, scores["own"].value)
    with pytest.raises(ValueError, match="a metric within classes needs the samples' labels"):
        evaluate(images, digits, ["own"], progress=False)


def test_evaluate_classes_counts_images_without_finite_logits_nowhere(digits, net):
    images = torch.zeros(20, 1, 8, 8)
    scores = evaluate_classes(images, digits, net)
    assert list(scores) == ["classes_covered", "D_JS[classes]", "FD[digits classifier]"]
    assert scores["classes_covered"] == 1
    space = features.of_classifier(net, "x")
    images[:5] = torch.nan
    broken = evaluate(images, digits, ["classes_covered", "class_divergence"], space, progress=False)
    assert broken["classes_covered"].value == 1
    nothing = evaluate(images[:5], digits, ["class_divergence"], space, progress=False)
    assert nothing["D_JS[classes]"].value == 1


# --- Protocol, errors, progress -----------------------------------------------------------------------------------


def test_a_protocol_holds_what_its_metric_depends_on(digits, space, G):
    names = ["fd", "is", "class_divergence"]
    sampler = Sampler(G, truncation=0.7)
    scores = evaluate(sampler, digits, names, space, n=100, n_real=90, split="all", splits=5, progress=False)
    common = {"space": "random", "rule": "images as they are"}
    real = {"reference": "digits", "split": "all", "n_real": 90}
    expected = [common | real, common | {"splits": 5}, common | real]
    for score, fields in zip(scores.values(), expected, strict=True):
        assert score.protocol == gk.metrics.Protocol(100, 0.7, **fields)
    ring = evaluate(torch.zeros(10, 2), gk.data.load("ring", n=50), ["modes_covered"], progress=False)
    assert ring["modes_covered"].protocol == gk.metrics.Protocol(10, reference="ring", n_real=50)
    assert ring["modes_covered"].unit == "of 8"
    assert "100 samples against 90 of digits (split all), random: images as they are" in str(scores)


def test_errors_are_the_spread_between_draws_of_the_same_generator(digits, space, G):
    known = reference(digits, space, progress=False)
    draws = [evaluate(Sampler(G, seed=s), known, n=200, progress=False) for s in range(30)]
    for name in ("D_JS[classes]", "FD[random]"):
        values = torch.stack([scores[name].value for scores in draws])
        errors = torch.stack([scores[name].error for scores in draws])
        assert (errors.median(0).values / values.std(0)).log2().abs().max() < 1, name
    silent = evaluate(G, digits, None, space, n=200, errors=False, progress=False)
    assert all(score.error is None for score in silent.values())


def test_one_split_of_the_inception_score_has_no_error(digits, space, G):
    scores = evaluate(G, digits, ["is"], space, n=50, splits=1, progress=False)
    assert scores["IS[random]"].error is None


def test_results_take_the_short_names_of_their_space(digits, net):
    short = FeatureSpace(
        "Inception",
        net.features,
        net=net,
        head=net.logits,
        shape=(1, 8, 8),
        n_classes=10,
        short={"FD": "FID", "IS": "IS"},
    )
    assert list(evaluate(torch.zeros(20, 1, 8, 8), digits, ["fd", "is"], short, progress=False)) == [
        "FID",
        "IS",
    ]


def test_bars_obey_tqdm_disable(digits, space, G, monkeypatch):
    made = []

    module = importlib.import_module("gankit.metrics.evaluation")  # gk.metrics.evaluate is the function

    class Bar(module.tqdm):
        def __init__(self, *_, **settings):
            made.append((settings["total"], settings["disable"]))
            super().__init__(**settings | {"delay": 0})

    monkeypatch.setattr(module, "tqdm", Bar)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    evaluate(G, digits, features=space, n=30)
    evaluate(G, digits, features=space, n=30, progress=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    evaluate(G, digits, features=space, n=30)
    assert made == [(30, False), (len(digits), False)] + 2 * [(30, True), (len(digits), True)]


# --- Refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"metrics": ["fid"]}, "metric 'fid' is unknown; did you mean .*fd.* known are fd, "),
        ({"metrics": []}, "metrics must name at least one of fd, "),
        ({"metrics": ["is"], "features": None}, "'is' needs class probabilities, and the space 'pixels' has none"),
        ({"metrics": ["class_divergence"], "features": None}, "needs class probabilities"),
        ({"metrics": ["modes_covered"]}, "needs a mixture .* and 'digits' is none"),
        ({"metrics": ["recall"], "n": 5}, r"at least 6 samples .* got 5 and 1797 \(k may be smaller\)"),
        ({"metrics": ["recall"], "n_real": 9, "k": 9}, "at least 10 samples and as many real images, got 5000 and 9"),
        ({"metrics": ["ms_ssim"], "n": 399}, r"at least 400 samples .* \(pairs may be smaller\)"),
        ({"metrics": ["is"], "n": 9, "splits": 5}, r"at least 10 samples .* got 9 and 1797 \(splits may be smaller\)"),
        ({"n": 1}, "metric 'fd' needs at least 2 samples|metric 'classes_covered' needs at least 2 samples"),
        ({"n_real": 1}, "number of real images must be at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_any_sample_is_made(digits, space, settings, sentence):
    def never(n):
        raise AssertionError("sampled")

    with pytest.raises(ValueError, match=sentence):
        evaluate(never, digits, **{"features": space, "progress": False} | settings)


def test_classes_of_another_data_set_are_not_counted(digits, net):
    other = FeatureSpace("other", lambda x: x.flatten(1), head=lambda x: x, n_classes=64)
    with pytest.raises(
        ValueError, match="counts the 10 classes of 'digits', and the space 'other' tells 64 others"
    ):
        evaluate(torch.zeros(5, 1, 8, 8), digits, ["classes_covered"], other, progress=False)
    assert list(evaluate(torch.rand(5, 1, 8, 8), digits, None, other, progress=False)) == ["FD[other]"]


@pytest.mark.parametrize(
    ("sampler", "sentence"),
    [
        (lambda n: torch.zeros(n - 1, 1, 8, 8), r"asked for 20 samples and gave a tensor of shape \[19, 1, 8, 8\]"),
        (lambda n: torch.zeros(n), "gave a tensor of shape"),
        (lambda n: torch.zeros(n, 3, 8, 8), r"samples must be \[\.\.\., N, 1, 8, 8\] like the images of 'digits'"),
        (torch.zeros(19, 1, 8, 8), "n must be the number of samples in the tensor, 19, got 20"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused(digits, sampler, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(sampler, digits, n=20, progress=False)


def test_a_reference_is_not_described_twice(digits, space):
    known = reference(digits, space, n=50, progress=False)
    with pytest.raises(ValueError, match="a Reference brings its own features, n_real: leave them out"):
        evaluate(torch.zeros(5, 1, 8, 8), known, features=space, n_real=10)


def test_a_weighted_reference_is_drawn_by_its_weights(digits, space):
    """Only threes and, twice as often, fours: their shares are exact, and the features those of such images."""
    weights = (digits.labels == 3).double() / (digits.labels == 3).sum()
    weights += 2 * (digits.labels == 4).double() / (digits.labels == 4).sum()
    weighted = digits.with_weights(weights)
    known = reference(weighted, space, progress=False)
    assert (len(known.data), known.data.name, known.data.weights) == (len(digits), "digits, weighted", None)
    shares = known.data.class_frequencies()
    assert shares[4].item() == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / len(digits)))
    assert shares[[3, 4]].sum() == 1
    real = digits.subset(weighted.draw(3_000, torch.Generator().manual_seed(9)))
    scores = evaluate(real.normalise(real.images), known, ["fd", "class_divergence"], progress=False)
    plain = evaluate(real.normalise(real.images), digits, ["fd"], space, progress=False)
    assert scores["FD[random]"].value < 0.05 * plain["FD[random]"].value
    classes = space.logits(space(real.normalise(real.images))).argmax(-1)
    exact = class_divergence(frequencies(classes, 10), torch.eye(10)[3] + 2 * torch.eye(10)[4])
    assert scores["D_JS[classes]"].value.item() == pytest.approx(exact.item(), rel=1e-12)
    assert scores["FD[random]"].protocol.reference == "digits, weighted"
    assert len(reference(weighted, space, n=50, progress=False).data) == 50


def test_distances_say_that_less_is_better_and_every_metric_its_title(space):
    distances = {name for name, metric in METRICS.items() if metric.less_is_better}
    assert distances == {
        "fd",
        "kd",
        "intra_fd",
        "class_divergence",
        "mode_divergence",
        "mode_kl",
        "stacked_kl",
    }
    assert METRICS["fd"].title_in(space) == "FD[random]"
    assert METRICS["class_divergence"].title_in(space) == "D_JS[classes]"
