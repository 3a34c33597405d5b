import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import gankit as gk
from gankit import models
from gankit.game.leak import Leak, leak_batch
from gankit.game.play import Game, Play
from gankit.models.ensemble import pair
from gankit.streams import Streams
from gankit.training.average import EMA, Teacher


def test_the_teacher_is_the_average_of_equation_2():
    G, _ = models.mlp((2,), z_dim=3, width=4)
    teacher = Teacher(G, EMA(decay=0.9), batch_size=8)
    expected = [p.detach().clone() for p in G.parameters()]
    for step in range(5):
        with torch.no_grad():
            for p in G.parameters():
                p.add_(step + 1)
        teacher.update(G, step)
        expected = [0.9 * e + 0.1 * p.detach() for e, p in zip(expected, G.parameters(), strict=True)]
    for average, e in zip(teacher.net.parameters(), expected, strict=True):
        torch.testing.assert_close(average, e)
        assert not average.requires_grad


def test_the_teacher_copies_the_generator_until_it_starts():
    G, _ = models.mlp((2,), z_dim=3, width=4)
    teacher = Teacher(G, EMA(decay=0.9, start=2), batch_size=8)
    for step in range(3):
        with torch.no_grad():
            for p in G.parameters():
                p.add_(1)
        teacher.update(G, step)
        same = [torch.equal(a, p) for a, p in zip(teacher.net.parameters(), G.parameters(), strict=True)]
        assert all(same) == (step < 2)


def test_buffers_are_copied_so_that_spectral_norm_stays_right():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(20, 20))
    teacher = Teacher(layer, EMA(decay=0.5), batch_size=1)
    for step in range(50):
        layer.train()
        layer(torch.zeros(1, 20))
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(0.01 * torch.randn(20, 20))
        teacher.update(layer, step)
    for mine, theirs in zip(teacher.buffers(), layer.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    # The teacher's own matrix, normalised with the copied vectors, has a norm close to one.
    assert torch.linalg.matrix_norm(teacher.net.weight, 2).item() == pytest.approx(1, rel=0.05)


@given(st.floats(10, 1e6), st.integers(1, 4096))
def test_a_half_life_halves_whatever_the_batch_size(half_life, batch_size):
    alpha = EMA(half_life=half_life).alpha(batch_size)
    assert alpha ** (half_life / batch_size) == pytest.approx(0.5)


def test_the_default_decay_is_the_papers():
    assert EMA().alpha(64) == 0.999


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: EMA(decay=1.0), r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: EMA(half_life=0), "half_life must be a positive number of images"),
        (lambda: EMA(decay=0.9, half_life=10), "not both"),
        (lambda: EMA(start=-1), "start must be"),
        (lambda: Leak(1.5), r"beta .* must lie in \[0, 1\], got 1.5"),
        (lambda: Leak((0.5, -0.1)), r"got -0.1"),
        (lambda: Leak(0.5, source="teacher"), "source must be one of sync, async-noise"),
        (lambda: Leak(0.5, source="async-model"), "without a model"),
        (lambda: Leak(0.5, model=nn.Identity()), "with a model"),
        (lambda: Leak(0.5, start=-3), "start must be a generator step"),
        (
            lambda: Leak((0.5, 0.5)).replaced(0, 8, (3,)),
            r"beta must be one value or one per replica \(3\), got 2",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# --- Leaking: networks whose samples tell where they come from -------------------------------------------------


class Echo(nn.Module):
    """A conditional generator that writes its mark, its label and its z into the sample."""

    n_classes, z_dim, shape = 5, 1, (3,)

    def __init__(self, mark: float) -> None:
        super().__init__()
        self.mark = nn.Parameter(torch.tensor(mark))

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([self.mark.expand(z.shape[:-1]), labels.to(z), z[..., 0]], -1)


class Zed(nn.Module):
    """A discriminator that finds a sample the more realistic the larger its z."""

    n_classes = 5

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return x[..., 2]


def play_of(G, D, teacher: Teacher, z: Tensor, labels: Tensor | None, step: int, streams: Streams) -> Play:
    """A play with these latents."""
    data = gk.data.load("ring", n=10)
    play = Play(Game(gk.losses["ns"]), D, G, D, teacher.net, data, streams, z.shape[-2], step, {})
    play.z, play.labels, play.streams = (
        z,
        labels,
        Streams(range(len(streams.generators)), streams.lead, "cpu"),
    )
    return play


def leaked(leak: Leak, step: int = 10, n: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    G = Echo(1.0)
    teacher = Teacher(Echo(2.0), EMA(), batch_size=n)
    real = torch.full((n, 3), -1.0)
    z = torch.arange(n, dtype=torch.float32)[:, None] + 100
    z_labels = torch.arange(n) % 5
    play = play_of(G, Zed(), teacher, z, z_labels, step, Streams([0], (), "cpu"))
    return *leak_batch(leak, play, real, torch.full((n,), 4)), z, z_labels


MARK = {"sync": 2.0, "async-noise": 2.0, "async-model": 3.0, "generator": 1.0, "most-realistic": 1.0}


@pytest.mark.parametrize("source", MARK)
def test_labels_travel_with_their_images_whatever_the_source(source):
    leak = Leak(0.5, source=source, model=Echo(3.0) if source == "async-model" else None)
    x, y, z, z_labels = leaked(leak)
    assert torch.equal(x[4:], torch.full((4, 3), -1.0))  # the other half is still real
    assert torch.equal(y[4:], torch.full((4,), 4))
    assert torch.equal(x[:4, 0], torch.full((4,), MARK[source]))
    assert torch.equal(x[:4, 1], y[:4].float())
    if source in ("sync", "async-model"):  # the z and the labels of the minibatch's own fakes
        assert torch.equal(x[:4, 2], z[:4, 0])
        assert torch.equal(y[:4], z_labels[:4])
    else:
        assert x[:4, 2].abs().max() < 10  # fresh z


def test_most_realistic_takes_what_d_scores_highest():
    x, *_ = leaked(Leak(0.25, source="most-realistic"), n=8)
    streams = Streams([0], (), "cpu")
    drawn = streams.normal(8, 1)[:, 0]
    torch.testing.assert_close(x[:2, 2], drawn.topk(2).values)


@given(st.floats(0, 1), st.integers(1, 64))
def test_the_stated_share_is_replaced(beta, n):
    x, *_ = leaked(Leak(beta), n=n)
    assert (x[:, 0] == 2).sum() == round(beta * n)


def test_nothing_leaks_before_the_start():
    x, y, *_ = leaked(Leak(0.5, start=11), step=10)
    assert (x == -1).all()
    assert (y == 4).all()


def test_replicas_may_leak_different_shares_from_different_steps():
    G, D = pair(lambda seed: models.mlp((2,), z_dim=3, width=4, seed=seed), [0, 1, 2, 3])
    teacher = Teacher(G, EMA(), batch_size=8)
    z = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(0))
    real = torch.full((4, 8, 2), 9.0)
    leak = Leak((0.0, 0.25, 0.5, 0.5), start=(0, 0, 0, 99))
    x, _ = leak_batch(
        leak, play_of(G, D, teacher, z, None, 5, Streams([0, 1, 2, 3], (4,), "cpu")), real, None
    )
    assert (x == 9).all(-1).sum(-1).tolist() == [8, 6, 4, 8]
    torch.testing.assert_close(x[2, :4], teacher(z)[2, :4])


# --- Precision of the replacements ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["sync", "generator"])
def test_replacements_may_be_generated_in_lower_precision_than_the_run(source):
    data = gk.data.load("digits")

    def run(**settings) -> gk.Trainer:
        G, D = gk.models.sngan(data.shape, z_dim=8, width=8)
        return gk.Trainer(G, D, data, batch_size=8, device="cpu", **settings)

    exact, rounded = (run(leak=gk.Leak(0.5, source=source, precision=p)) for p in (None, "bfloat16"))
    seen = []
    for r in (exact, rounded):
        seen.append([])
        r.D.register_forward_pre_hook(lambda module, inputs, kept=seen[-1]: kept.append(inputs[0].detach()))
        r.d_step()
    a, b = seen[0][-1], seen[1][-1]
    assert a.dtype == b.dtype == torch.float32
    assert not torch.equal(a[:4], b[:4])
    torch.testing.assert_close(a[:4], b[:4], rtol=0, atol=0.03)
    assert torch.equal(a[4:], b[4:]), "real samples and fakes are as they were"


def test_an_unknown_precision_of_the_leak_is_refused():
    with pytest.raises(
        ValueError, match="precision must be one of float32, tf32, bfloat16 or None, got 'float16'"
    ):
        gk.Leak(0.5, precision="float16")
