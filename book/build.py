#!/usr/bin/env python
"""The book's own tool: run the chapters, build the site, and check that both are in order.

A chapter is a pair of files. `book/01_the_game.md` is the text that people edit and review;
`book/01_the_game.ipynb` is the same chapter with its outputs, from which the site is built. This tool
makes the second from the first, and makes sure that they never drift apart.

Reading, running and changing are kept apart. Only the author's command, `chapter`, writes a file that is
committed; a reader's run goes to `book/_build`, and what a student changes lies in `work`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from book import furniture, offline, taught

BOOK = Path(__file__).resolve().parent
FORMAT = "md:myst"
CODE = ("gankit", "toy", "figures")  # what a chapter imports: when it changes, the chapter runs again
CELL_TIMEOUT = 600  # seconds; a chapter that needs a minute in one cell is wrong, one that hangs must end
TOLERANCE = 1.5  # `make times`: a chapter may take half as long again as its card says
HANGS = 10  # `make test`: one that takes ten times its card's promise has stopped getting on
CALIBRATION = 0.94  # seconds of `calibrate` on the two-core machine that the cards speak of, when it is quiet


class BookError(Exception):
    """Something the author can mend; the message says how."""


@dataclass(frozen=True)
class Chapter:
    """One chapter of a book folder, named by its text file."""

    text: Path

    @property
    def name(self) -> str:
        return self.text.stem

    @property
    def notebook(self) -> Path:
        return self.text.with_suffix(".ipynb")

    @property
    def executed(self) -> Path:
        """The chapter as a reader's run left it; never committed."""
        return self.text.parent / "_build" / "executed" / self.notebook.name

    @property
    def record(self) -> Path:
        """Where this machine remembers what a reader's last run ran with; never committed."""
        return self.text.parent.parent / ".build" / f"{self.name}.json"

    def card_seconds(self) -> float | None:
        """The quick runtime that the chapter's card promises, or None where the card has none."""
        return furniture.card_seconds(self.text.read_text("utf-8"), taught.load(self.text.parent).labels)


def find_chapters(book: Path, wanted: Iterable[str] = ()) -> list[Chapter]:
    """The chapters of `book` in order; `wanted` picks some of them by number ("1", "01") or name."""
    chapters = [Chapter(path) for path in sorted(book.glob("[0-9][0-9]_*.md"))]
    if not chapters:
        raise BookError(f"{book} has no chapter: a chapter is a file like 01_the_game.md.")
    if not (wanted := list(wanted)):
        return chapters
    by_name = {key: c for c in chapters for key in (c.name, c.name[:2], str(int(c.name[:2])))}
    for key in wanted:
        if key not in by_name:
            raise BookError(f"There is no chapter {key!r}; there are {', '.join(c.name for c in chapters)}.")
    return sorted({by_name[key] for key in wanted}, key=lambda c: c.name)


# --- files ---------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees the old or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_new(source: Path, target: Path) -> None:
    """Copy a file where its content is new: Sphinx reads again what is younger than its last reading."""
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is missing or spoiled: it can be made again."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def digest(*parts: str | bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else part.encode())
        whole.update(b"\0")
    return whole.hexdigest()[:16]


def digest_of_code(root: Path) -> str:
    """One number for every file of gankit/, toy/ and figures/: it changes when any of them does."""
    parts: list[str | bytes] = []
    for folder in CODE:
        for path in sorted((root / folder).rglob("*")):
            hidden = any(p.startswith(".") or p == "__pycache__" for p in path.relative_to(root).parts)
            if path.is_file() and not hidden:
                parts += [path.relative_to(root).as_posix(), path.read_bytes()]
    return digest(*parts)


# --- the pair: text and notebook -----------------------------------------------------------------


def read_source(chapter: Chapter) -> nbformat.NotebookNode:
    """The chapter's text as a notebook without outputs, the same every time it is read."""
    notebook = jupytext.read(chapter.text, fmt=FORMAT)
    # The version of jupytext that happened to read the text says nothing about the chapter.
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    notebook.metadata["book"] = {"executed": digest_of_cells(notebook)}
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        # Random cell ids would make every run look like a change; an id made from the cell itself
        # stays when other cells come and go.
        key = digest(cell.cell_type, cell.source)[:8]
        seen[key] = seen.get(key, 0) + 1
        cell["id"] = key if seen[key] == 1 else f"{key}-{seen[key]}"
    return notebook


def digest_of_cells(notebook: nbformat.NotebookNode) -> str:
    """One number for the code cells of a chapter: outputs with another number are stale."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return digest(*code)


def pair_difference(chapter: Chapter, notebook: Path | None = None) -> str | None:
    """How a chapter's notebook (the committed one, if not told) differs from its text; None where they agree.

    The comparison reads both files: `jupytext --test` makes a round trip of one of them, and so passes
    on pairs that have drifted apart.
    """
    notebook = notebook or chapter.notebook
    if not notebook.exists():
        return f"{notebook.name} is missing: `make chapter N={chapter.name[:2]}` makes it"
    try:
        compare_notebooks(
            nbformat.read(notebook, as_version=4),
            read_source(chapter),
            fmt=FORMAT,
            compare_outputs=False,
            compare_ids=False,
            raise_on_first_difference=True,
        )
    except NotebookDifference as difference:
        return f"{notebook.name} and {chapter.text.name} differ: {difference}"
    return None


def check_pair(chapter: Chapter, notebook: Path | None = None) -> str | None:
    """What is wrong with a pair: drifted apart, never executed, or outputs of an older text."""
    notebook = notebook or chapter.notebook
    if problem := pair_difference(chapter, notebook):
        return problem
    read = nbformat.read(notebook, as_version=4)
    if read.metadata.get("book", {}).get("executed") != digest_of_cells(read):
        again = f"`make chapter N={chapter.name[:2]}` runs it again"
        return f"{notebook.name} holds the outputs of an older text: {again}"
    return None


# --- execution -----------------------------------------------------------------------------------


def reason_to_run(chapter: Chapter, code: str) -> str | None:
    """Why a reader's run has to run a chapter, or None where the last one still stands."""
    record = read_json(chapter.record)
    if not record:
        return "not run here before"
    if record.get("text") != digest(chapter.text.read_bytes()):
        return "its text changed"
    if record.get("code") != code:
        return f"{', '.join(CODE[:-1])} or {CODE[-1]} changed"
    return check_pair(chapter, chapter.executed)


def refuse_lost_edits(chapter: Chapter) -> None:
    """Stop before a run overwrites what someone typed into the notebook but not into the text."""
    notebook = chapter.notebook
    if not notebook.exists() or notebook.stat().st_mtime <= chapter.text.stat().st_mtime:
        return
    if difference := pair_difference(chapter):
        raise BookError(
            f"{difference}.\nThe notebook is the newer one, and a run would overwrite it:"
            f" `jupytext --sync {notebook}` takes its edits into the text,"
            f" `touch {chapter.text}` gives them up."
        )


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drop what differs between two equal runs, so that a notebook changes only when its content does."""
    language = notebook.metadata.get("language_info", {})
    kept = ("name", "file_extension", "pygments_lexer")
    notebook.metadata["language_info"] = {key: language[key] for key in kept if key in language}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def leave_signals_alone(**_: Any) -> None:
    """Undo nbclient's own signal handlers: with two kernels at a time they stop one and forget the other.

    Without them Ctrl-C ends the loop, which shuts every kernel down.
    """
    with contextlib.suppress(NotImplementedError):  # Windows has no such handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


@dataclass(frozen=True)
class Run:
    """What a run of a chapter gave: the notebook with its outputs, and what it ran with."""

    notebook: nbformat.NotebookNode
    seconds: float
    text: str  # digests of the chapter's text and of the code that it imports
    code: str
    read_at: os.stat_result


async def run_chapter(chapter: Chapter) -> Run:
    """Execute one chapter in a fresh kernel, as a reader would from top to bottom; write nothing."""
    code = digest_of_code(chapter.text.parent.parent)
    read_at = chapter.text.stat()
    text, notebook = digest(chapter.text.read_bytes()), read_source(chapter)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        coalesce_streams=True,
        skip_cells_with_tag="skip-execution",
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # its warnings are not the chapter's
        on_notebook_start=leave_signals_alone,
        resources={"metadata": {"path": str(chapter.text.parent)}},
    )
    # Quick scale whatever the shell says, and no progress bars: they print times, which never repeat.
    environment = {**os.environ, "GANKIT_SCALE": "quick", "TQDM_DISABLE": "1"}
    started = time.perf_counter()
    try:
        await client.async_execute(env=environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        seconds = time.perf_counter() - started
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
        raise BookError(f"{chapter.name} failed after {seconds:.1f} s. {plain}") from None
    seconds = time.perf_counter() - started
    tidy(notebook)
    return Run(notebook, seconds, text, code, read_at)


def keep_for_reading(chapter: Chapter, run: Run) -> None:
    """Store a run where the site of `make book` takes it from, and what it ran with."""
    write_text(chapter.executed, nbformat.writes(run.notebook) + "\n")
    record = {"text": run.text, "code": run.code, "seconds": round(run.seconds, 1)}
    write_text(chapter.record, json.dumps(record) + "\n")


def keep_for_good(chapter: Chapter, run: Run) -> None:
    """Store a run as the chapter's committed notebook, and for reading."""
    refuse_lost_edits(chapter)
    write_text(chapter.notebook, nbformat.writes(run.notebook) + "\n")
    # The notebook is as old as the text it was made from: an edit made meanwhile counts as newer.
    os.utime(chapter.notebook, ns=(run.read_at.st_atime_ns, run.read_at.st_mtime_ns))
    keep_for_reading(chapter, run)


async def run_chapters(chapters: list[Chapter], jobs: int, keep: Callable[[Chapter, Run], None]) -> list[str]:
    """Run chapters, `jobs` of them at a time, keep each, with a line for it; return the failures."""
    free, failures = asyncio.Semaphore(jobs), []

    async def one(chapter: Chapter) -> None:
        async with free:
            try:
                run = await run_chapter(chapter)
                keep(chapter, run)
                print(timing(chapter, run.seconds), flush=True)
            except BookError as error:
                failures.append(str(error))
                print(f"{chapter.name:<28} FAILED", flush=True)

    await asyncio.gather(*(one(chapter) for chapter in chapters))
    return failures


def timing(chapter: Chapter, seconds: float) -> str:
    card = chapter.card_seconds()
    promise = "its card has no quick runtime" if card is None else f"card: {card:g} s"
    return f"{chapter.name:<28} {seconds:6.1f} s   ({promise})"


# --- the commands --------------------------------------------------------------------------------


def execute(args: argparse.Namespace) -> None:
    chapters = find_chapters(args.book, args.chapter)
    code = digest_of_code(args.book.parent)
    due = []
    for chapter in chapters:
        reason = "asked for" if args.force else reason_to_run(chapter, code)
        if reason is None:
            print(f"{timing(chapter, read_json(chapter.record)['seconds'])}   unchanged, not run again")
        else:
            due.append(chapter)
    if failures := asyncio.run(run_chapters(due, args.jobs, keep_for_reading)):
        raise BookError("\n\n".join(failures))


def write_chapters(args: argparse.Namespace) -> None:
    chapters = find_chapters(args.book, args.chapter)
    for chapter in chapters:
        refuse_lost_edits(chapter)  # before a minute is spent
    if failures := asyncio.run(run_chapters(chapters, args.jobs, keep_for_good)):
        raise BookError("\n\n".join(failures))


# What a student changes: a copy that updates of the book never touch.


def digest_of_sources(notebook: Path) -> str | None:
    """One number for the cells of a notebook, whatever they printed; None where the file is no notebook."""
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except Exception:  # of JSON, of the format's schema, of the disk: either way, not to be overwritten
        return None
    return digest(*(part for cell in cells for part in (cell.cell_type, cell.source)))


def copy_for_work(args: argparse.Namespace) -> None:
    work = args.book.parent / "work"
    memory = work / ".copied.json"  # the cells of each chapter as they were when it was copied
    copied = read_json(memory)
    for pattern in ("*.html", "diagrams/*.svg"):  # what chapters show: the laboratory, the diagrams
        for page in (args.book / "_static").glob(pattern):
            write_new(page, work / page.relative_to(args.book))
    for chapter in find_chapters(args.book, args.chapter):
        target = work / chapter.notebook.name
        newest = digest_of_sources(chapter.notebook)
        if newest is None:
            raise BookError(f"{chapter.notebook.name} is missing or no notebook; `git status` says why.")
        if target.exists() and digest_of_sources(target) != copied.get(chapter.name):
            if newest != copied.get(chapter.name):
                print(
                    f"{target.name}: yours is kept. The book has a newer one: rename yours, run this again."
                )
            continue
        if target.exists() and newest == copied.get(chapter.name):
            continue
        notebook = nbformat.read(chapter.notebook, as_version=4)
        notebook.metadata.pop("jupytext", None)  # a copy has no text beside it to keep in step
        print(f"{target.name}: {'brought up to date' if target.exists() else 'copied'}")
        write_text(target, nbformat.writes(notebook) + "\n")
        copied[chapter.name] = newest
        write_text(memory, json.dumps(copied, indent=1) + "\n")


def check(args: argparse.Namespace) -> None:
    problems = []
    for chapter in find_chapters(args.book, args.chapter):
        pair = check_pair(chapter)
        problems += [pair] if pair else []
        problems += furniture.problems(chapter.text, chapter.notebook, args.book / "references.bib")
    known = {c.notebook for c in find_chapters(args.book)}
    for notebook in sorted(args.book.glob("[0-9][0-9]_*.ipynb")):
        if notebook not in known:
            problems.append(f"{notebook.name} has no text beside it")
    if problems:
        raise BookError("\n".join(problems))
    print("Every notebook agrees with its text, and every chapter has its furniture.")


def stage(book: Path, executed: bool) -> Path:
    """Gather what Sphinx reads in `_build/source`, so that building a site writes nowhere else.

    Args:
        book: the folder of the chapters.
        executed: take the notebooks of this machine's runs, not the committed ones.
    """
    source = book / "_build" / "source"
    chapters = find_chapters(book)
    files = {
        path.relative_to(book): path
        for pattern in (
            "*.bib",
            "*.md",
            "_static/*.*",
            "_static/diagrams/*",
        )  # of the latter, pictures that pages name
        for path in book.glob(pattern)
        if path.is_file()
    }
    for chapter in chapters:
        notebook = chapter.executed if executed else chapter.notebook
        if not notebook.exists():
            command = "execute" if executed else f"chapter {chapter.name[:2]}"
            raise BookError(f"{chapter.name} has no notebook: `python book/build.py {command}` makes it.")
        files[Path(chapter.notebook.name)] = notebook
    for relative, path in files.items():
        write_new(path, source / relative)
    for old in (path for path in source.rglob("*") if path.is_file()):
        relative = old.relative_to(source)
        if relative not in files and relative.parts[0] != "reference":  # conf.py keeps that folder itself
            old.unlink()
    return source


def site(args: argparse.Namespace) -> None:
    out = args.book / "_build" / "html"
    source = stage(args.book, args.executed)
    strict = ["-W", "-n", "--keep-going", "-q"]  # warnings are errors; show all of them
    where = ["-c", str(args.book), "-d", str(out.parent / "doctrees"), str(source), str(out)]
    command = [sys.executable, "-m", "sphinx", "-b", "html", *strict, *where]
    done = subprocess.run(command, cwd=args.book.parent)
    if done.returncode:
        raise BookError("The site was not built: mend the warnings above.")
    if outside := list(offline.outside_loads(out)):
        raise BookError(
            "The site must work offline, and these are loaded from elsewhere:\n" + "\n".join(outside)
        )
    print(f"The site is at {out / 'index.html'}")


def card_of(chapter: Chapter) -> float:
    """The card's promise in seconds; furniture refuses a card without one."""
    if (card := chapter.card_seconds()) is None:
        raise BookError(f"{chapter.name}: its card has no `**Quick runtime.** N s on two cores`.")
    return card


def times(args: argparse.Namespace) -> None:
    measured, problems = read_json(args.book.parent / ".build" / "nbval.json"), []
    for chapter in find_chapters(args.book, args.chapter):
        card = card_of(chapter)
        if chapter.name not in measured:
            problems.append(f"{chapter.name}: not measured; `make test` measures.")
            continue
        print(timing(chapter, measured[chapter.name]))
        if measured[chapter.name] > HANGS * card:
            problems.append(
                f"{chapter.name}: took {measured[chapter.name]:.1f} s, more than {HANGS} times the {card:g} s of its"
                " card: something hangs."
            )
    if problems:
        raise BookError("\n".join(problems))


def calibrate() -> float:
    """Seconds of a fixed piece of work like the chapters': many small matrix products and their gradients."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x, w = torch.ones(10, 64, 64), torch.full((10, 64, 64), 1e-3, requires_grad=True)
        started = time.perf_counter()
        for _ in range(2_000):
            torch.autograd.grad(torch.bmm(torch.bmm(x, w).relu(), w).sum(), w)
        return time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)


def too_slow(seconds: float, card: float, slowness: float = 1.0) -> str | None:
    """Why a chapter's time breaks its promise, or None where it keeps it.

    Args:
        seconds: that it took.
        card: seconds that its card promises.
        slowness: how many times as long as on the cards' machine `calibrate` took, in the same minute.
    """
    here = f" (this machine takes {slowness:.2f} times as long as the cards')"
    if seconds > furniture.SLOWEST * slowness:
        return f"took {seconds:.1f} s; a chapter may take {furniture.SLOWEST:g} s at quick scale{here}"
    if seconds > TOLERANCE * card * slowness:
        return f"took {seconds:.1f} s; its card says {card:g} s, and {TOLERANCE * card:g} s would pass{here}"
    return None


def strict_times(args: argparse.Namespace) -> None:
    problems = []
    calibrate()  # the first one also starts PyTorch
    for chapter in find_chapters(args.book, args.chapter):
        card = card_of(chapter)
        before = calibrate()
        seconds = asyncio.run(run_chapter(chapter)).seconds
        slowness = max(before, calibrate()) / CALIBRATION
        print(f"{timing(chapter, seconds)}   calibration: {slowness:.2f}", flush=True)
        if problem := too_slow(seconds, card, slowness):
            problems.append(f"{chapter.name}: {problem}.")
    if problems:
        raise BookError("\n".join(problems))


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} came; a whole number from 1 is allowed")
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--book", type=Path, default=BOOK, help="the folder of the chapters (default: this one)"
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        summary, _, details = text.partition("\n")
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}. {details}")
        command.set_defaults(function=function)
        return command

    run = add(
        "execute",
        execute,
        "run the chapters that changed, into book/_build\n"
        "A chapter runs again when its text, or any file of gankit/, toy/ or figures/, differs from its last"
        " run on this machine. No committed file changes, and a failing cell leaves the last run in place.",
    )
    run.add_argument("--force", action="store_true", help="run even what has not changed")
    author = add(
        "chapter",
        write_chapters,
        "run chapters and write their committed notebooks\n"
        "For authors: the stored outputs are what readers see and what `make test` compares with. A failing"
        " cell leaves the old notebook in place.",
    )
    for command in (run, author):
        command.add_argument(
            "--jobs", type=positive, default=2, help="chapters at a time (default: 2, one for each core)"
        )
    copy = add(
        "copy",
        copy_for_work,
        "copy the chapters to work/, where a student may change them\n"
        "A chapter whose cells were changed there is kept; the others are brought up to date with the book.",
    )
    pair = add(
        "check",
        check,
        "check that every notebook agrees with its text, and that every chapter has its furniture\n"
        "CONTRIBUTING.md describes the furniture: card, sections, labels, exercises, captions.",
    )
    clock = add(
        "times",
        times,
        "print the time that each chapter took in the last `make test`, beside its card\n"
        "Machines differ, so nothing fails on its time, unless it took ten times its card's promise: a hang.",
    )
    strict = add(
        "strict-times",
        strict_times,
        "run each chapter alone and hold its time against its card\n"
        "For authors. A fixed piece of work before and after each chapter says how fast this machine is in that"
        " minute. It fails above 60 s, or above one and a half times the card's promise, at the speed of the"
        " machine that the cards speak of.",
    )
    pages = add(
        "site",
        site,
        "build the site from the committed notebooks, without running them; a warning is an error",
    )
    pages.add_argument(
        "--executed", action="store_true", help="from what `execute` ran on this machine instead"
    )
    for command in (run, author, copy, pair, clock, strict):
        command.add_argument(
            "chapter", nargs="*", help="a number or a name, as 4 or 04_dirac_gan (default: all)"
        )
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    args.book = args.book.resolve()
    try:
        args.function(args)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; the chapters that had finished are kept.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
