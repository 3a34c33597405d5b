"""`gankit sample --walk`, `--mix` and `--psi`, and `gankit invert`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gankit as gk
from gankit import commands, plotting
from gankit.commands.ways import SECONDS
from gankit.models.walking import RANGES, walk
from gankit.recipes import recipes
from gankit.training import checkpoints


def trained(folder: Path, name: str, seeds=(0,), **changes) -> Path:
    """A run of two steps."""
    recipe = recipes[name].changed({"batch_size": 8, "steps": 2} | changes)
    recipe.build(seeds, device="cpu").fit(2, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("plain"), "ns-digits")


@pytest.fixture(scope="module")
def style(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("style"), "stylegan2-digits")


def sample(*words: object) -> int:
    return commands.main(["sample", *map(str, words), "--quiet"])


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    """The frames of an animated picture, and how long it takes in seconds."""
    frames, seconds = [], 0.0
    with Image.open(path) as animated:
        for i in range(animated.n_frames):
            animated.seek(i)
            frames.append(np.asarray(animated.convert("RGB")))
            seconds += animated.info["duration"] / 1000
    return frames, seconds


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_walk_is_an_animated_picture(digits, tmp_path, capsys, suffix):
    target = tmp_path / f"walk.{suffix}"
    assert sample(digits, "--walk", 8, "-n", 4, "--sample-seed", 3, "--to", target) == 0
    assert f"{target}: 8 frames of 4 pictures of the averaged generator" in capsys.readouterr().out
    frames, seconds = frames_of(target)
    assert len(frames) == 8
    assert seconds == pytest.approx(SECONDS, rel=0.01)
    saved = gk.load(digits)
    for found, images in zip(frames, walk(saved.teacher, 8, 4, seed=3), strict=True):
        expected = plotting.sheet(images, saved.shape)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).max() <= (2 if suffix == "gif" else 0)


def test_seeds_walk_side_by_side_and_the_default_is_a_gif(tmp_path):
    folder = trained(tmp_path, "ns-digits", (0, 1))
    assert sample(folder, "--walk", 3, "-n", 4) == 0
    frames, _ = frames_of(folder / "walk.gif")
    assert frames[0].shape[1] == 2 * frames[0].shape[0]


def test_styles_are_mixed_beside_the_pictures_that_they_are_of(style, capsys):
    assert sample(style, "--mix", "0-1", "-n", 3) == 0
    assert "3 by 3 pictures with mixed styles" in capsys.readouterr().out
    picture = np.asarray(Image.open(style / "mixed.png").convert("L"))
    zoom = 512 // 42
    assert picture.shape == (42 * zoom, 42 * zoom)  # 4 x 4 pictures of 8 pixels, 2 between
    cells = picture[::zoom, ::zoom]
    at = [slice(2 + 10 * i, 10 + 10 * i) for i in range(4)]
    assert (cells[at[0], at[0]] == 255).all()
    assert sample(style, "--mix", "0-9", "-n", 3) == 0  # all layers: each column is one picture
    cells = np.asarray(Image.open(style / "mixed.png").convert("L"))[::zoom, ::zoom]
    for column in at[1:]:
        assert all(np.array_equal(cells[at[0], column], cells[row, column]) for row in at[1:])


def test_a_row_for_each_truncation(style, tmp_path):
    target = tmp_path / "x.png"
    assert sample(style, "--psi", "0,1", "-n", 5, "--to", target) == 0
    cells = np.asarray(Image.open(target).convert("L"))
    zoom = 512 // 22
    cells = cells[::zoom, ::zoom]
    at = [slice(2 + 10 * i, 10 + 10 * i) for i in range(5)]
    assert all(np.array_equal(cells[at[0], at[0]], cells[at[0], column]) for column in at)
    plain = plotting.tile(gk.load(style).sample(5), 5, pad=2)
    # A grey level may round to either side: w was mixed with its mean, by a share of 0.
    assert np.abs(cells[at[1]].astype(int) - plain[at[0]]).max() <= 1


def test_names_of_layers():
    from gankit.commands.ways import layers

    assert [layers(name) for name in RANGES] == list(RANGES.values())
    assert layers("3") == slice(3, 4)
    assert layers("2-5") == slice(2, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--walk 8 --to a.mp4", "--to must name a .gif, .png or .webp file for --walk, got a.mp4"),
        ("--walk 1", "at least 2 frames"),
        ("--walk 8 --truncation 0.5", "--truncation is of single latents, and --walk draws its own"),
        ("--mix coarse", "a mapping and a synthesis, as stylegan and stylegan2 have, got Generator"),
        ("--psi 0,1", "as stylegan and stylegan2 have"),
    ],
)
def test_what_cannot_be_drawn_is_refused(digits, capsys, words, message):
    assert sample(digits, *words.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--mix fast", "must be coarse, middle, fine, or FIRST-LAST as in 2-5, got 'fast'"),
        ("--mix 5-2", "got '5-2'"),
        ("--psi a", "as in 0,0.5,1, got 'a'"),
        ("--psi 1 --walk 3", "not allowed with argument"),
    ],
)
def test_flags_that_say_nothing_are_refused(digits, capsys, words, message):
    with pytest.raises(SystemExit):
        sample(digits, *words.split())
    assert message in capsys.readouterr().err


def test_points_have_no_walk(tmp_path, capsys):
    folder = trained(tmp_path, "ns-ring")
    assert checkpoints.latest(folder) is not None
    assert sample(folder, "--walk", 3) == 2
    assert "--walk draws pictures, and this run makes points" in capsys.readouterr().err


# --- Projection into W -------------------------------------------------------------------------------------------


def draw(path: Path, mode: str = "L", side: int = 11) -> Path:
    """A picture of noise."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (side, side) if mode == "L" else (side, side, 3), np.uint8
    )
    Image.fromarray(pixels).save(path)
    return path


def invert(*words: object) -> int:
    return commands.main(["invert", *map(str, words), "--quiet"])


def test_pictures_are_looked_for_in_pixels_or_features(style, tmp_path, capsys):
    grey, coloured = draw(tmp_path / "a.png"), draw(tmp_path / "b.png", "RGB")
    target = tmp_path / "found.npz"
    assert invert(style, grey, coloured, "--steps", 30, "--features", "pixels", "--to", target) == 0
    said = capsys.readouterr().out
    assert f"{target}: 2 pictures in the features of pixels" in said
    with np.load(target) as found:
        assert {k: v.shape for k, v in found.items()} == {
            "w": (2, 32), "distances": (31, 2), "targets": (2, 8, 8, 1), "images": (2, 8, 8, 1)
        }  # fmt: skip
        assert (found["distances"][-1] < found["distances"][0]).all()
        first, last = found["distances"][[0, -1], 0]
    assert f"{grey}: squared distance {first:.4g} of the mean picture, {last:.4g} after 30 steps" in said
    assert invert(style, grey, "--steps", 3, "--each") == 0  # in the features of the digits' classifier
    assert "in the features of digits classifier" in capsys.readouterr().out
    assert Image.open(style / "inverted.png").size[0] > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{style} {folder}/none.png", "there is no picture"),
        ("{style} {folder}/a.png --to a.gif", "--to must name a .png or .npz file, got a.gif"),
        ("{style} {folder}/a.png --truncation 1", "here they are looked for: leave it out"),
        ("{style} {folder}/a.png --labels 3", "this one learned no classes"),
        ("{style} {folder}/a.png --lr 0", "lr must be above 0"),
        ("{style} {folder}/broken.png", "cannot decode broken.png"),
        ("{digits} {folder}/a.png", "as stylegan and stylegan2 have, got Generator"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(style, digits, tmp_path, capsys, words, message):
    draw(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    filled = words.format(style=style, digits=digits, folder=tmp_path)
    assert invert(*filled.split(), "--features", "pixels") == 2
    assert message in capsys.readouterr().err
