"""How much faster a packed batch is than decoding its JPEGs: the same pictures, labels and order from both.

    python tests/bench/bench_packing.py                     CIFAR-10 (JPEG) of GANKIT_DATA
    python tests/bench/bench_packing.py folder-or.zip --size 128

Three ways to make the batches that training draws: from a pack whose pages are in memory; from a pack of which they
were dropped, so that the disk is part of it; and decoding each batch when it is asked for, with as many threads as
there are cores. The ways take turns, so that a machine that is busy for a while slows them alike; the median over the
turns counts, and its range is printed beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
import numpy as np
import torch
from tqdm import tqdm

import gankit as gk
from gankit.data import pack_writer, packs
from gankit.data.archives import Decoder

REQUIRED = 10.0


def decoded_batches(
    source: pack_writer.Source, pool: ThreadPoolExecutor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a loader without a pack does: decode the pictures of a batch, then normalise them."""

    def batch(indices: torch.Tensor) -> torch.Tensor:
        pictures = pool.map(lambda i: source.decode(source.members[i]), indices.tolist())
        images = np.stack([np.broadcast_to(picture, source.shape) for picture in pictures])
        return torch.from_numpy(images).to(torch.float32).mul_(2).div_(255).sub_(1)

    return batch


def drop_pages(path: Path) -> None:
    """Ask the system to forget a file that it keeps in memory (Linux; elsewhere nothing happens)."""
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(batch: Callable[[torch.Tensor], torch.Tensor], order: torch.Tensor) -> float:
    """Images per second."""
    begun = time.perf_counter()
    for indices in order:
        batch(indices)
    return order.numel() / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="?", default="cifar10-jpeg-train.zip", help="folder or .zip file")
    parser.add_argument("--size", type=int, help="side in pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=50, help="of each turn (default: 50)")
    parser.add_argument("--repeats", type=int, default=5, help="turns (default: 5)")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="that decode (default: the cores)"
    )
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    machine = common.machine(arguments.threads)

    source = pack_writer.from_files(gk.data.find(arguments.source), size=arguments.size)
    assert isinstance(source.decode, Decoder)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.threads) as pool:
        target = Path(folder) / "pack"
        begun = time.perf_counter()
        pack_writer.pack(source, target)
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        packs.verify(target, progress=False)
        verified = time.perf_counter() - begun
        data = gk.data.load(target)
        decode = decoded_batches(source, pool)
        generator = torch.Generator().manual_seed(0)
        first = data.draw(arguments.batch_size, generator)
        assert torch.equal(data.batch(first)[0], decode(first)), "both ways must give the same batch"

        rates: dict[str, list[float]] = {"pack in memory": [], "pack on disk": [], "decoding JPEGs": []}
        for _ in tqdm(range(arguments.repeats), unit="turn", leave=False):
            order = data.draw((arguments.batches, arguments.batch_size), generator)
            data.images.sum()  # every page is in memory
            rates["pack in memory"].append(rate(lambda i: data.batch(i)[0], order))
            drop_pages(target / "images.npy")
            cold = gk.data.load(target)  # mapped anew: the pages of the other map stay
            rates["pack on disk"].append(rate(lambda i, cold=cold: cold.batch(i)[0], order))
            rates["decoding JPEGs"].append(rate(decode, order[:5]))

    print(f"\n{data}: packed in {seconds:.1f} s, verified in {verified:.1f} s")
    print(f"batches of {arguments.batch_size}, thousand images per second, median [min, max]:")
    for name, values in rates.items():
        low, middle, high = (f"{np.quantile(values, q) / 1000:.2f}" for q in (0, 0.5, 1))
        print(f"  {name:15} {middle} [{low}, {high}]")
    ratios = [a / b for a, b in zip(rates["pack in memory"], rates["decoding JPEGs"], strict=True)]
    verdict = "" if np.median(ratios) >= REQUIRED else f"  (below the {REQUIRED:g} that is asked for)"
    print(
        f"a pack in memory is {np.median(ratios):.1f} times as fast [{min(ratios):.1f}, {max(ratios):.1f}]{verdict}"
    )
    result = {"machine": machine, "seconds to pack": seconds, "seconds to verify": verified}
    common.write(result | {"images per second": rates, "ratios": ratios}, arguments.out)


if __name__ == "__main__":
    main()
