"""Writes the tensors of a pickle of stylegan2-ada-pytorch as a .safetensors file, for `gankit import-stylegan2`.

Run it in an environment of its own, beside the authors' code, whose classes and source the pickle asks for:

    git clone https://github.com/NVlabs/stylegan2-ada-pytorch
    pip install torch safetensors requests
    PYTHONPATH=stylegan2-ada-pytorch python stylegan2_to_safetensors.py ffhq.pkl ffhq.safetensors

LOADING A PICKLE RUNS WHAT IS IN IT. Take one from its authors alone. What comes out holds tensors and nothing else.
"""

import argparse
import os
import pickle

from safetensors.torch import save_file

PARTS = ("G_ema", "G", "D")


def tensors(networks: dict) -> dict:
    """Parameters and buffers of the networks there are, named as in `G_ema.synthesis.b4.const`."""
    return {
        f"{part}.{name}": x.detach().cpu().clone().contiguous()
        for part in PARTS
        if networks.get(part) is not None
        for name, x in networks[part].state_dict().items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Read a pickle, write a file of tensors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pickle", help="network-snapshot-*.pkl, or a published one such as ffhq.pkl")
    parser.add_argument("to", help="the .safetensors file to write")
    chosen = parser.parse_args(arguments)
    with open(chosen.pickle, "rb") as file:
        found = tensors(pickle.load(file))
    if not found:
        parser.exit(2, f"{chosen.pickle} holds none of {', '.join(PARTS)}\n")
    save_file(found, f"{chosen.to}.tmp")
    os.replace(f"{chosen.to}.tmp", chosen.to)
    print(f"{chosen.to}: {len(found):,} tensors")


if __name__ == "__main__":
    main()
