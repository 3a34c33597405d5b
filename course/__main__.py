"""The course kit's commands: `python -m course COMMAND`, or `make release A=05` and its like."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from course import graders, settings, source
from course.runner import LIMIT
from course.settings import COURSE, SettingsError
from course.source import SourceError


def assignments(args: argparse.Namespace) -> int:
    import nbformat

    from book import build
    from course import notebooks

    chosen = settings.load(args.settings)
    paths = sorted(source.ASSIGNMENTS.glob("[0-9][0-9]_*.md"))
    found = 0
    for path in paths:
        one = settings.assignment(path.stem[:2], chosen)
        for problem in graders.problems(one):
            print(problem)
            found += 1
        path = args.work / "solutions" / f"{one.name}.ipynb"
        notebook = notebooks.assignment_notebook(one, chosen, args.book, solutions=True)
        build.write_text(path, nbformat.writes(notebook) + "\n")
        print(f"{one.name}: the answers of the year were graded; {path}", flush=True)
    print(graders.table(paths, chosen.year))
    return 1 if found else 0


def release(args: argparse.Namespace) -> int:
    from course import nbgrading

    chosen = settings.load(args.settings)
    print(nbgrading.release(settings.assignment(args.assignment, chosen), chosen, args.work))
    return 0


def collect(args: argparse.Namespace) -> int:
    from course import nbgrading

    came = nbgrading.take_in(source.find(args.assignment).stem, args.handed_in, args.work)
    for one in came:
        print(f"{one.student}: {'collected' if one.notebook else 'NOT READ'}")
        for note in one.notes:
            print(f"    {note}")
    unread = sum(one.notebook is None for one in came)
    print(f"{len(came) - unread} collected, {unread} that nobody can grade until somebody looks at them")
    return 0


def grade(args: argparse.Namespace) -> int:
    from course import nbgrading

    name = source.find(args.assignment).stem
    rows, cost = nbgrading.grade(name, args.work, args.limit)
    for row in rows:
        print(f"{row.student:30} {'-' if row.points is None else f'{row.points:g} of {row.of:g}'}")
    print(f"{cost}; {args.work / 'grades' / name}.csv")
    return 0


def feedback(args: argparse.Namespace) -> int:
    from course import nbgrading

    one = settings.assignment(args.assignment, settings.load(args.settings))
    print(f"{len(nbgrading.feedback(one, args.work))} pages in {args.work / 'feedback'}")
    return 0


def course(args: argparse.Namespace) -> int:
    from course import handout

    paths = handout.course(settings.load(args.settings), args.work, args.book)
    print(f"{len(paths)} chapters in {args.work / 'chapters'}")
    return 0


def badges(args: argparse.Namespace) -> int:
    from book import build
    from course import handout

    readme = handout.ROOT / "README.md"
    build.write_text(readme, handout.with_badges(readme.read_text("utf-8"), handout.repository()))
    return 0


def slides(args: argparse.Namespace) -> int:
    from course import handout

    print(handout.slides(args.chapter, args.book))
    return 0


def pdf(args: argparse.Namespace) -> int:
    from course import handout

    print(handout.pdf(args.chapter, args.book))
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m course", description=__doc__)
    parser.add_argument("--settings", type=Path, default=COURSE / "course.toml", help="another course.toml")
    parser.add_argument(
        "--work", type=Path, default=COURSE / "work", help="where notebooks and grades are kept"
    )
    parser.add_argument("--book", type=Path, default=COURSE.parent / "book", help="folder of the chapters")
    commands = parser.add_subparsers(required=True, metavar="command")
    all_ = commands.add_parser(
        "assignments",
        help="grade each assignment's right, empty and wrong answers; write the solutions for lecturers",
    )
    all_.set_defaults(function=assignments)
    marks = commands.add_parser(
        "badges", help="write the README's badges for the repository that pyproject.toml names"
    )
    marks.set_defaults(function=badges)
    notebooks = commands.add_parser("course", help="make the students' notebooks of the chosen chapters")
    notebooks.set_defaults(function=course)
    for function, text in (
        (slides, "cut a chapter's built page into slides"),
        (pdf, "print a chapter's built page by a headless Chromium"),
    ):
        command = commands.add_parser(function.__name__, help=text)
        command.add_argument("chapter", help="its number or name, as 4 or 04_dirac_gan")
        command.set_defaults(function=function)
    for function, text in (
        (release, "make the students' notebook of an assignment"),
        (collect, "read what students handed in, whatever state it is in"),
        (grade, "grade all that was collected, and write a table"),
        (feedback, "write a page for each student, without hidden tests"),
    ):
        command = commands.add_parser(function.__name__, help=text)
        command.add_argument("assignment", help="its number or name, as 5 or 05_teachers")
        command.set_defaults(function=function)
        if function is grade:
            command.add_argument(
                "--limit", type=float, default=LIMIT, help="seconds for one cell (default: %(default)g)"
            )
        if function is collect:
            command.add_argument("handed_in", type=Path, metavar="FROM", help="Moodle's .zip, or a folder")
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = make_parser().parse_args(arguments)
    args.work, args.book = args.work.resolve(), args.book.resolve()
    try:
        return args.function(args)
    except ModuleNotFoundError as error:
        if error.name != "nbgrader":
            raise
        print('nbgrader is missing: pip install -e ".[course]" -c constraints.txt', file=sys.stderr)
    except (SourceError, SettingsError, FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
    except Exception as error:
        if type(error).__name__ not in ("GradingError", "HandoutError", "BookError"):
            raise
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
