"""Augmentations: exactness, gradients, what leaks in theory, and the rule that finds p."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gankit as gk
from gankit.game import transformations as tr
from gankit.game.augment import ADA, ADA_PARTS, DIFFAUGMENT, AdaptP, AdaptPHeldOut, Chain, DiffAugment, Flips
from gankit.game.consistency import BCR, CR, ZCR, Diversity
from gankit.streams import Streams

EVERYTHING = "blit,geometric,colour,noise,cutout"


def streams(seed: int = 0, lead: tuple[int, ...] = ()) -> Streams:
    return Streams([seed] * (lead[0] if lead else 1), lead, "cpu")


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) * 2 - 1).to(dtype)


def draw_of(x: Tensor, seed: int = 0) -> tr.Draw:
    return tr.Draw(streams(seed), len(x), x)


# --- Exactness ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(tr.NAMES),
    channels=st.sampled_from([1, 3]),
    side=st.integers(1, 13),
    seed=st.integers(0, 2**16),
    extreme=st.booleans(),
)
def test_nothing_happens_at_p_0_and_nothing_breaks_at_p_1(name, channels, side, seed, extreme) -> None:
    x = images(5, channels, side, side, seed=seed)
    x = x.sign() if extreme else x
    assert torch.equal(Chain(name, 0.0)(x, streams(seed), {}), x)
    moved = Chain(name, 1.0)(x, streams(seed), {})
    assert moved.shape == x.shape
    assert bool(moved.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28)])
def test_the_whole_pipeline_is_the_identity_at_p_0(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = images(2, 6, *shape, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ADA(EVERYTHING, 0.0)(x, streams(lead=(2,)), {}), x)
        moved = ADA(EVERYTHING, 1.0)(x, streams(lead=(2,)), {})
    assert moved.dtype == dtype
    assert not torch.equal(moved, x)
    state = {"augment_p": torch.tensor([0.0, 1.0])}
    first, second = ADA(EVERYTHING)(x, streams(lead=(2,)), state)
    assert torch.equal(first, x[0])
    assert not torch.equal(second, x[1])
    tuple_of_p = ADA(EVERYTHING, (0.0, 1.0))(x, streams(lead=(2,)), {})
    assert torch.equal(tuple_of_p[0], first)
    assert torch.equal(tuple_of_p[1], second)


def test_flips_turns_and_shifts_only_move_pixels() -> None:
    x = images(64, 1, 8, 8)
    for name, choices in {
        "flip": [lambda i: i, lambda i: i.flip(-1)],
        "turn": [lambda i, k=k: i.rot90(k, (-2, -1)) for k in range(4)],
    }.items():
        moved = Chain(name)(x, streams(1), {})
        which = [
            [torch.equal(m, choice(i)) for choice in choices].index(True)
            for i, m in zip(x, moved, strict=True)
        ]
        assert set(which) == set(range(len(choices))), name
    moved = Chain("shift")(x, streams(1), {})
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1).flatten(2, 3)[:, 0]
    assert bool((windows == moved).all(-1).all(-1).any(-1).all())


def test_a_quarter_turn_four_times_and_a_warp_of_whole_places() -> None:
    x = images(3, 3, 9, 9)
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).expand(3, 3, 3)
    assert torch.equal(tr.warp(x, quarter), tr.move(x, quarter))
    four = x
    for _ in range(4):
        four = tr.move(four, quarter)
    assert torch.equal(four, x)
    assert not torch.equal(tr.move(x, quarter), x)


@settings(deadline=None, max_examples=25)
@given(angle=st.floats(-3, 3), size=st.floats(0.7, 1.4), across=st.floats(-2, 2), seed=st.integers(0, 99))
def test_a_warp_is_torchs_own_grid_sample(angle: float, size: float, across: float, seed: int) -> None:
    x = images(2, 3, 7, 11, seed=seed, dtype=torch.float64)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    places = torch.tensor([[cos, sin, across], [-sin, cos, 0.5], [0, 0, 1]], dtype=torch.float64).expand(
        2, 3, 3
    )
    # grid_sample counts from -1 to 1 between the middles of the outer pixels.
    half = torch.tensor([5.0, 3.0], dtype=torch.float64)
    scaled = torch.diag(torch.cat([1 / half, torch.ones(1)]).double())
    theta = (scaled @ places[0] @ torch.diag(torch.cat([half, torch.ones(1)]).double()))[:2].expand(2, 2, 3)
    grid = nn.functional.affine_grid(theta, x.shape, align_corners=True)
    expected = nn.functional.grid_sample(x, grid, "bilinear", "reflection", align_corners=True)
    torch.testing.assert_close(tr.warp(x, places), expected, atol=1e-9, rtol=1e-9)


def test_translation_is_a_window_of_the_padded_image() -> None:
    x = images(40, 3, 8, 8)
    moved = tr.translation(x, draw_of(x), 1.0)
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    found = [
        {
            (i, j)
            for i in range(3)
            for j in range(3)
            if torch.equal(padded[b, :, i : i + 8, j : j + 8], moved[b])
        }
        for b in range(40)
    ]
    assert all(found)
    assert set().union(*found) == {(i, j) for i in range(3) for j in range(3)}


def test_the_gradient_of_cutout_is_its_mask() -> None:
    x = images(200, 1, 8, 8).requires_grad_()
    cut = tr.cutout(x, draw_of(x), 1.0)
    (gradient,) = torch.autograd.grad(cut.sum(), x)
    assert torch.equal(gradient, (cut != 0).to(x))
    assert float(1 - gradient.mean()) == pytest.approx(0.174, abs=0.02)  # the border cuts some of the quarter
    areas = (1 - gradient).sum((1, 2, 3))
    assert areas.max() == 16
    assert areas.min() >= 4


def test_diffaugment_is_its_papers_formulas() -> None:
    """Brightness, saturation, contrast in this order, from the same random numbers."""
    x = images(6, 3, 8, 8)
    moved = DiffAugment("color")(x, streams(), {})
    twin = draw_of(x)
    u = []
    for _ in range(3):
        u.append(twin.uniform()[:, None, None, None])
        twin.uniform()  # whether it happens
    y = x + (u[0] - 0.5)
    y = (y - y.mean(1, keepdim=True)) * (2 * u[1]) + y.mean(1, keepdim=True)
    y = (y - y.mean((1, 2, 3), keepdim=True)) * (u[2] + 0.5) + y.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(moved, y)
    grey = images(4, 1, 8, 8)
    assert torch.equal(tr.uniform_saturation(grey, draw_of(grey), 1.0), grey)


def test_colours_keep_what_they_should() -> None:
    x = images(50, 3, 4, 4)
    for name in ("hue", "saturation"):  # the grey part stays
        moved = Chain(name)(x, streams(), {})
        torch.testing.assert_close(moved.mean(1), x.mean(1), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(moved, x)
    turned = Chain("hue")(x, streams(), {})
    torch.testing.assert_close(turned.square().sum(1), x.square().sum(1), atol=1e-5, rtol=1e-4)
    grey = images(50, 1, 4, 4)
    assert torch.equal(Chain("hue,saturation")(grey, streams(), {}), grey)
    flipped = Chain("luma-flip")(grey, streams(), {})
    assert {float(s) for s in (flipped / grey).flatten(1).mean(1).round(decimals=3)} == {1.0, -1.0}


def test_a_chain_happens_in_the_order_of_its_names() -> None:
    x = images(8, 3, 8, 8)
    for steps in ("flip,turn", "scale,rotate", "contrast,brightness", "cutout,noise,shift"):
        names, twin, one_by_one = steps.split(","), draw_of(x), x
        for name in names:
            one_by_one = tr.transformed(one_by_one, [name], twin, 1.0)
        together = Chain(steps)(x, streams(), {})
        if set(names) <= {"scale", "rotate"}:  # interpolated once in place of twice: alike, and not equal
            assert float((together - one_by_one).abs().mean()) < 0.3
            assert float((together - one_by_one).abs().mean()) < float((together - x).abs().mean())
        else:
            torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-5)
    contrast, bright = (torch.tensor([[2.0, 0], [0, 1]])[None], torch.tensor([[1.0, 1], [0, 1]])[None])
    y = tr.recolour(torch.ones(1, 1, 1, 1), bright @ contrast)
    assert float(y) == 3.0  # 2 x + 1, and not 2 (x + 1)
    assert list(ADA_PARTS) == ["blit", "geometric", "colour", "noise", "cutout"]


# --- Gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tr.NAMES)
def test_gradients_reach_g_through_it_once_and_twice(name: str) -> None:
    x = images(2, 3, 5, 5, dtype=torch.float64).requires_grad_()

    def augmented(x: Tensor) -> Tensor:
        return Chain(name, 1.0)(x, streams(3), {})

    assert torch.autograd.gradcheck(augmented, (x,))

    # Of the second order: of the slope of a curved D behind it, as R1 needs.
    def slope(x: Tensor) -> Tensor:
        return torch.autograd.grad(augmented(x).pow(3).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(slope, (x,))


# --- What leaks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.3, 0.75, 1.0])
def test_the_operator_of_turns_has_the_eigenvalues_that_its_docstring_says(p: float) -> None:
    """Four pictures that are turns of one another: how often is each seen where another was put in?"""
    corner = torch.zeros(1, 1, 2, 2)
    corner[..., 0, 0] = 1
    turned = torch.cat([corner.rot90(k, (-2, -1)) for k in range(4)])
    n = 20_000
    matrix = torch.zeros(4, 4)
    for j in range(4):
        seen = Chain("turn", p)(turned[j].expand(n, 1, 2, 2), streams(j), {})
        matrix[:, j] = torch.stack([(seen == one).flatten(1).all(1).float().mean() for one in turned])
    values = np.sort(np.linalg.eigvals(matrix.numpy()).real)
    assert values == pytest.approx([1 - p] * 3 + [1], abs=0.03)


def test_two_distributions_that_look_alike_are_alike_below_p_1() -> None:
    """Mirror images: frequencies (a, 1 - a) are seen as a (1 - p / 2) + (1 - a) p / 2."""
    left = torch.tensor([[[[1.0, 0.0]]]]).expand(40_000, 1, 1, 2)
    for p in (0.5, 1.0):
        seen = Chain("flip", p)(left, streams(), {})[..., 0].mean()
        assert float(seen) == pytest.approx(1 - p / 2, abs=0.01)
    determinant = lambda p: np.linalg.det(np.array([[1 - p / 2, p / 2], [p / 2, 1 - p / 2]]))  # noqa: E731
    assert determinant(0.5) == pytest.approx(0.5)
    assert determinant(1.0) == pytest.approx(0)


# --- The rule -------------------------------------------------------------------------------------------------------


def moved_by(rule: AdaptP, r: float, n: int, images_of_a_step: int = 64) -> float:
    state = rule.init(())
    for _ in range(n):
        state = rule.update(state, {"r_t": torch.tensor(r), "step_images": images_of_a_step})
    return float(state["augment_p"])


def test_p_moves_at_the_stated_speed() -> None:
    assert moved_by(AdaptP(), 1.0, 3) == 0
    assert moved_by(AdaptP(), 1.0, 4) == pytest.approx(5.12e-4)
    assert moved_by(AdaptP(start=0.5), 0.0, 40) == pytest.approx(0.5 - 5.12e-3)
    assert moved_by(AdaptP(images=6_400), 1.0, 100) == pytest.approx(1.0)
    assert moved_by(AdaptP(), 0.6, 40) == 0  # at the target: sign 0
    signs = [1.0, 1.0, 1.0, -0.9]  # the mean of an interval counts, 0.525
    rule, state = AdaptP(start=0.5), AdaptP(start=0.5).init(())
    for r in signs:
        state = rule.update(state, {"r_t": torch.tensor(r), "step_images": 64})
    assert float(state["augment_p"]) < 0.5


@settings(deadline=None, max_examples=50)
@given(
    rs=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    speed=st.integers(1, 200),
    start=st.floats(0, 1),
    interval=st.integers(1, 5),
)
def test_p_never_leaves_0_to_1(rs: list[float], speed: int, start: float, interval: int) -> None:
    rule = AdaptP(images=speed, start=start, interval=interval)
    state = rule.init((2,))
    for r in rs:
        state = rule.update(state, {"r_t": torch.tensor([r, -r]), "step_images": 64})
        assert bool((state["augment_p"] >= 0).all() and (state["augment_p"] <= 1).all())


class Constant(nn.Module):
    """A D that says the same of everything, or knows the data by heart."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.knows = knows

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (torch.ones(len(x)) if self.knows else x.new_zeros(len(x)))


@pytest.mark.parametrize(("knows", "r_t"), [(True, 1.0), (False, 0.0)])
def test_r_t_is_1_for_a_perfect_d_and_0_for_a_blind_one(knows: bool, r_t: float) -> None:
    data = gk.data.load("digits", n=50)
    G, _ = gk.models.mlp(data.shape, z_dim=4, width=8)
    rule = AdaptP()
    run = gk.Trainer(G, Constant(knows), data, batch_size=8, rules=[rule], device="cpu")
    play = run.play(run.D)
    assert float(rule.observe(play)["r_t"].detach()) == r_t
    assert rule.observe(run.play(run.G)) == {}


def test_r_v_compares_held_out_images_with_training_and_generated_ones() -> None:
    split = gk.data.load("digits", n=100).split(50, validation=50)
    rule = AdaptPHeldOut(split.validation, interval=1, images=640)

    def update(**logits: float) -> float:
        seen = {name: torch.tensor(value) for name, value in logits.items()} | {"step_images": 64}
        return float(rule.update(rule.init(()) | {"augment_p": torch.tensor(0.5)}, seen)["augment_p"])

    assert update(real_logit=2.0, held_out_logit=-1.0, fake_logit=-1.0) == pytest.approx(0.6)  # r_v = 1
    assert update(real_logit=2.0, held_out_logit=2.0, fake_logit=-1.0) == pytest.approx(0.4)  # r_v = 0
    assert update(real_logit=1.0, held_out_logit=0.0, fake_logit=1.0) == pytest.approx(
        0.4
    )  # nothing to divide by


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Chain("flip,twist"), "steps must be names out of flip, turn, .* got 'flip,twist'"),
        (lambda: Chain("flip", 1.5), r"p is a probability and must lie in \[0, 1\], got 1.5"),
        (lambda: Flips(-0.1), "p is a probability"),
        (lambda: DiffAugment("colour"), "policy must be names out of color, translation, cutout"),
        (lambda: ADA("bgc"), "parts must be names out of blit, geometric, colour, noise, cutout"),
        (lambda: AdaptP(images=0), "images must be at least 1, got 0"),
        (lambda: AdaptP(target=2.0), r"target must lie in \[-1, 1\]"),
        (lambda: AdaptP(start=-1.0), "start is a probability"),
        (lambda: CR(-1.0), "weight is the term's strength"),
        (lambda: BCR(fake=-1.0), "fake is the term's strength"),
        (lambda: ZCR(sigma=0.0), "sigma must be above 0"),
        (lambda: ADA()(images(2, 1, 8, 8), streams(), {}), r"give rules=\[AdaptP\(\)\], or a number as p"),
        (lambda: ADA(p=(0.1, 0.2))(images(2, 1, 8, 8), streams(), {}), "p must have one number for each replica"),
        (lambda: ADA(p=0.1)(torch.zeros(4, 2), streams(), {}), r"of images \[\*lead, M, C, H, W\], got shape \[4, 2\]"),
        (lambda: Chain("turn")(images(2, 1, 8, 7), streams(), {}), r"square images, got \(8, 7\)"),
        (lambda: Chain("hue")(images(2, 2, 8, 8), streams(), {}), "1 or 3 channels, got 2"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


# --- Consistency ----------------------------------------------------------------------------------------------------


class MeanPool(nn.Module):
    """A D to which order does not matter: it does not change under flips and turns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean((1, 2, 3))


def run_with(D: nn.Module, **settings: object) -> gk.Trainer:
    data = gk.data.load("digits", n=50)
    G, _ = gk.models.mlp(data.shape, z_dim=4, width=8)
    return gk.Trainer(G, D, data, batch_size=16, device="cpu", **settings)


def test_consistency_of_an_invariant_d_costs_nothing() -> None:
    run = run_with(MeanPool())
    for term in (CR(10.0, "flip,turn"), BCR(10.0, 10.0, "flip,turn")):
        assert float(term(run.play(run.D)).detach()) == pytest.approx(0, abs=1e-9)
    assert float(CR(10.0, "cutout")(run.play(run.D)).detach()) > 1e-4


def test_cr_is_its_equation() -> None:
    _, D = gk.models.mlp((1, 8, 8), z_dim=4, width=8, seed=1)
    run = run_with(D)
    start = run.streams.state_dict()
    value = CR(10.0)(run.play(run.D))
    run.streams.load_state_dict(start)
    play = run.play(run.D)
    x = play.real
    moved = Chain("flip,shift")(x, run.streams, {})
    torch.testing.assert_close(value, 10 * (D(x) - D(moved)).square().mean())


def test_zcr_of_a_linear_g_is_sigma_squared_times_its_norm() -> None:
    data = gk.data.load("digits", n=50)

    class Linear(nn.Module):
        z_dim, shape = 6, data.shape

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 64, bias=False)

        def forward(self, z: Tensor) -> Tensor:
            return self.layer(z).reshape(-1, 1, 8, 8)

    torch.manual_seed(0)
    G = Linear()
    run = gk.Trainer(G, MeanPool(), data, batch_size=20_000, device="cpu")
    expected = -0.5 * 0.05**2 * float(G.layer.weight.square().sum())
    assert float(Diversity(0.5, 0.05)(run.play(run.G)).detach()) == pytest.approx(expected, rel=0.02)
    _, D = gk.models.mlp(data.shape, z_dim=4, width=8)
    assert float(ZCR()(run_with(D).play(D)).detach()) >= 0


# --- Real images alone, held-out images, frozen layers ---------------------------------------------------------------


def test_flips_of_real_images_leave_generated_ones_alone() -> None:
    data = gk.data.load("digits", n=50)
    G, D = gk.models.mlp(data.shape, z_dim=4, width=8)
    plain = gk.Trainer(G, D, data, batch_size=16, device="cpu")
    always = gk.Trainer(G, D, data, batch_size=16, device="cpu", data_augment=Flips(1.0))
    a, b = plain.play(D), always.play(D)
    assert torch.equal(b.real, a.real.flip(-1))
    assert torch.equal(b.fake, a.fake)
    half = Flips(0.5)(images(4_000, 1, 1, 2), streams(), {})
    share = (half != images(4_000, 1, 1, 2)).any(-1).float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.03)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 60), validation=st.integers(0, 40), seed=st.integers(0, 1_000))
def test_a_split_shares_nothing_and_is_nested(n: int, validation: int, seed: int) -> None:
    whole = gk.data.load("digits", n=100)
    marked = gk.data.Dataset("n", torch.arange(100.0)[:, None], whole.labels, whole.classes)
    numbers = lambda part: set() if part is None else set(part.images.flatten().tolist())  # noqa: E731
    train, held_out, test = map(numbers, marked.split(n, seed, validation=validation))
    assert (len(train), len(held_out), len(test)) == (n, validation, 100 - n - validation)
    assert not (train & held_out)
    assert not (train & test)
    assert not (held_out & test)
    if n > 1:
        smaller = marked.split(n - 1, seed, validation=validation)
        assert numbers(smaller.train) < train
        assert numbers(smaller.validation) == held_out


def test_a_split_needs_enough_samples() -> None:
    with pytest.raises(
        gk.data.DataError, match="both together at most the 20 samples of 'digits', got 15 and 6"
    ):
        gk.data.load("digits", n=20).split(15, validation=6)


def test_curves_of_d_are_those_of_its_logits_and_touch_no_random_number() -> None:
    split = gk.data.load("digits").split(100, validation=300)

    def trained(watched: bool) -> gk.Trainer:
        G, D = gk.pair(lambda seed: gk.models.mlp(split.train.shape, z_dim=4, width=8, seed=seed), (0, 1))
        run = gk.Trainer(G, D, split.train, batch_size=8, device="cpu")
        look = gk.metrics.watch_discriminator(split.validation, n=2_000) if watched else None
        return run.fit(4, log_every=2, callback=look, callback_every=2, progress=False)

    run, twin = trained(True), trained(False)
    assert all(torch.equal(a, b) for a, b in zip(run.D.parameters(), twin.D.parameters(), strict=True))
    row = run.history[-1]
    D = run.D.replica(1)
    with torch.no_grad():
        all_of_it = D(split.train.normalise(split.train.images)).mean()
    assert row["d_train"][1] == pytest.approx(float(all_of_it), abs=0.02)
    expected = (np.array(row["d_train"]) - row["d_validation"]) / (
        np.array(row["d_train"]) - row["d_generated"]
    )
    assert row["r_v"] == pytest.approx(expected, rel=1e-3)


def test_memorisation_of_copies_and_of_strangers() -> None:
    split = gk.data.load("digits").split(800, validation=800)
    train, held_out = (part.normalise(part.images) for part in (split.train, split.validation))
    test = split.test.normalise(split.test.images)
    assert float(gk.metrics.memorisation(train[:50], train, held_out)) == 0
    assert float(gk.metrics.memorisation(test, train, held_out)) == pytest.approx(1, abs=0.05)
    by_hand = np.linalg.norm((test[:9, None] - train[None]).flatten(2).numpy(), axis=-1).min(1).mean()
    by_hand /= np.linalg.norm((test[:9, None] - held_out[None]).flatten(2).numpy(), axis=-1).min(1).mean()
    pair = torch.stack([test[:9], train[:9]])
    assert gk.metrics.memorisation(pair, train, held_out).tolist() == pytest.approx([by_hand, 0], rel=1e-5)


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("family", ["mlp", "sngan", "dcgan"])
def test_frozen_blocks_keep_every_bit_and_g_still_learns(family: str, ensemble: bool) -> None:
    shape = (1, 8, 8) if family == "mlp" else (3, 32, 32)
    pixels = torch.randint(
        0, 256, (20, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    data = gk.data.Dataset("noise", pixels, torch.zeros(20, dtype=torch.int64), ("all",))
    make = lambda seed: getattr(gk.models, family)(shape, z_dim=4, width=4, seed=seed)  # noqa: E731
    G, D = gk.pair(make, (0, 1)) if ensemble else make(0)
    before = {name: x.clone() for name, x in D.state_dict().items()}
    g_before = [p.clone() for p in G.parameters()]
    run = gk.Trainer(G, D, data, batch_size=4, freeze_d=1, device="cpu").fit(2, progress=False)
    first = next(name for name, part in make(0)[1].named_children() if any(True for _ in part.parameters()))

    def own(name: str) -> str:
        return name.removeprefix("net.").removeprefix("stacked.").replace("/", ".").partition(".")[0]

    for name, x in D.state_dict().items():
        frozen = own(name) == first if ensemble else name.partition(".")[0] == first
        assert torch.equal(x, before[name]) or not frozen, name
    assert any(not torch.equal(x, before[name]) for name, x in D.state_dict().items())
    assert any(not torch.equal(p, q) for p, q in zip(G.parameters(), g_before, strict=True))
    assert len(run.d_params) < len(list(D.parameters()))


def test_as_many_blocks_as_d_has_are_too_many() -> None:
    data = gk.data.load("digits", n=20)
    with pytest.raises(ValueError, match=r"freeze_d must lie in 0..2, for a D of 3 blocks, got 3"):
        gk.Trainer(*gk.models.mlp(data.shape, depth=3, width=8), data, freeze_d=3, device="cpu")


def test_policies_name_what_there_is() -> None:
    assert {name for part in (*ADA_PARTS.values(), *DIFFAUGMENT.values()) for name in part} <= set(tr.NAMES)
