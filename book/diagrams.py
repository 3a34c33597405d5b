"""The book's diagrams, in one style, as SVG with a title and a description: `python -m book.diagrams` writes them.

What is drawn: white boxes are samples and numbers, blue ones networks that learn in this step, pale ones networks that
do not, green ones an average, orange ones costs. A solid arrow is a forward pass, a dashed one the way of the gradient;
two bars across an arrow are `detach`, where no gradient comes through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "_static" / "diagrams"
FILLS = {
    "samples": "#FFFFFF",
    "learns": "#9CCBE8",
    "rests": "#E4EEF4",
    "average": "#A9DCC9",
    "cost": "#F6D08A",
    "change": "#E9D3E3",
}
"""Kind of a box -> its colour: tints of the book's palette, dark text on each."""
INK, GRADIENT, SIZE = "#222222", "#B34700", 15


@dataclass
class Drawing:
    """A picture that is built up from boxes and arrows, in pixels.

    Attributes:
        title: a few words; what the picture is.
        told: the alternative text: what the picture shows, in sentences.
        width, height: of the picture.
    """

    title: str
    told: str
    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, text: str, kind: str, width: float = 92, height: float = 38) -> None:
        """A box around the middle (x, y), with text in lines."""
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{FILLS[kind]}" stroke="{INK}" stroke-width="1.3"/>'
        )
        self.text(x, y, text)

    def text(self, x: float, y: float, text: str, anchor: str = "middle", color: str = INK) -> None:
        """Lines of text around the height y; `J_D` has its last letter below the line."""
        lines = text.split("\n")
        for i, line in enumerate(lines):
            at = y + SIZE * (0.36 + 1.2 * (i - (len(lines) - 1) / 2))
            words = re.sub(r"_(\w)", r'<tspan dy="4" font-size="11">\1</tspan>', escape(line))
            self.parts.append(
                f'<text x="{x:g}" y="{at:.1f}" text-anchor="{anchor}" fill="{color}">{words}</text>'
            )

    def arrow(self, *points: tuple[float, float], gradient: bool = False) -> None:
        """A way along these points, with a head at its end."""
        line = " ".join(f"{x:g},{y:g}" for x, y in points)
        style = f'stroke="{GRADIENT}" stroke-dasharray="6 4"' if gradient else f'stroke="{INK}"'
        head = "gradient" if gradient else "forward"
        self.parts.append(
            f'<polyline points="{line}" fill="none" stroke-width="1.8" {style} marker-end="url(#{head})"/>'
        )

    def cut(self, x: float, y: float) -> None:
        """Two bars across a horizontal arrow, with the word."""
        self.parts.append(
            f'<path d="M{x - 3:g} {y - 10:g}v20m7 -20v20" stroke="{GRADIENT}" stroke-width="3"/>'
        )
        self.text(x + 10, y - 20, "detach", color=GRADIENT)

    def svg(self) -> str:
        """The file. Its own white ground keeps it readable on dark pages."""
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>'
            for name, color in (("forward", INK), ("gradient", GRADIENT))
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
                f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="title told" '
                f'font-family="Helvetica, Arial, sans-serif" font-size="{SIZE}">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="told">{escape(self.told)}</desc>',
                f"<defs>{heads}</defs>",
                f'<rect width="{self.width}" height="{self.height}" rx="8" fill="#FFFFFF"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def game() -> Drawing:
    """z, G and D in the two steps, and where `detach` cuts."""
    d = Drawing(
        "The two steps of a GAN",
        "Above, the discriminator's step. z goes through G to generated samples and on to D, but the way is cut by "
        "detach before D; real samples go to D as well; from D's cost a dashed gradient leads back to D alone. Below, "
        "the generator's step: z through G and D to G's cost, and the gradient leads back through D, which rests, "
        "to G.",
        520,
        330,
    )
    d.text(12, 20, "D's step", "start")
    d.box(40, 75, "z", "samples", 44)
    d.box(130, 75, "G", "rests", 60)
    d.box(225, 75, "fakes", "samples", 70)
    d.box(225, 135, "real", "samples", 70)
    d.box(370, 105, "D", "learns", 60)
    d.box(468, 105, "cost J_D", "cost", 80)
    d.arrow((62, 75), (99, 75))
    d.arrow((160, 75), (189, 75))
    d.arrow((260, 75), (300, 75), (339, 98))
    d.cut(280, 75)
    d.arrow((260, 135), (300, 135), (339, 112))
    d.arrow((400, 105), (427, 105))
    d.arrow((468, 124), (468, 152), (370, 152), (370, 126), gradient=True)
    d.parts.append(f'<path d="M12 175H508" stroke="{INK}" stroke-width="0.6" opacity="0.4"/>')
    d.text(12, 198, "G's step", "start")
    d.box(40, 250, "z", "samples", 44)
    d.box(130, 250, "G", "learns", 60)
    d.box(225, 250, "fakes", "samples", 70)
    d.box(370, 250, "D", "rests", 60)
    d.box(468, 250, "cost J_G", "cost", 80)
    for a, b in ((62, 99), (160, 189), (260, 339), (400, 427)):
        d.arrow((a, 250), (b, 250))
    d.arrow((468, 269), (468, 302), (130, 302), (130, 271), gradient=True)
    d.text(290, 318, "the gradient passes through D and changes G alone", color=GRADIENT)
    return d


def leak() -> Drawing:
    """What LeakyEMA replaces in D's step."""
    d = Drawing(
        "A leak in the discriminator's step",
        "G's weights feed a running average, the teacher. In D's step the real half of the minibatch holds a share "
        "1 minus beta of real samples and a share beta of samples that the teacher made from the same z as the fakes. "
        "D is told that all of them are real. No gradient reaches G or the teacher.",
        520,
        300,
    )
    d.box(40, 60, "z", "samples", 44)
    d.box(140, 60, "G", "rests", 70)
    d.box(140, 150, "teacher\n(EMA of G)", "average", 104, 50)
    d.box(262, 60, "fakes", "samples", 76)
    d.box(262, 150, "share β", "samples", 76)
    d.box(262, 206, "share 1 − β", "samples", 96)
    d.box(140, 250, "data", "samples", 76)
    d.box(402, 120, "D", "learns", 60)
    d.box(482, 120, "J_D", "cost", 50)
    d.arrow((62, 60), (104, 60))
    d.arrow((40, 79), (40, 150), (87, 150))
    d.arrow((140, 79), (140, 124))
    d.text(148, 100, "weights, each step", "start")
    d.arrow((175, 60), (223, 60))
    d.arrow((192, 150), (223, 150))
    d.arrow((178, 250), (262, 250), (262, 226))
    d.arrow((300, 60), (345, 60), (371, 108))
    d.cut(322, 60)
    d.arrow((300, 150), (340, 150), (372, 134))
    d.arrow((310, 206), (345, 206), (390, 141))
    d.text(330, 226, "both are called real", "start")
    d.arrow((432, 120), (456, 120))
    d.arrow((482, 139), (482, 165), (410, 165), (404, 141), gradient=True)
    return d


def blocks() -> Drawing:
    """The residual blocks of the book's larger networks, one beside the other."""
    d = Drawing(
        "Residual blocks",
        "Three columns. SNGAN's generator block: batch norm, ReLU, upsampling by 2, 3x3 convolution, batch norm, ReLU, "
        "3x3 convolution, added to a shortcut of upsampling and a 1x1 convolution. BigGAN's has the same layers, with "
        "batch norm whose gains and biases come from the class and a part of z. The discriminator block: ReLU, "
        "3x3 convolution, ReLU, 3x3 convolution, average pooling by 2, added to a shortcut of a 1x1 convolution and "
        "pooling; every convolution is spectrally normalised.",
        560,
        520,
    )
    columns = (
        (95, "G: SNGAN", ("batch norm", "ReLU", "up × 2", "conv 3×3", "batch norm", "ReLU", "conv 3×3"), "up × 2\n1×1"),
        (280, "G: BigGAN", ("class BN", "ReLU", "up × 2", "conv 3×3", "class BN", "ReLU", "conv 3×3"), "up × 2\n1×1"),
        (465, "D: both", ("ReLU", "conv 3×3", "ReLU", "conv 3×3", "pool ÷ 2"), "1×1\npool ÷ 2"),
    )  # fmt: skip
    for x, name, layers, way in columns:
        d.text(x, 20, name)
        d.text(x - 18, 48, "h")
        top, gap = 84, 52
        x_main = x - 18
        for i, layer in enumerate(layers):
            y = top + gap * i
            kind = (
                "change" if "BN" in layer or "norm" in layer else "learns" if "conv" in layer else "samples"
            )
            d.arrow((x_main, y - (29 if i else 26)), (x_main, y - 17))
            d.box(x_main, y, layer, kind, 90, 32)
        end = top + gap * (len(layers) - 1) + 46
        d.parts.append(f'<circle cx="{x_main}" cy="{end}" r="10" fill="#FFFFFF" stroke="{INK}"/>')
        d.text(x_main, end, "+")
        d.arrow((x_main, end - 30), (x_main, end - 12))
        d.arrow((x_main, end + 10), (x_main, end + 28))
        right = x + 62
        middle = (48 + end) / 2
        d.arrow((x_main + 10, 48), (right, 48), (right, middle - 26))
        d.box(right, middle, way, "learns", 60, 46)
        d.arrow((right, middle + 24), (right, end), (x_main + 12, end))
    d.text(280, 505, "blue: weights, in D spectrally normalised · mauve: normalisation")
    return d


def augmentation() -> Drawing:
    """Where an augmentation stands: before every look of D, on the way of G's gradient."""
    d = Drawing(
        "The place of an augmentation",
        "Real samples and generated ones pass through the same random transformation T before D sees them, in D's step "
        "and in G's. The gradient of G's cost comes back through D and through T to G, so T must be differentiable.",
        520,
        210,
    )
    d.box(40, 60, "z", "samples", 44)
    d.box(125, 60, "G", "learns", 56)
    d.box(125, 135, "data", "samples", 70)
    d.box(255, 60, "T", "change", 50)
    d.box(255, 135, "T", "change", 50)
    d.box(380, 97, "D", "learns", 60)
    d.box(474, 97, "costs", "cost", 70)
    d.arrow((62, 60), (96, 60))
    d.arrow((153, 60), (229, 60))
    d.text(191, 46, "fakes")
    d.arrow((160, 135), (229, 135))
    d.text(194, 121, "real")
    d.arrow((280, 60), (315, 60), (349, 88))
    d.arrow((280, 135), (315, 135), (349, 106))
    d.arrow((410, 97), (438, 97))
    d.arrow((474, 78), (474, 22), (125, 22), (125, 40), gradient=True)
    d.text(300, 12, "G's gradient, through D and T", color=GRADIENT)
    d.text(255, 180, "drawn anew for every sample and every look")
    return d


def growing() -> Drawing:
    """A network that grows: the new layers are faded in."""
    d = Drawing(
        "A growing generator and discriminator",
        "On the left G: its 8 by 8 layers give pictures by an old toRGB layer, enlarged by 2, with weight 1 minus a, "
        " and the new 16 by 16 layers give pictures by their own toRGB layer with weight a; the two are "
        "added. On the right D mirrors it: a picture is read by the new layers with weight a and, reduced by 2, by "
        "the old fromRGB layer with weight 1 minus a. a grows from 0 to 1 with the images seen.",
        520,
        370,
    )
    d.text(130, 22, "G")
    d.box(130, 62, "layers to 8×8", "learns", 130)
    d.arrow((130, 81), (130, 118))
    d.arrow((110, 81), (110, 98), (50, 98), (50, 178))
    d.box(130, 138, "new layers, 16×16", "learns", 150)
    d.arrow((130, 157), (130, 178))
    d.box(130, 198, "toRGB", "learns", 80)
    d.box(50, 198, "toRGB", "rests", 70)
    d.arrow((50, 217), (50, 238))
    d.box(50, 258, "up × 2", "samples", 70)
    d.arrow((50, 277), (50, 318), (112, 318))
    d.arrow((130, 217), (130, 306))
    d.text(58, 338, "× (1 − a)", "start")
    d.text(138, 262, "× a", "start")
    d.parts.append(f'<circle cx="130" cy="318" r="11" fill="#FFFFFF" stroke="{INK}"/>')
    d.text(130, 318, "+")
    d.text(185, 318, "16×16", "start")
    d.arrow((142, 318), (182, 318))
    d.text(380, 22, "D")
    d.text(300, 318, "16×16")
    d.box(380, 258, "fromRGB", "learns", 90)
    d.arrow((322, 318), (380, 318), (380, 279))
    d.arrow((322, 318), (470, 318), (470, 279))
    d.box(470, 258, "down ÷ 2", "samples", 84)
    d.arrow((470, 239), (470, 220))
    d.box(470, 200, "fromRGB", "rests", 84)
    d.arrow((380, 239), (380, 219))
    d.box(365, 198, "new, 16×16", "learns", 108)
    d.arrow((380, 179), (380, 150))
    d.arrow((470, 180), (470, 138), (393, 138))
    d.text(372, 166, "× a", "end")
    d.text(464, 160, "× (1 − a)", "end")
    d.parts.append(f'<circle cx="380" cy="138" r="11" fill="#FFFFFF" stroke="{INK}"/>')
    d.text(380, 138, "+")
    d.arrow((380, 127), (380, 83))
    d.box(380, 62, "layers from 8×8", "learns", 140)
    d.text(260, 356, "a rises from 0 to 1 with the images that D has seen")
    return d


def style() -> Drawing:
    """A block of StyleGAN2's generator, and what w and noise decide in it."""
    d = Drawing(
        "A block of StyleGAN2's generator",
        "On the left z goes through the mapping network to w, and w through an affine layer to a style s. In the "
        "middle feature maps h are multiplied by s for each channel, convolved, and divided by the norm that the "
        "scaled kernel has; then noise and a bias are added, and a leaky ReLU follows. This happens twice, the first "
        "time with the side doubled. On the right toRGB reads the result, modulated but not demodulated, and its "
        "colours are added to the picture so far, enlarged by 2.",
        560,
        440,
    )
    d.text(70, 24, "z")
    d.arrow((70, 36), (70, 58))
    d.box(70, 78, "mapping", "learns", 100)
    d.arrow((70, 97), (70, 120))
    d.text(70, 132, "w")
    d.arrow((70, 144), (70, 167))
    d.box(70, 187, "affine", "learns", 90)
    d.arrow((115, 187), (128, 187), (128, 78), (181, 78))
    d.text(140, 66, "s")
    d.text(250, 24, "h")
    d.arrow((250, 36), (250, 58))
    rows = (
        ("× s", "change"),
        ("conv 3×3, up × 2", "learns"),
        ("÷ norm of kernel", "change"),
        ("+ noise + bias", "samples"),
        ("leaky ReLU", "samples"),
        ("again, without up × 2", "rests"),
    )
    for i, (text, kind) in enumerate(rows):
        y = 78 + 52 * i
        d.box(250, y, text, kind, 178 if i == 5 else 138)
        if i:
            d.arrow((250, y - 33), (250, y - 20))
    d.arrow((250, 357), (250, 384))
    d.arrow((339, 338), (390, 338))
    d.box(440, 338, "× s, toRGB", "learns", 98)
    d.text(440, 66, "picture so far")
    d.arrow((440, 78), (440, 101))
    d.box(440, 121, "up × 2", "samples", 80)
    d.arrow((440, 140), (440, 199))
    d.parts.append(f'<circle cx="440" cy="211" r="11" fill="#FFFFFF" stroke="{INK}"/>')
    d.text(440, 211, "+")
    d.arrow((440, 318), (440, 223))
    d.arrow((452, 211), (500, 211))
    d.text(504, 211, "next", "start")
    d.text(260, 395, "h", "start")
    d.text(280, 424, "blue: weights · mauve: modulation and demodulation")
    return d


DIAGRAMS = {one.__name__: one for one in (game, leak, blocks, augmentation, growing, style)}
"""Name of a file without its ending -> what draws it."""

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, draw in DIAGRAMS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), "utf-8")
        print(f"wrote {FOLDER / name}.svg")
