"""Saving in JupyterLab changes a chapter's files only where a cell was changed."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

from book import build, pairs

BOOK = build.BOOK
TEXTS = sorted(BOOK.glob("[0-9][0-9]_*.md"))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_text_that_jupytext_writes_anew_is_the_same(path: Path) -> None:
    text = path.read_text("utf-8")
    anew = jupytext.writes(jupytext.reads(text, fmt="md:myst"), fmt="md:myst")
    assert pairs.keep_text(text, anew) == text


def test_a_cell_that_was_changed_is_the_only_change() -> None:
    text = TEXTS[0].read_text("utf-8")
    notebook = jupytext.reads(text, fmt="md:myst")
    drawn = next(cell for cell in notebook.cells if "mystnb" in cell.metadata)
    line = drawn.source.splitlines()[0]
    drawn.source = drawn.source.replace(line, f"{line}  # changed", 1)
    kept = pairs.keep_text(text, jupytext.writes(notebook, fmt="md:myst"))
    assert kept == text.replace(line, f"{line}  # changed", 1)
    drawn.metadata["mystnb"]["figure"]["caption"] = "Another."
    kept = pairs.keep_text(text, jupytext.writes(notebook, fmt="md:myst"))
    assert "caption: Another." in kept


def test_a_notebook_keeps_the_ids_of_cells_that_are_what_they_were() -> None:
    old = TEXTS[0].with_suffix(".ipynb").read_text("utf-8")
    notebook = nbformat.reads(old, as_version=4)
    ids = [cell["id"] for cell in notebook.cells]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"other-{number}"
    assert pairs.keep_notebook(old, nbformat.writes(notebook)) == old
    notebook.cells[3]["source"] += "\n# changed"
    kept = nbformat.reads(pairs.keep_notebook(old, nbformat.writes(notebook)), as_version=4)
    assert [cell["id"] for cell in kept.cells] == ids
    assert kept.cells[3]["source"].endswith("# changed")


class Server:
    """A Jupyter server on a folder, and its contents API."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = f"--config={BOOK / 'jupyter_server_config.py'}"
        command = [
            sys.executable,
            "-m",
            "jupyter",
            "server",
            config,
            f"--ServerApp.root_dir={folder}",
            "--no-browser",
        ]
        command += [f"--port={self.port}", "--IdentityProvider.token=secret", "--allow-root"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/contents/{path}",
            json.dumps(body).encode() if body is not None else None,
            {"Authorization": "token secret", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def wait(self) -> None:
        for _ in range(600):
            try:
                self.ask("GET", "")
                return
            except OSError:
                assert self.process.poll() is None, "the server has ended"
                time.sleep(0.2)
        raise TimeoutError("the server did not start")


@pytest.mark.full
def test_opening_and_saving_all_chapters_leaves_git_diff_empty(tmp_path: Path) -> None:
    folder = tmp_path / "book"
    folder.mkdir()
    agree = [
        path for path in TEXTS if build.pair_difference(build.Chapter(path)) is None
    ]  # `check` names the others
    assert len(agree) >= len(TEXTS) / 2
    for path in agree:
        shutil.copy(path, folder), shutil.copy(path.with_suffix(".ipynb"), folder)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "before"]):
        subprocess.run([*git, *command], check=True)
    server = Server(folder)
    try:
        server.wait()
        for path in agree:
            for name in (f"{path.stem}.ipynb", f"{path.stem}.md"):
                model = server.ask("GET", f"{name}?type=notebook")
                saved = {"type": "notebook", "format": "json", "content": model["content"]}
                server.ask("PUT", name, saved)
        changed = subprocess.run([*git, "diff", "--stat"], check=True, capture_output=True, text=True).stdout
        assert changed == ""

        name = f"{agree[0].stem}.ipynb"
        content = server.ask("GET", f"{name}?type=notebook")["content"]
        content["cells"][1]["source"] = "One sentence."
        server.ask("PUT", name, {"type": "notebook", "format": "json", "content": content})
        changed = subprocess.run(
            [*git, "diff", "--numstat"], check=True, capture_output=True, text=True
        ).stdout
        assert len(changed.splitlines()) == 2
        assert "One sentence." in (folder / f"{agree[0].stem}.md").read_text("utf-8")
        assert all(int(line.split()[0]) <= 2 for line in changed.splitlines()), changed
    finally:
        server.process.terminate()
        server.process.wait(30)
