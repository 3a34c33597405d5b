"""Random transformations of images: what an augmentation is composed of.

Each is a function of random numbers and of a probability p, with which it happens to a sample; a sample to which it
does not happen is left as it is, bit for bit. There are three kinds:

.. table:: Kinds of transformations.

   ========  ==============================================================  =================================
   kind      called as                                                       and gives
   ========  ==============================================================  =================================
   place     `flip(draw, p)`                                                 where pixels come from, `[B, 3, 3]`
   colour    `brightness(draw, p)`                                           a map of colours, `[B, C + 1, C + 1]`
   pixels    `cutout(x, draw, p)`                                            images `[B, C, H, W]`
   ========  ==============================================================  =================================

Matrices of neighbours in a chain are multiplied, so that a chain of places costs one `warp`. All are linear in the
pixels, or affine, and can be differentiated any number of times, as a penalty of D's slope needs
(`torch.nn.functional.grid_sample` can not, at PyTorch 2.6).

*Leaks.* D sees T x in place of x, real or generated. What G must match is the distribution of T x, and that fixes the
distribution of x if the operator that mixes distributions is invertible. A transformation that happens with
probability p and else leaves a sample alone has the operator (1 - p) I + p M. Each docstring says when it is singular:
then two distributions look the same to D, and the transformed images may appear among the samples.

Source: Karras et al. 2020, "Training generative adversarial networks with limited data", section 2.2, appendices B
and C.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from gankit.device import constant
from gankit.streams import Streams

Probability = float | Tensor
"""A number, or one for each sample, `[B]`."""


class Draw:
    """Random numbers for B samples, one for each at a time: a replica's own come from its own stream.

    Args:
        streams: of the run.
        n: samples of each replica; B is n times the number of replicas.
        like: images `[B, C, H, W]` that say the device, the type and the size.
    """

    BLOCK = 8  # drawn at once: a call for each number would cost more than the numbers

    def __init__(self, streams: Streams, n: int, like: Tensor) -> None:
        self.streams, self.n, self.like = streams, n, like
        self._uniform: Iterator[Tensor] = self._columns(streams.uniform)
        self._normal: Iterator[Tensor] = self._columns(streams.normal)

    def _columns(self, draw: Callable[..., Tensor]) -> Iterator[Tensor]:
        while True:
            yield from draw(self.n, self.BLOCK).to(self.like).flatten(0, -2).unbind(-1)

    def uniform(self) -> Tensor:
        """In [0, 1), `[B]`."""
        return next(self._uniform)

    def normal(self) -> Tensor:
        """Standard normal, `[B]`."""
        return next(self._normal)

    def noise(self) -> Tensor:
        """Standard normal, one for each value of the images, `[B, C, H, W]`."""
        shape = self.like.shape[1:]
        return self.streams.normal(self.n, *shape).to(self.like).reshape(self.like.shape)

    def happens(self, p: Probability) -> Tensor:
        """True with probability p, `[B]`."""
        return self.uniform() < p

    def where(self, p: Probability, value: Tensor, otherwise: float) -> Tensor:
        """`value` with probability p, `[B]`."""
        return torch.where(self.happens(p), value, otherwise)


# --- Places: exact ------------------------------------------------------------------------------------------------


def flip(draw: Draw, p: Probability) -> Tensor:
    """Left and right change places, with probability p / 2.

    The operator has the eigenvalues 1 and 1 - p: at p = 1 a picture and its mirror image look the same to D, and
    either may be made. Where mirror images are welcome, that does no harm.
    """
    return _places(1 - 2 * draw.where(p, (draw.uniform() * 2).floor(), 0.0), 0, 0, 0, 1, 0)


def turn(draw: Draw, p: Probability) -> Tensor:
    """By 0, 90, 180 or 270 degrees, a quarter each, with probability p; of square images.

    The operator has the eigenvalue 1 and three times 1 - p: it is singular at p = 1 only. Were 0 degrees not among the
    choices, they would be 1 and 1 - 4p/3, which is 0 at p = 3/4.

    Raises:
        ValueError: the images are not square.
    """
    if draw.like.shape[-1] != draw.like.shape[-2]:
        raise ValueError(f"turns by 90 degrees need square images, got {tuple(draw.like.shape[-2:])}")
    quarter = draw.where(p, (draw.uniform() * 4).floor(), 0.0).long()
    turns = constant(((1, 0, -1, 0), (0, 1, 0, -1)), draw.like.device, draw.like.dtype)
    cos, sin = turns[:, quarter]
    return _places(cos, sin, 0, -sin, cos, 0)


def shift(draw: Draw, p: Probability, share: float = 0.125) -> Tensor:
    """By whole pixels, up to `share` of the side either way; what is missing is reflected.

    In an endless plane each frequency of a distribution over places is multiplied by 1 - p + p m, m the mean of its
    phases. For shifts that are alike likely m is nowhere below -0.22, so that p < 0.82 is safe; for those of one
    pixel (an 8 x 8 image) m is not below 0, and p < 1 is.
    """
    height, width = draw.like.shape[-2:]
    happens = draw.happens(p)
    across, down = (
        torch.where(happens, ((draw.uniform() * 2 - 1) * share * side).round(), 0.0)
        for side in (width, height)
    )
    return _places(1, 0, -across, 0, 1, -down)


# --- Places: interpolated -----------------------------------------------------------------------------------------


def scale(draw: Draw, p: Probability) -> Tensor:
    """By 2^N(0, 0.2) about the middle.

    A Gaussian of the logarithm of the size: its mean phase is above 0, so that p < 1 is safe in an endless plane.
    """
    size = draw.where(p, torch.exp2(0.2 * draw.normal()), 1.0)
    return _places(1 / size, 0, 0, 0, 1 / size, 0)


def stretch(draw: Draw, p: Probability) -> Tensor:
    """By s = 2^N(0, 0.2) across and 1 / s down. Leaks as `scale` does."""
    size = draw.where(p, torch.exp2(0.2 * draw.normal()), 1.0)
    return _places(1 / size, 0, 0, 0, size, 0)


def rotate(draw: Draw, p: Probability) -> Tensor:
    """By any angle, with probability p.

    The mean over all angles keeps the round part of a distribution and no other: the eigenvalues are 1 and 1 - p,
    singular at p = 1.
    """
    angle = draw.where(p, (draw.uniform() * 2 - 1) * math.pi, 0.0)
    cos, sin = angle.cos(), angle.sin()
    return _places(cos, sin, 0, -sin, cos, 0)


def rotate_half(draw: Draw, p: Probability) -> Tensor:
    """`rotate` with probability 1 - sqrt(1 - p): of two of them, one or both happen with probability p."""
    return rotate(draw, 1 - math.sqrt(1 - p) if isinstance(p, float | int) else 1 - (1 - p).sqrt())


def drift(draw: Draw, p: Probability) -> Tensor:
    """By N(0, 0.125) of each side, not in whole pixels.

    A Gaussian's mean phase is above 0 at every frequency, so that the operator is invertible below p = 1.
    """
    height, width = draw.like.shape[-2:]
    happens = draw.happens(p)
    across, down = (torch.where(happens, 0.125 * side * draw.normal(), 0.0) for side in (width, height))
    return _places(1, 0, -across, 0, 1, -down)


# --- Colours ------------------------------------------------------------------------------------------------------


def brightness(draw: Draw, p: Probability) -> Tensor:
    """All values + N(0, 0.2). A Gaussian blurs the distribution of mean values, which can be undone: p < 1 is safe."""
    return _affine(_unit(draw), draw.where(p, 0.2 * draw.normal(), 0.0))


def contrast(draw: Draw, p: Probability) -> Tensor:
    """All values times 2^N(0, 0.5). Safe below p = 1 for the reason of `brightness`, in the logarithm."""
    return _affine(draw.where(p, torch.exp2(0.5 * draw.normal()), 1.0)[:, None, None] * _unit(draw))


def luma_flip(draw: Draw, p: Probability) -> Tensor:
    """Bright and dark change places (hues stay), with probability p / 2; of grey images, the negative.

    The operator has the eigenvalues 1 and 1 - p: singular at p = 1.
    """
    chosen = draw.where(p, (draw.uniform() * 2).floor(), 0.0)[:, None, None]
    return _affine(_unit(draw) - 2 * chosen * _luma(draw))


def hue(draw: Draw, p: Probability) -> Tensor:
    """Colours turn about the grey axis, by any angle; nothing for grey images. Singular at p = 1, as `rotate` is."""
    angle = draw.where(p, (draw.uniform() * 2 - 1) * math.pi, 0.0)[:, None, None]
    if draw.like.shape[1] == 1:
        return _affine(_unit(draw))
    third = math.sqrt(1 / 3)
    rows = ((0, -third, third), (third, 0, -third), (-third, third, 0))
    cross = constant(rows, draw.like.device, draw.like.dtype)
    return _affine(angle.cos() * _unit(draw) + (1 - angle.cos()) * _luma(draw) + angle.sin() * cross)


def saturation(draw: Draw, p: Probability) -> Tensor:
    """Distances from the grey axis times 2^N(0, 1); nothing for grey images. Safe below p = 1, as `contrast` is."""
    factor = draw.where(p, torch.exp2(draw.normal()), 1.0)[:, None, None]
    if draw.like.shape[1] == 1:
        return _affine(_unit(draw))
    return _affine(factor * _unit(draw) + (1 - factor) * _luma(draw))


# --- Pixels -------------------------------------------------------------------------------------------------------


def noise(x: Tensor, draw: Draw, p: Probability) -> Tensor:
    """White noise of deviation |N(0, 0.1)| on all values.

    Adding independent noise multiplies the characteristic function of a distribution by one that is nowhere 0: safe
    even at p = 1 in principle, and fine detail is hard to learn through it.
    """
    return x + draw.where(p, 0.1 * draw.normal().abs(), 0.0)[:, None, None, None] * draw.noise()


def cutout(x: Tensor, draw: Draw, p: Probability, share: float = 0.5) -> Tensor:
    """A square of `share` of the side becomes 0, mid-grey; its centre is anywhere, and the border cuts it.

    What is cut is seen elsewhere, so that the distribution of x is fixed by that of all its uncut parts, if they are
    the whole of it; joint patterns wider than the rest are not. A square may leak at high p where data are few.
    """
    height, width = x.shape[-2:]
    inside = draw.happens(p)[:, None, None]
    for side, dim in ((height, -1), (width, -2)):
        cut = int(side * share + 0.5)
        centre = (draw.uniform() * (side + 1 - cut % 2)).floor()
        place = torch.arange(side, device=x.device, dtype=x.dtype)
        low = (centre - cut // 2)[:, None]
        within = (place >= low) & (place < low + cut)
        inside = inside & within.unsqueeze(dim)
    return x * (~inside[:, None]).to(x)


def uniform_brightness(x: Tensor, draw: Draw, p: Probability) -> Tensor:
    """All values + U(-0.5, 0.5). Mean phases go down to -0.22: singular for some p from 0.82 on, and at p = 1."""
    return x + draw.where(p, draw.uniform() - 0.5, 0.0)[:, None, None, None]


def uniform_saturation(x: Tensor, draw: Draw, p: Probability) -> Tensor:
    """Distances from a pixel's mean over the channels times U(0, 2); nothing for grey images."""
    factor = draw.where(p, draw.uniform() * 2, 1.0)[:, None, None, None]
    return x if x.shape[1] == 1 else factor * x + (1 - factor) * x.mean(1, keepdim=True)


def uniform_contrast(x: Tensor, draw: Draw, p: Probability) -> Tensor:
    """Distances from the image's mean times U(0.5, 1.5)."""
    factor = draw.where(p, draw.uniform() + 0.5, 1.0)[:, None, None, None]
    return factor * x + (1 - factor) * x.mean((1, 2, 3), keepdim=True)


def translation(x: Tensor, draw: Draw, p: Probability, share: float = 0.125) -> Tensor:
    """By whole pixels, up to `share` of the side, with 0 (mid-grey) for what is missing.

    The strip of zeros tells how far an image was moved: shifts of less than a strip can be told apart, and the
    operator is invertible as long as images have no such strip themselves.
    """
    height, width = x.shape[-2:]
    happens, moved = draw.happens(p), []
    for side in (width, height):
        most = int(side * share + 0.5)
        moved.append(torch.where(happens, (draw.uniform() * (2 * most + 1)).floor() - most, 0.0))
    across, down = (
        torch.arange(side, device=x.device) - by.long()[:, None]
        for side, by in zip((width, height), moved, strict=True)
    )
    rows = down.clamp(0, height - 1)[:, :, None] * width
    index = rows + across.clamp(0, width - 1)[:, None, :]
    inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
    return _gather(x, index.flatten(1)) * inside[:, None].to(x)


# --- What is done with the matrices -------------------------------------------------------------------------------


def move(x: Tensor, places: Tensor) -> Tensor:
    """Images whose pixels are those at other, whole places: x `[B, C, H, W]`, places `[B, 3, 3]`; reflected outside.

    A matrix says, for a pixel of the result, where it comes from: (across, down, 1) in pixels from the middle.
    """
    across, down = _sources(x, places)
    return _gather(x, _index(x, across.round(), down.round()))


def warp(x: Tensor, places: Tensor) -> Tensor:
    """As `move`, for any places: the four pixels around one are averaged by their nearness (bilinear).

    The result is x itself, bit for bit, where places are whole and the same. The source filters with a wavelet before
    and after, which needs images of at least 22 pixels and blurs small ones even where nothing happens.
    """
    across, down = _sources(x, places)
    left, top = across.floor(), down.floor()
    right_part, low_part = across - left, down - top
    result = None
    for step_down, share_down in ((0, 1 - low_part), (1, low_part)):
        for step_across, share_across in ((0, 1 - right_part), (1, right_part)):
            share = (share_down * share_across).unflatten(1, x.shape[-2:])[:, None]
            part = share * _gather(x, _index(x, left + step_across, top + step_down))
            result = part if result is None else result + part
    return result


def recolour(x: Tensor, colours: Tensor) -> Tensor:
    """Images with an affine map of their channels: x `[B, C, H, W]`, colours `[B, C + 1, C + 1]`."""
    n = x.shape[1]
    linear, offset = colours[:, :n, :n], colours[:, :n, n]
    return (linear @ x.flatten(2)).reshape(x.shape) + offset[:, :, None, None]


def transformed(x: Tensor, names: Sequence[str], draw: Draw, p: Probability) -> Tensor:
    """Images x `[B, C, H, W]` after the transformations of these names, the first one first."""
    for kind, group in itertools.groupby(names, _kind):
        steps = list(group)
        if kind == "pixels":
            for name in steps:
                x = PIXELS[name](x, draw, p)
        elif kind == "colour":
            matrix = None
            for name in steps:
                new = COLOURS[name](draw, p)
                matrix = new if matrix is None else new @ matrix
            x = recolour(x, matrix)
        else:
            matrix = None
            for name in steps:
                # A pixel of the last result is traced back through all of them, the last one first.
                new = PLACES[name](draw, p)
                matrix = new if matrix is None else matrix @ new
            x = (move if set(steps) <= WHOLE else warp)(x, matrix)
    return x


PLACES: dict[str, Callable[[Draw, Probability], Tensor]] = {
    "flip": flip,
    "turn": turn,
    "shift": shift,
    "scale": scale,
    "rotate-half": rotate_half,
    "rotate": rotate,
    "stretch": stretch,
    "drift": drift,
}
WHOLE = {"flip", "turn", "shift"}
"""Places that are pixels."""
COLOURS: dict[str, Callable[[Draw, Probability], Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "luma-flip": luma_flip,
    "hue": hue,
    "saturation": saturation,
}
PIXELS: dict[str, Callable[[Tensor, Draw, Probability], Tensor]] = {
    "noise": noise,
    "cutout": cutout,
    "uniform-brightness": uniform_brightness,
    "uniform-saturation": uniform_saturation,
    "uniform-contrast": uniform_contrast,
    "translation": translation,
}
NAMES = (*PLACES, *COLOURS, *PIXELS)
"""Every transformation."""


def _kind(name: str) -> str:
    return "place" if name in PLACES else "colour" if name in COLOURS else "pixels"


def _places(*numbers: Tensor | float) -> Tensor:
    """`[B, 3, 3]` from the six numbers of an affine map, row by row; numbers that are no tensors are alike for all."""
    like = next(one for one in numbers if isinstance(one, Tensor))
    rows = [one if isinstance(one, Tensor) else torch.full_like(like, one) for one in (*numbers, 0, 0, 1)]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _unit(draw: Draw) -> Tensor:
    n = draw.like.shape[1]
    if n not in (1, 3):
        raise ValueError(f"colours are those of images with 1 or 3 channels, got {n}")
    return torch.eye(n, dtype=draw.like.dtype, device=draw.like.device).expand(len(draw.like), n, n)


def _luma(draw: Draw) -> Tensor:
    n = draw.like.shape[1]
    return draw.like.new_full((n, n), 1 / n)


def _affine(linear: Tensor, offset: Tensor | None = None) -> Tensor:
    """`[B, C + 1, C + 1]` of a linear map `[B, C, C]` and what is added to every channel, `[B]`."""
    b, n, _ = linear.shape
    matrix = linear.new_zeros(b, n + 1, n + 1)
    matrix[:, :n, :n], matrix[:, n, n] = linear, 1
    if offset is not None:
        matrix[:, :n, n] = offset[:, None]
    return matrix


def _sources(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Where pixels come from, counted from the first column and row: `[B, H W]` each."""
    height, width = x.shape[-2:]
    down, across = (torch.arange(n, dtype=x.dtype, device=x.device) - (n - 1) / 2 for n in (height, width))
    grid = torch.stack([across.repeat(height), down.repeat_interleave(width), x.new_ones(height * width)])
    found = places[:, :2] @ grid
    return found[:, 0] + (width - 1) / 2, found[:, 1] + (height - 1) / 2


def _index(x: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """The number of the pixel at whole places, which are reflected at the border: int64 `[B, H W]`."""
    height, width = x.shape[-2:]
    return (_reflected(down, height) * width + _reflected(across, width)).long()


def _reflected(place: Tensor, side: int) -> Tensor:
    if side == 1:
        return torch.zeros_like(place)
    place = place.remainder(2 * side - 2)
    return torch.minimum(place, 2 * side - 2 - place)


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """Pixels by their number: x `[B, C, H, W]`, index `[B, H W]`."""
    return x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).reshape(x.shape)
