import itertools
import math
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from gankit import plotting
from gankit.game.losses import losses


@pytest.fixture
def ax() -> Iterator[Axes]:
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


# --- Bands ------------------------------------------------------------------------------------------------------

X = np.array([0, 10, 20, 30])
RUNS = np.random.default_rng(0).normal(size=(4, 5))


def edges(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the one band that is drawn, at each x."""
    [band] = ax.collections
    vertices = band.get_paths()[0].vertices
    columns = [vertices[vertices[:, 0] == x, 1] for x in X]
    return np.array([c.min() for c in columns]), np.array([c.max() for c in columns])


def test_a_band_is_the_median_between_the_extremes(ax):
    plotting.band(ax, X, RUNS, label="NS", color=plotting.COLORS["ns"])
    [line] = ax.lines
    assert np.array_equal(line.get_xdata(), X)
    assert np.array_equal(line.get_ydata(), np.sort(RUNS, axis=1)[:, 2])
    low, high = edges(ax)
    assert np.array_equal(low, RUNS.min(1))
    assert np.array_equal(high, RUNS.max(1))
    assert line.get_label() == "NS"
    assert [text.get_text() for text in ax.legend().get_texts()] == ["NS"]
    assert to_rgba(line.get_color()) == to_rgba(plotting.COLORS["ns"])
    assert tuple(ax.collections[0].get_facecolor()[0][:3]) == to_rgba(plotting.COLORS["ns"])[:3]


def test_an_even_number_of_runs_has_the_median_between_two(ax):
    plotting.band(ax, X, RUNS[:, :4])
    middle = np.sort(RUNS[:, :4], axis=1)[:, 1:3].mean(1)
    assert ax.lines[0].get_ydata() == pytest.approx(middle)
    # Without a colour of its own the band takes its line's, and the next line another.
    assert tuple(ax.collections[0].get_facecolor()[0][:3]) == to_rgba(ax.lines[0].get_color())[:3]
    plotting.band(ax, X, RUNS)
    assert ax.lines[0].get_color() != ax.lines[1].get_color()


def test_quantiles_narrow_the_band(ax):
    plotting.band(ax, X, RUNS, quantiles=(0.25, 0.75))
    ordered = np.sort(RUNS, axis=1)
    low, high = edges(ax)
    assert low == pytest.approx(ordered[:, 1])
    assert high == pytest.approx(ordered[:, 3])


@pytest.mark.parametrize("shape", [(4,), (3, 5), (4, 5, 1), (5, 4)])
def test_runs_of_another_shape_are_refused(ax, shape):
    with pytest.raises(ValueError, match=r"runs must have shape \[T, S\] with T = 4, got"):
        plotting.band(ax, X, np.zeros(shape))


# --- Grids of images --------------------------------------------------------------------------------------------


def distinct(n: int, c: int, h: int, w: int) -> tuple[torch.Tensor, np.ndarray]:
    """Images in [-1, 1], no two alike, and their uint8 levels `[N, C, H, W]`."""
    levels = np.random.default_rng(n).integers(0, 256, (n, c, h, w))
    return torch.from_numpy(levels / 127.5 - 1).float(), levels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("n", "columns", "pad", "expected"),
    [(6, 3, 1, (2, 3)), (7, 3, 2, (3, 3)), (5, None, 1, (2, 3)), (2, 10, 0, (1, 2)), (1, None, 3, (1, 1))],
)
def test_images_are_laid_row_by_row(channels, n, columns, pad, expected):
    images, levels = distinct(n, channels, 4, 5)
    picture = plotting.tile(images, columns, pad)
    rows, columns = expected
    shape = (rows * (4 + pad) + pad, columns * (5 + pad) + pad)
    assert picture.shape == (shape if channels == 1 else (*shape, 3))
    assert picture.dtype == np.uint8
    rest = np.ones(shape, dtype=bool)
    for i in range(n):
        at = np.s_[pad + i // columns * (4 + pad) :, pad + i % columns * (5 + pad) :]
        placed = picture[at][:4, :5]
        assert np.array_equal(placed, levels[i, 0] if channels == 1 else levels[i].transpose(1, 2, 0))
        rest[at][:4, :5] = False
    assert (picture[rest] == 255).all()
    assert rest.sum() == math.prod(shape) - n * 20


def test_each_of_the_256_levels_comes_back(ax):
    """Also when the network is a little off: levels are rounded, not cut off, and stay within their range."""
    levels = torch.arange(256).reshape(1, 1, 16, 16)
    exact = levels / 127.5 - 1
    for shift in (-0.4, 0.0, 0.4):
        assert np.array_equal(plotting.tile(exact + shift / 127.5, pad=0), levels[0, 0].numpy())
    assert np.array_equal(plotting.tile(torch.tensor([[[[-3.0, 3.0]]]]), pad=0), [[0, 255]])


def test_a_picture_of_one_pixel_keeps_its_two_dimensions():
    assert plotting.tile(torch.ones(1, 1, 1, 1), pad=0).shape == (1, 1)
    assert plotting.tile(torch.ones(1, 3, 1, 1), pad=0).shape == (1, 1, 3)


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8), (4, 2, 8, 8), (0, 1, 8, 8)])
def test_what_is_no_stack_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"images must have shape \[N, C, H, W\] with C = 1 or 3"):
        plotting.tile(torch.zeros(shape))


@pytest.mark.parametrize("columns", [0, -2])
def test_a_grid_has_at_least_one_column(columns):
    with pytest.raises(ValueError, match=f"columns must be at least 1, got {columns}"):
        plotting.tile(torch.zeros(4, 1, 2, 2), columns)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_the_tiles(channels):
    images, _ = distinct(6, channels, 8, 8)
    figure = plotting.grid(images, columns=2, title="samples")
    [ax] = figure.axes
    [shown] = ax.images
    assert np.array_equal(shown.get_array(), plotting.tile(images, 2))
    assert (ax.get_title(), ax.axison) == ("samples", False)
    # Black is 0 and white 255 also for a stack of dark images: no stretching of the contrast.
    assert shown.get_clim() == (0, 255)
    plt.close(figure)


def test_a_grid_can_go_into_a_given_axes(ax):
    before = plt.get_fignums()
    assert plotting.grid(torch.zeros(4, 1, 2, 2), ax=ax) is ax.figure
    assert plt.get_fignums() == before
    assert len(ax.images) == 1


def test_points_are_drawn_real_below_generated(ax):
    real, fake = torch.randn(7, 2), torch.randn(5, 2, requires_grad=True)
    plotting.points(ax, real, fake, color="#009E73", title="seed 3")
    below, above = ax.collections
    assert np.array_equal(below.get_offsets(), real)
    assert np.array_equal(above.get_offsets(), fake.detach())
    assert tuple(above.get_facecolor()[0]) == to_rgba("#009E73")
    assert (below.get_label(), above.get_label(), ax.get_title()) == ("real", "generated", "seed 3")
    assert ax.get_aspect() == 1


# --- Style ------------------------------------------------------------------------------------------------------


def test_every_colour_is_a_costs():
    assert set(plotting.COLORS) - {"real"} <= set(losses)
    assert {"ns", "mm", "mm-nsat", "hinge", "ls", "wgan"} <= set(plotting.COLORS)
    for name, color in plotting.COLORS.items():
        assert plotting.color_of(name) == color


# Linear RGB as seen with each form of colour blindness: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHT = {
    "all cones": np.eye(3),
    "no red": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(color: str, sight: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of an sRGB colour (white point D65), as an eye of that kind sees it."""
    rgb = np.array(to_rgba(color)[:3])
    linear = (sight @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)).clip(0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHT)
def test_no_two_colours_look_alike(sight):
    """A difference of 2.3 is just noticeable. The palette of Okabe and Ito has 16 at the least; so have ours."""
    colors = plotting.COLORS | {"another": plotting.color_of("a cost without a colour")}
    seen = {name: lab(color, SIGHT[sight]) for name, color in colors.items()}
    for (a, x), (b, y) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(x - y) > (14 if "another" in (a, b) else 16), (a, b)


def test_the_table_of_colours_cannot_be_changed():
    with pytest.raises(TypeError):
        plotting.COLORS["ns"] = "red"


def test_the_style_holds_from_now_on():
    with mpl.rc_context():
        mpl.rcdefaults()
        plotting.use_style()
        for key, value in plotting.STYLE.items():
            assert mpl.rcParams[key] == value, key
        figure, ax = plt.subplots()
        assert not ax.spines["top"].get_visible()
        assert ax.plot([0, 1])[0].get_color() == plotting.COLORS["ns"]
        plt.close(figure)
