"""Takes what students handed in, in whatever state, and puts their answers into the pristine release.

A notebook that came back may have another name, conflict markers, two copies of a test, no tests at all or no metadata.
None of that reaches nbgrader: its input is the release itself, with the students' answers, found by the ids of their
cells, and with the cells that they added. What cannot be read is reported and kept, and never stops the others.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

LARGEST = 64 * 2**20  # bytes of one file; a notebook with many pictures has two or three million
CONFLICT = re.compile(r"^<{7}[^\n]*\n(.*?)^={7}[^\n]*\n(.*?)^>{7}[^\n]*\n", re.M | re.S)
RawCell = dict[str, Any]


@dataclass
class Submission:
    """What one student handed in.

    Attributes:
        student: a name that a folder can have.
        files: name and content of each file.
        notebook: the release with the student's answers, or None where nothing could be read.
        notes: what was found and mended, a sentence each.
    """

    student: str
    files: list[tuple[str, bytes]] = field(default_factory=list)
    notebook: nbformat.NotebookNode | None = None
    notes: list[str] = field(default_factory=list)


# --- opening what came -------------------------------------------------------------------------


def collect(source: Path, release: nbformat.NotebookNode) -> list[Submission]:
    """Read a Moodle archive, a folder with a folder for each student, or a folder with a file for each.

    Args:
        source: a .zip or a folder.
        release: the notebook as it was given to students.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if it is neither an archive nor a folder.
    """
    by_student: dict[str, Submission] = {}
    for path, content, note in _files(source):
        key, name = _student(path)
        one = by_student.setdefault(key, Submission(key))
        if note:
            one.notes.append(f"{name}: {note}")
        else:
            one.files.append((name, content))
    taken: dict[str, str] = {}
    for key, one in by_student.items():
        one.student = folder_name(key)
        if (
            taken.setdefault(one.student.lower(), key) != key
        ):  # two names that differ in what a folder cannot tell
            one.student += f"-{hashlib.sha256(key.encode()).hexdigest()[:6]}"
        _choose(one, release)
    return sorted(by_student.values(), key=lambda one: one.student)


def _files(source: Path) -> Iterator[tuple[str, bytes, str]]:
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}; FROM names a .zip or a folder")
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield from _opened(path.relative_to(source).as_posix(), path.read_bytes())
    elif zipfile.is_zipfile(source):
        yield from _unzipped("", zipfile.ZipFile(source))
    else:
        raise ValueError(f"{source} is neither a .zip nor a folder")


def _unzipped(folder: str, archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes, str]]:
    for info in archive.infolist():
        if info.is_dir() or "__MACOSX" in info.filename:
            continue
        if info.file_size > LARGEST:
            yield folder + info.filename, b"", f"is larger than {LARGEST // 2**20} MiB and was left out"
            continue
        try:
            content = archive.read(info)
        except (RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
            yield folder + info.filename, b"", f"cannot be unpacked: {error}"
            continue
        yield from _opened(folder + info.filename, content)


def _opened(path: str, content: bytes) -> Iterator[tuple[str, bytes, str]]:
    """A file, or the files of an archive that a student handed in."""
    if path.lower().endswith(".zip") and zipfile.is_zipfile(io.BytesIO(content)):
        yield from _unzipped(f"{path[:-4]}/", zipfile.ZipFile(io.BytesIO(content)))
    else:
        yield path, content, ""


def _student(path: str) -> tuple[str, str]:
    """Whose a file is, and its name. Moodle's are `Jane Doe_1_assignsubmission_file_/a.ipynb`, or without the `/`."""
    first, _, rest = path.partition("/")
    if "_assignsubmission_" in first:
        who, _, after = first.partition("_assignsubmission_")
        return who, PurePosixPath(rest or after.removeprefix("file_")).name
    return (first, PurePosixPath(rest).name) if rest else (PurePosixPath(first).stem, first)


def folder_name(text: str) -> str:
    """A student's name as a folder can have it: letters without accents, digits and hyphens, never empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-")
    return plain or f"student-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# --- reading a notebook in any state -----------------------------------------------------------


def _choose(one: Submission, release: nbformat.NotebookNode) -> None:
    """Take the file that holds most of the assignment, whatever its name."""
    best = -1
    chosen = ""
    for name, content in one.files:
        if not name.lower().endswith((".ipynb", ".json", ".txt")):
            one.notes.append(f"{name}: not a notebook, kept in the inbox and not graded")
            continue
        notebook, notes, known = best_reading(content, release)
        if notebook is None:
            one.notes += [f"{name}: {note}" for note in notes]
        elif known > best:
            if chosen:
                one.notes.append(f"{chosen}: another notebook, {name}, holds more of the assignment")
            best, chosen, one.notebook = known, name, notebook
            kept = [f"{name}: {note}" for note in notes]
            one.notes += kept
        else:
            one.notes.append(f"{name}: another notebook, {chosen}, holds as much of the assignment")
    if one.notebook is None:
        one.notes.append(
            "NOT GRADED: no notebook of this assignment could be read; the files are in the inbox"
        )


def best_reading(
    content: bytes, release: nbformat.NotebookNode
) -> tuple[nbformat.NotebookNode | None, list[str], int]:
    """The release with the answers of a file, notes, and how many of its cells were recognised."""
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    sides = [text]
    notes = []
    if CONFLICT.search(text):
        sides = [CONFLICT.sub(lambda found, side=side: found[side], text) for side in (1, 2)]
        notes = ["conflict markers; the side with more answers was taken, please look at it"]
    read = [transplant(cells, release) for side in sides if (cells := _cells(side)) is not None]
    if not read:
        return None, ["cannot be read as a notebook"], 0
    notebook, more, known = max(read, key=lambda reading: _answered(reading[0], release))
    if not known:
        return None, ["holds no cell of this assignment"], 0
    return notebook, notes + more, known


def _cells(text: str) -> list[RawCell] | None:
    """The cells of a notebook in any version, each a dictionary; None where the text is no notebook."""
    try:
        raw = json.loads(text)
        if isinstance(raw, dict) and isinstance(raw.get("worksheets"), list):
            raw = nbformat.convert(nbformat.reads(text, as_version=3), 4)
        cells = raw["cells"]
    except Exception:  # nbformat raises whatever a strange file makes it raise
        return None
    good = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    return [{**cell, "source": _source(cell)} for cell in good]


def _source(cell: RawCell) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _answered(notebook: nbformat.NotebookNode, release: nbformat.NotebookNode) -> int:
    return sum(
        mine.source != theirs.source
        for mine, theirs in zip(_answers(notebook), _answers(release), strict=True)
    )


def _answers(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]


# --- transplanting -----------------------------------------------------------------------------


def transplant(
    cells: Sequence[RawCell], release: nbformat.NotebookNode
) -> tuple[nbformat.NotebookNode, list[str], int]:
    """The pristine release with the answers, and the added cells, of a notebook that came back.

    Returns:
        The notebook, notes, and how many of the release's code cells were recognised.
    """
    notebook = copy.deepcopy(release)
    notes: list[str] = []
    ours = {cell.id: cell for cell in notebook.cells}
    keys = [_key(cell, ours) for cell in cells]
    for name, cell in ours.items():
        if cell.cell_type != "code":
            continue
        came = [raw for raw, key in zip(cells, keys, strict=True) if key == name]
        if not came and cell in _answers(notebook):
            for index in _by_functions(cell.source, cells, keys):
                keys[index] = name
                came.append(cells[index])
            notes += [f"{name}: recognised by its functions, its id was lost"] if came else []
        role = cell.metadata.get("nbgrader", {})
        if len(came) > 1:
            notes.append(f"{name}: {len(came)} cells; the last one that was filled in counts")
        if role.get("locked"):
            if not came:
                notes.append(f"{name}: deleted, and put back")
            elif any(raw["source"] != cell.source for raw in came):
                notes.append(f"{name}: changed, and put back")
        elif not came:
            notes.append(f"{name}: missing, counts as not answered") if role else None
        else:
            filled = [raw["source"] for raw in came if raw["source"].strip() != cell.source.strip()]
            cell.source = (filled or [cell.source])[-1]
    _add_their_cells(notebook, cells, keys)
    code = {name for name, cell in ours.items() if cell.cell_type == "code"}
    return notebook, notes, len(code & set(keys))


def _key(cell: RawCell, ours: dict[str, Any]) -> str | None:
    """The name of the release's cell that this one is, or a copy of, by its own id or nbgrader's."""
    metadata = cell.get("metadata")
    grader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    for name in (grader.get("grade_id") if isinstance(grader, dict) else None, cell.get("id")):
        if isinstance(name, str) and name in ours:
            return name
    same = [name for name, own in ours.items() if own.source.strip() == cell["source"].strip()]
    return same[0] if same and cell["source"].strip() else None


def _by_functions(source: str, cells: Sequence[RawCell], keys: Sequence[str | None]) -> list[int]:
    """Cells without a known id that define all functions of an answer."""
    names = set(re.findall(r"^def (\w+)", source, re.M))
    return [
        index
        for index, (cell, key) in enumerate(zip(cells, keys, strict=True))
        if key is None and names and names <= set(re.findall(r"^def (\w+)", cell["source"], re.M))
    ]


def _add_their_cells(
    notebook: nbformat.NotebookNode, cells: Sequence[RawCell], keys: Sequence[str | None]
) -> None:
    """Insert cells that the student added, each after the cell below which it stood."""
    after, added = None, 0
    for cell, key in zip(cells, keys, strict=True):
        if key is not None:
            after = key
        elif cell["source"].strip():
            added += 1
            make = new_code_cell if cell.get("cell_type") == "code" else new_markdown_cell
            places = [index for index, own in enumerate(notebook.cells) if own.id == after]
            place = places[0] + 1 if places else 0
            notebook.cells.insert(place, make(cell["source"], id=(after := f"added-{added}")))
