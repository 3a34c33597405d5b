"""Saving a chapter in JupyterLab changes its two files only where a cell was changed.

jupytext writes the text anew at every save: captions are wrapped again, the header gets the version that wrote it, and
a notebook's cells get new ids. `KeepingManager` lets it write, and then puts back whatever means the same as before.
`make edit` starts JupyterLab with it (`book/jupyter_server_config.py`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupytext import TextFileContentsManager

HEADER = re.compile(r"\A---\n(.*?)^---\n", re.S | re.M)
CELL = re.compile(r"^(`{3,}\{(?:code-cell|raw-cell)\}[^\n]*\n)(---\n.*?^---\n|(?::[^\n]*\n)+|)", re.S | re.M)


def _meaning(block: str) -> str | None:
    """The options of a cell or the header as canonical JSON; None where they cannot be read."""
    lines = block.strip().splitlines()
    plain = "\n".join(line.removeprefix(":") for line in lines if line != "---")
    with contextlib.suppress(yaml.YAMLError, TypeError):
        options = yaml.safe_load(plain) or {}
        if isinstance(options, dict) and isinstance(options.get("jupytext"), dict):
            options["jupytext"].pop("text_representation", None)
        return json.dumps(options, sort_keys=True, default=str)
    return None


def keep_text(old: str, new: str) -> str:
    """The text `new`, in which the header and options of cells that mean what they meant in `old` look as they did."""
    looked = {_meaning(found[2]): found[2] for found in CELL.finditer(old)}
    text = CELL.sub(lambda found: found[1] + looked.get(_meaning(found[2]), found[2]), new)
    before, now = HEADER.match(old), HEADER.match(text)
    if before and now and _meaning(before[1]) == _meaning(now[1]):
        text = before[0] + text[now.end() :]
    return text


def keep_notebook(old: str, new: str) -> str:
    """The notebook `new`, in which cells that are what they were in `old` keep their ids."""
    before, now = nbformat.reads(old, as_version=4), nbformat.reads(new, as_version=4)
    left: dict[str, list[Any]] = {}
    for cell in before.cells:
        left.setdefault(_without_id(cell), []).append(cell)
    taken: set[str] = set()
    for cell in now.cells:
        if same := left.get(_without_id(cell)):
            cell["id"] = same.pop(0)["id"]
            taken.add(cell["id"])
    for cell, was in zip(
        now.cells, before.cells, strict=False
    ):  # changed where it stood: still the same cell
        if cell["id"] not in taken and was["id"] not in taken:
            cell["id"] = was["id"]
            taken.add(was["id"])
    for notebook in (before, now):
        notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    known = before.metadata.get("language_info", {})
    if known and now.metadata.get("language_info", {}).get("name") == known.get("name"):
        now.metadata["language_info"] = known  # the kernel's version says nothing about the chapter
    if before.metadata == now.metadata and before.cells == now.cells:
        return old
    return nbformat.writes(now) + "\n"


def _without_id(cell: Any) -> str:
    return json.dumps({key: value for key, value in cell.items() if key != "id"}, sort_keys=True)


class KeepingManager(TextFileContentsManager):
    """jupytext's contents manager, which leaves alone what a save did not change."""

    def save(self, model: dict[str, Any], path: str = "") -> dict[str, Any]:
        """Save one file as jupytext does, then put back what means the same."""
        before = dict(self._pair(path)) if model.get("type") == "notebook" else {}
        saved = super().save(model, path)
        for file, old in before.items():
            keep = keep_notebook if file.suffix == ".ipynb" else keep_text
            new = file.read_text("utf-8")
            if (kept := keep(old, new)) != new:
                file.write_text(kept, "utf-8")
        return saved

    def _pair(self, path: str) -> Iterator[tuple[Path, str]]:
        here = Path(self.root_dir, path.strip("/"))
        for file in (here.with_suffix(".ipynb"), here.with_suffix(".md")):
            with contextlib.suppress(FileNotFoundError):
                yield file, file.read_text("utf-8")
