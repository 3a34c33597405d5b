"""What new images in every batch cost: an epoch on the fly against one of a fixed set, and Algorithm 1's distances.

    python tests/bench/bench_synthetic.py                 all parts, three minutes
    python tests/bench/bench_synthetic.py distances       one of digits, images, count, distances

Part `digits`: perceptrons that learn from fully connected GANs, five side by side, as in chapter 18; and the book's
convolutional classifier from one. Part `images`: the paper's pair at a quarter of its width, BigGAN with 16 filters
and a ResNet-20 of width 16, batches of 125 images of 32 x 32; the generator in float32 and in bfloat16, which
processors with matrix units for it (AMX) and GPUs run several times faster. The classifier learns in float32
throughout. Part `count`: floating-point operations of the paper's pair at full width: what no buffer can change, and
what the filter adds. Part `distances`: all pairs of 5,000 real and 5,000 generated images in 256 features.

Alternatives take turns, and medians of the turns' ratios count. With one thread it is processor time.
"""

from __future__ import annotations

import common
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import gankit as gk
from gankit.classifiers import Classifier, synthetic, weights
from gankit.classifiers.synthetic import FixedSet, Generated, Protocol
from gankit.device import channels_last
from gankit.models.ensemble import Ensemble

ASKED = 1.3
"""The most that an epoch on the fly may take, relative to one of a fixed set."""


class Labelled(Ensemble):
    """Fully connected generators whose input is z and the label."""

    n_classes, z_dim = 10, 16

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.cat([z, F.one_hot(labels, 10).to(z)], -1))


def digits(repeats: int) -> dict[str, float]:
    """Ratios for both classifiers."""
    test = gk.data.load("digits", split="test")
    G = Labelled(lambda s: gk.models.mlp(test.shape, z_dim=26, depth=3, seed=s)[0], range(5))
    one = Labelled(lambda s: gk.models.mlp(test.shape, z_dim=26, depth=3, seed=s)[0], [0])

    class Single(torch.nn.Module):
        """The only generator of an ensemble of one, as a plain network."""

        n_classes, z_dim = 10, 16

        def __init__(self) -> None:
            super().__init__()
            self.only = one.replica(0)

        def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return self.only(torch.cat([z, F.one_hot(labels, 10).to(z)], -1))

    cases = {
        "5 perceptrons": (
            G,
            lambda: gk.Ensemble(lambda s: synthetic.perceptron(test.shape, 10, seed=s), range(5)),
        ),
        "1 convolutional": (Single(), lambda: Classifier(test.shape, 10)),
    }
    found = {}
    for name, (generator, student) in cases.items():
        made = FixedSet(*Generated(generator).draw(1_442), range(5) if generator is G else None)
        sources = {"fixed": made, "fly": Generated(generator)}
        protocol = Protocol(1, 60, 64, learning_rate=0.01)
        seconds: dict[str, list[float]] = {"fixed": [], "fly": []}
        for _ in range(repeats + 1):
            for way, source in sources.items():
                begun = common.clock()
                synthetic.train(source, student(), test, protocol)
                seconds[way].append(common.clock() - begun)
        ratios = np.array(seconds["fly"][1:]) / np.array(seconds["fixed"][1:])
        found[name] = float(np.median(ratios))
        verdict = "" if found[name] <= ASKED else f"  (above the {ASKED} that are asked for)"
        print(
            f"{name:16} fixed {np.median(seconds['fixed'][1:]):.3f} s an epoch, on the fly {found[name]:.2f} times "
            f"[{ratios.min():.2f}, {ratios.max():.2f}]{verdict}"
        )
    return found


def images(repeats: int, width: int = 16) -> dict[str, float]:
    """Ratios for the paper's pair, with both precisions of the generator, and what bfloat16 does to the images."""
    G, net = pair(width)
    blank = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    test = gk.data.Dataset("blank", blank, torch.arange(10), tuple("0123456789"))
    protocol = Protocol(1, 8, 125, learning_rate=0.01)
    made = FixedSet(*Generated(G).draw(1_000))
    seconds: dict[str, list[float]] = {"fixed": [], "float32": [], "bfloat16": []}
    for _ in range(repeats + 1):
        for way, taken in seconds.items():
            source = made if way == "fixed" else Generated(G, precision=way)
            begun = common.clock()
            synthetic.train(source, net, test, protocol)
            taken.append(common.clock() - begun)
    found = {}
    fixed = np.array(seconds["fixed"][1:])
    for way in ("float32", "bfloat16"):
        ratios = np.array(seconds[way][1:]) / fixed
        found[way] = float(np.median(ratios))
        verdict = "" if found[way] <= ASKED else f"  (above the {ASKED} that are asked for)"
        print(
            f"width {width}, generator in {way:8}: fixed {np.median(fixed) / protocol.steps:.3f} s a batch, "
            f"on the fly {found[way]:.2f} times [{ratios.min():.2f}, {ratios.max():.2f}]{verdict}"
        )
    x, y = (Generated(G, precision=name).draw(125)[0] for name in ("float32", "bfloat16"))
    found["levels"] = float((x - y).abs().mean() * 127.5)
    print(f"bfloat16 changes a pixel by {found['levels']:.2f} of 255 levels on average (8 bits: 0.25)")
    return found


def pair(width: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The networks of `gankit train incremental-biggan-cifar10` and of `gankit classify --student resnet20`."""
    shape = (3, 32, 32)
    G, _ = gk.models.biggan(shape, 10, z_dim=80, y_dim=80, width=width)
    return channels_last(G).eval(), synthetic.resnet20(shape, 10, width)


def count() -> dict[str, float]:
    """Operations of a batch of 25: generator forwards, classifier forwards and backwards."""
    found = {}
    for width in (64, 16):
        G, net = pair(width)
        z, y = torch.randn(25, G.z_dim), torch.arange(25) % 10
        with torch.no_grad(), FlopCounterMode(display=False) as generating:
            x = G(z, y)
        with torch.no_grad(), FlopCounterMode(display=False) as judging:
            net(x)
        with FlopCounterMode(display=False) as learning:
            F.cross_entropy(net(x), y).backward()
        g, j, c = (counter.get_total_flops() for counter in (generating, judging, learning))
        found |= {f"width {width}": 1 + g / c, f"width {width}, filtered": 1 + (g + j) / c}
        print(
            f"ResNet-20 on BigGAN's CIFAR-10 images, width {width}: {1 + g / c:.2f} times the operations of a fixed "
            f"set, with the filter {1 + (g + j) / c:.2f} if all images pass"
        )
    return found


def distances(repeats: int) -> dict[str, float]:
    """Seconds for one class of 5,000 x 5,000."""
    real, fake = torch.randn(2, 5_000, 256).relu()
    labels = torch.zeros(5_000, dtype=torch.int64)
    seconds = []
    for _ in range(repeats):
        begun = common.clock()
        weights.class_distances(real, labels, fake, labels)
        seconds.append(common.clock() - begun)
    print(f"distances of 5,000 x 5,000 images in 256 features: {np.median(seconds):.1f} s")
    return {"seconds": float(np.median(seconds))}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="digits, images, count or distances (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    arguments = parser.parse_args()
    parts = {
        "digits": lambda: digits(arguments.repeats),
        "images": lambda: images(arguments.repeats),
        "count": count,
        "distances": lambda: distances(2),
    }
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(parts)}")
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    result: dict[str, object] = {
        "machine": common.machine(arguments.threads, seconds=common.seconds_of(arguments.threads))
    }
    for name in arguments.parts or parts:
        result[name] = parts[name]()
    common.write(result, arguments.out)


if __name__ == "__main__":
    main()
