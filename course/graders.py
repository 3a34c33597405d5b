"""Grades an assignment's own answers: the right one, the empty one, and each typical wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course import runner, source
from course.source import Assignment

PATIENT = 120.0  # seconds for a cell of answers that are known to end, on a machine however busy


@dataclass(frozen=True)
class Marks:
    """What an answer earned: points of those there are, and how every test ended."""

    points: int
    of: int
    outcomes: dict[str, runner.Outcome]

    @property
    def lost(self) -> frozenset[str]:
        return frozenset(name for name, outcome in self.outcomes.items() if not outcome.ok)


def steps(assignment: Assignment, since: str | None = None) -> list[runner.Step]:
    """What a grader runs: everything but texts and experiments; of the tests those below the answer `since`."""
    ran: list[runner.Step] = []
    tested = since is None
    for cell in assignment.cells:
        tested = tested or cell.name == since
        if cell.kind in ("given", "answer") or (cell.kind == "test" and tested):
            ran.append(runner.Step(cell.name, cell.source, cell.kind))
    return ran


def grade(assignment: Assignment, limit: float = runner.LIMIT, since: str | None = None) -> Marks:
    """The marks of an assignment with somebody's answers in it (see `Assignment.with_answers`).

    Args:
        assignment: with the answers to grade.
        limit: seconds for one cell.
        since: the first answer that differs from the right one; tests above it cannot see it, and are not run.
    """
    ended = runner.run(steps(assignment, since), limit)
    outcomes = {test.name: ended.get(test.name, runner.Outcome()) for test in assignment.tests}
    earned = sum(test.points for test in assignment.tests if outcomes[test.name].ok)
    return Marks(earned, assignment.points, outcomes)


def problems(assignment: Assignment, limit: float = PATIENT) -> Iterator[str]:
    """Whatever is wrong with an assignment's graders, a sentence each; none means that they can be trusted."""
    right = grade(assignment, limit)
    for name in sorted(right.lost):
        outcome = right.outcomes[name]
        yield f"{assignment.name}: the right answer loses {name}: {outcome.message or outcome.error}"
    empty = grade(assignment.empty(), limit)
    for name in sorted(set(empty.outcomes) - empty.lost):
        yield f"{assignment.name}: the empty answer passes {name}"
    for wrong in assignment.wrong:
        marks = grade(assignment.with_answers({wrong.answer: wrong.source}), limit, since=wrong.answer)
        if marks.lost != wrong.loses:
            yield (
                f"{assignment.name}: the wrong answer {wrong.title!r} must lose {sorted(wrong.loses)}, and loses "
                f"{sorted(marks.lost)}"
            )


def table(paths: list[Path], year: int = 0) -> str:
    """The assignments with their points, minutes, tests and wrong answers, as lines of text."""
    lines = [f"{'assignment':26} points  minutes  tests (hidden)  wrong answers  variants"]
    for path in paths:
        one = source.read(path, year)
        hidden = sum(test.hidden for test in one.tests)
        row = f"{one.points:6}  {one.minutes:7}  {len(one.tests):5} {f'({hidden})':8}  {len(one.wrong):13}"
        lines.append(f"{one.name:26} {row}  {source.variants(path):8}")
    return "\n".join(lines)
