"""Classifiers trained on what a generator makes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gankit as gk
from gankit.classifiers import synthetic
from gankit.classifiers.synthetic import Augment, FixedSet, Generated, Mixed, Protocol
from gankit.models.union import Union

TEST = gk.data.load("digits", split="test")
TRAIN = gk.data.load("digits", split="train")


class Painter(nn.Module):
    """Pictures whose grey is that of the label, plus `noise` times z: quality is known, and so is diversity."""

    def __init__(self, noise=0.0, n_classes=4, side=4):
        super().__init__()
        self.z_dim, self.shape, self.n_classes = side * side, (1, side, side), n_classes
        self.noise = nn.Parameter(torch.tensor(float(noise)))

    def forward(self, z, labels):
        grey = labels / self.n_classes * 2 - 0.75
        return grey[..., None, None, None] + self.noise * z.reshape(*z.shape[:-1], *self.shape)


def by_grey(images, n_classes=4, sharpness=200.0):
    """Logits of pictures, from their mean grey: what `Painter` paints is right while the noise is small."""
    centers = torch.arange(n_classes) / n_classes * 2 - 0.75
    return -sharpness * (images.mean((-3, -2, -1))[:, None] - centers).square()


def test_images_carry_the_label_that_was_asked():
    images, labels = Generated(Painter()).draw(500)
    assert images.shape == (500, 1, 4, 4)
    assert labels.dtype == torch.int64
    assert torch.equal(by_grey(images).argmax(1), labels)
    assert labels.bincount(minlength=4).min() > 80


def test_every_call_draws_new_images_whatever_the_buffer():
    one, many = Generated(Painter(0.1), buffer=7), Generated(Painter(0.1), buffer=7)
    x, _ = one.draw(20)
    assert len(x.flatten(1).unique(dim=0)) == 20
    parts = [many.draw(n)[0] for n in (3, 9, 8)]
    assert torch.equal(torch.cat(parts), x)


def test_a_set_is_made_in_one_pass_with_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    made = synthetic.make_set(Generated(Painter(0.1)), 2_345, name="grey", classes="abcd", progress=True)
    assert "2345/2345" in capsys.readouterr().err
    images, labels = Generated(Painter(0.1)).draw(2_345)
    assert torch.equal(made.labels, labels)
    # What a file holds: 256 levels.
    assert (made.normalise(made.images) - images.clamp(-1, 1)).abs().max() <= 0.5 / 127.5 + 1e-6
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        synthetic.make_set(Generated(Painter()), 0, name="none", classes="abcd")


def test_bfloat16_changes_images_by_little_and_their_type_not_at_all():
    G, _ = gk.models.biggan_cifar((3, 8, 8), 10, z_dim=16, width=8)
    (exact, labels), (rough, same) = (
        Generated(G, buffer=150, precision=name).draw(300) for name in ("float32", "bfloat16")
    )
    assert rough.dtype == exact.dtype == torch.float32
    assert torch.equal(labels, same)
    difference = (rough - exact).abs()
    assert 0 < difference.mean() < 2 / 127.5  # levels of 255
    assert torch.corrcoef(torch.stack([rough.flatten(), exact.flatten()]))[0, 1] > 0.999
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, got 'half'"):
        Generated(G, precision="half")


def test_truncation_limits_z():
    images, labels = Generated(Painter(1.0), truncation=0.5).draw(400)
    z = images - (labels / 4 * 2 - 0.75)[:, None, None, None]
    assert z.abs().max() <= 0.5 + 1e-6
    assert z.std() > 0.2


def test_filter_lets_through_what_the_judge_is_sure_of_and_counts():
    source = Generated(Painter(1.0), judge=by_grey, threshold=0.9, buffer=300)
    images, labels = source.draw(300)
    p, predicted = by_grey(images).softmax(1).max(1)
    assert torch.equal(predicted, labels)
    assert p.min() >= 0.9
    # The share by an independent count of unfiltered images.
    free, asked = Generated(Painter(1.0), seed=1).draw(20_000)
    p, predicted = by_grey(free).softmax(1).max(1)
    share = ((predicted == asked) & (p >= 0.9)).double().mean()
    tried = int(source.tried.sum())
    # The source stops at the 300th success: binomial error of as many trials.
    assert abs(source.share_accepted - share) < 4 * math.sqrt(share * (1 - share) / tried)
    assert int(source.accepted.sum()) == 300


def test_filter_keeps_labels_uniform_when_one_class_seldom_passes():
    def strict(images):
        logits = by_grey(images)
        logits[:, 1] -= 4.0  # class 1 needs to be clearer
        return logits

    source = Generated(Painter(1.0), judge=strict, buffer=4_000)
    _, labels = source.draw(4_000)
    assert source.accepted[1] / source.tried[1] < 0.9 * source.accepted[2] / source.tried[2]
    assert labels.bincount(minlength=4).min() > 900


def test_a_class_that_never_passes_is_an_error_that_names_it():
    def blind(images):
        return by_grey(images) - 1e4 * torch.tensor([0.0, 0.0, 1.0, 0.0])

    with pytest.raises(ValueError, match="class 2 passes the filter too seldom: 0 of"):
        Generated(Painter(0.1), judge=blind, buffer=50).draw(50)


def test_replicas_filter_side_by_side():
    G = gk.Ensemble(lambda seed: Painter(1.0 if seed else 0.0), [0, 1])
    source = Generated(G, judge=by_grey, buffer=200)
    images, labels = source.draw(200)
    assert images.shape == (2, 200, 1, 4, 4)
    for x, y in zip(images, labels, strict=True):
        p, predicted = by_grey(x).softmax(1).max(1)
        assert torch.equal(predicted, y)
        assert p.min() >= 0.9
    assert source.share_accepted[0] == 1.0
    assert source.share_accepted[1] < 0.9


def test_one_replica_draws_what_it_would_draw_alone():
    G = gk.Ensemble(lambda seed: Painter(0.1 * (seed + 1)), [0, 1, 2])
    together, _ = Generated(G).draw(30)
    alone, _ = Generated(G.replica(2)).draw(30)
    torch.testing.assert_close(together[2], alone)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.0}, "threshold is a probability"),
        ({"buffer": 0}, "buffer and most_tries must be at least 1"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Generated(Painter(), **settings)


def test_a_generator_without_classes_is_refused():
    with pytest.raises(ValueError, match="must be conditional"):
        Generated(gk.models.mlp((1, 8, 8))[0])


@given(n=st.integers(1, 40), batches=st.lists(st.integers(1, 30), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_every_epoch_of_a_fixed_set_is_a_permutation(n, batches):
    images = torch.arange(n).float()[:, None, None, None].expand(n, 1, 2, 2)
    source = FixedSet(images, torch.arange(n))
    drawn = torch.cat([source.draw(k)[1] for k in batches])
    for epoch in drawn.split(n):
        assert len(epoch.unique()) == len(epoch)
    x, y = source.draw(3)
    assert torch.equal(x[:, 0, 0, 0].long(), y)


def test_fixed_sets_of_replicas_keep_images_with_labels():
    labels = torch.arange(5).repeat(3, 1) + 10 * torch.arange(3)[:, None]
    images = labels.float()[..., None, None, None].expand(3, 5, 1, 2, 2)
    x, y = FixedSet(images, labels, [0, 1, 2]).draw(5)
    assert torch.equal(x[..., 0, 0, 0].long(), y)
    assert torch.equal(y.sort(1).values, labels)
    shared_x, shared_y = FixedSet(images[0], labels[0], [0, 1]).draw(4)
    assert shared_x.shape == (2, 4, 1, 2, 2)
    assert not torch.equal(shared_y[0], shared_y[1])
    with pytest.raises(ValueError, match="labels"):
        FixedSet(images, labels, [0, 1])


def test_mixed_batches_have_their_shares():
    ones, twos = (FixedSet(torch.full((9, 1, 2, 2), v), torch.full((9,), int(v))) for v in (1.0, 2.0))
    for share, expected in ((0.0, 0), (0.25, 2), (1.0, 8)):
        _, y = Mixed(ones, twos, share).draw(8)
        assert (y == 1).sum() == expected
    with pytest.raises(ValueError, match="share"):
        Mixed(ones, twos, 1.5)


def test_augmentation_moves_and_mirrors():
    x = torch.rand(2, 300, 2, 6, 5) * 2 - 1
    moved = Augment(2, flip=True)(x, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(x, [2] * 4, value=-1)
    seen = set()
    for s, i in [(s, i) for s in range(2) for i in range(300)]:
        crops = {
            (down, right): padded[s, i, :, down : down + 6, right : right + 5]
            for down in range(5)
            for right in range(5)
        }
        ways = {
            (place, flipped): cut.flip(-1) if flipped else cut
            for place, cut in crops.items()
            for flipped in (0, 1)
        }
        matches = [way for way, cut in ways.items() if torch.equal(moved[s, i], cut)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 50  # all crops, mirrored and not, of 600 images
    assert torch.equal(Augment(0, flip=False)(x, torch.Generator()), x)
    with pytest.raises(ValueError, match="shift"):
        Augment(5)(x, torch.Generator())


def test_training_on_real_digits_reaches_96_percent_and_replicas_equal_single_runs():
    seeds = [0, 1]
    protocol = Protocol(8, 45, 64, learning_rate=0.05)

    def factory(s):
        return synthetic.perceptron(TRAIN.shape, 10, 64, seed=s)

    together = synthetic.train(FixedSet.real(TRAIN, seeds), gk.Ensemble(factory, seeds), TEST, protocol)
    assert together.accuracy.shape == (8, 2)
    assert together.last.min() > 0.95
    assert bool((together.best >= together.last).all())
    alone = synthetic.train(FixedSet.real(TRAIN, [1]), gk.Ensemble(factory, [1]), TEST, protocol)
    torch.testing.assert_close(together.accuracy[:, 1], alone.accuracy[:, 0], atol=0.006, rtol=0)


def test_learning_rate_drops_at_the_milestones():
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1))

    net = Spy(64, 10)
    protocol = Protocol(6, 1, 32, learning_rate=0.1, momentum=0.0, weight_decay=0.0, milestones=(0.5, 5 / 6))
    source = FixedSet.real(TRAIN)
    original = torch.optim.SGD.step

    def step(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        synthetic.train(source, net, TEST, protocol)
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.001])
    assert synthetic.PAPER.steps == 72_000
    assert [round(m * synthetic.PAPER.epochs) for m in synthetic.PAPER.milestones] == [100, 150]


def test_divergence_is_an_error():
    net = synthetic.perceptron(TRAIN.shape, 10)
    with pytest.raises(ValueError, match="lower the learning rate"):
        synthetic.train(FixedSet.real(TRAIN), net, TEST, Protocol(3, 20, 64, learning_rate=1e8))


def test_mistakes_agree_with_a_loop():
    nets = gk.Ensemble(lambda s: synthetic.perceptron(TEST.shape, 10, seed=s), [0, 1])
    x, y = TEST.normalise(TEST.images), TEST.labels
    wrong = synthetic.mistakes(nets, x, y)
    for s in range(2):
        assert torch.equal(wrong[s], nets.replica(s)(x).argmax(-1) != y)
    plain = synthetic.mistakes(nets.replica(0), x.expand(3, *x.shape), y.expand(3, -1))
    assert torch.equal(plain[2], wrong[0])


def test_resnet20_has_the_known_number_of_parameters():
    # He et al. 2016, table 6: 0.27 M for width 16 with parameter-free shortcuts. Ours adds two 1x1 convolutions with
    # batch normalisation: 16*32 + 2*32 + 32*64 + 2*64.
    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(synthetic.resnet20((3, 32, 32), 10, 16)) == 269_722 + 2_752
    wide = synthetic.resnet20((3, 32, 32), 10)
    assert wide.features(torch.zeros(2, 3, 32, 32)).shape == (2, 256)
    layers = [m for m in wide.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(layers) + 1 == 20


def test_union_is_a_function_of_z_with_the_right_shares():
    members = [Painter(0.0), Painter(1.0)]
    union = Union(members, [3, 1])
    z, y = (
        torch.randn(40_000, 16, generator=torch.Generator().manual_seed(0)),
        torch.zeros(40_000, dtype=torch.int64),
    )
    chosen = union.choose(z)
    assert abs((chosen == 1).double().mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 40_000)
    images = union(z, y)
    for i, G in enumerate(members):
        assert torch.equal(images[chosen == i], G(z[chosen == i], y[chosen == i]))
    assert torch.equal(union(z[:7], y[:7]), images[:7])  # nothing depends on the batch
    # What is chosen says nothing about z itself.
    correlation = torch.corrcoef(torch.cat([z.T, chosen[None].float()]))[-1, :-1]
    assert correlation.abs().max() < 4 / math.sqrt(40_000)


@given(z_dim=st.integers(1, 8), limit=st.floats(0.2, 3), seed=st.integers(0, 1_000))
@settings(max_examples=25, deadline=None)
def test_union_chooses_evenly_for_truncated_z_too(z_dim, limit, seed):
    generator = torch.Generator().manual_seed(seed)
    z = (torch.rand(20_000, z_dim, generator=generator) * 2 - 1) * limit
    union = Union([Painter(side=1), Painter(side=1), Painter(side=1)])
    shares = union.choose(z).bincount(minlength=3) / 20_000
    assert (shares - 1 / 3).abs().max() < 6 * math.sqrt(2 / 9 / 20_000)


def test_union_of_ensembles_is_the_union_of_replicas():
    first, second = (gk.Ensemble(lambda s, c=c: Painter(0.1 * s + c), [0, 1, 2]) for c in (0.0, 0.5))
    together, _ = Generated(Union([first, second])).draw(50)
    for s in range(3):
        alone, _ = Generated(Union([first.replica(s), second.replica(s)])).draw(50)
        torch.testing.assert_close(together[s], alone)


def test_any_metric_takes_a_union():
    unconditional = [gk.models.mlp((1, 8, 8), seed=s)[0] for s in range(2)]
    scores = gk.metrics.evaluate(gk.sampling.Sampler(Union(unconditional)), TEST, ["fd"], n=200, split="test")
    assert math.isfinite(next(iter(scores.values())).value)


@pytest.mark.parametrize(
    ("members", "shares", "message"),
    [
        ([], None, "generators is empty"),
        ([Painter(), Painter(n_classes=5)], None, "one number of classes, got 4, 5"),
        ([Painter(), Painter(side=3)], None, "z_dim"),
        ([Painter(), Painter()], [1, 0], "positive"),
        ([Painter(), Painter()], [1], "one positive number for each"),
    ],
)
def test_bad_unions(members, shares, message):
    with pytest.raises(ValueError, match=message):
        Union(members, shares)
