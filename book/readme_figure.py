"""The README's picture, taken from the executed first chapter: `python book/readme_figure.py` writes it.

The picture is seen without running the book; a test compares it with the chapter's stored output.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

BOOK = Path(__file__).parent
TARGET = BOOK / "_static" / "the_game.png"
FIGURE = "the-game-ten-seeds"


def stored_figure(notebook: Path, name: str) -> bytes:
    """The PNG that a notebook's figure of this name stores.

    Raises:
        ValueError: if no cell of the notebook has that figure name and a picture.
    """
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        for output in cell.get("outputs", []) if figure.get("name") == name else []:
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError(f"{notebook} stores no figure named {name!r}; run `make chapter` first")


if __name__ == "__main__":
    TARGET.write_bytes(stored_figure(BOOK / "01_the_game.ipynb", FIGURE))
    print(f"wrote {TARGET}")
