"""Grades an assignment's own answers: the right one, the empty one, and each typical wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course import runner, source
from course.source import Assignment


@dataclass(frozen=True)
class Marks:
    """What an answer earned: points of those there are, and how every test ended."""

    points: int
    of: int
    outcomes: dict[str, runner.Outcome]

    @property
    def lost(self) -> frozenset[str]:
        return frozenset(name for name, outcome in self.outcomes.items() if not outcome.ok)


def steps(assignment: Assignment) -> list[runner.Step]:
    """What a grader runs: everything but texts and experiments."""
    ran = ("given", "answer", "test")
    return [runner.Step(cell.name, cell.source, cell.kind) for cell in assignment.cells if cell.kind in ran]


def grade(assignment: Assignment, limit: float = runner.LIMIT) -> Marks:
    """The marks of an assignment with somebody's answers in it (see `Assignment.with_answers`)."""
    ended = runner.run(steps(assignment), limit)
    outcomes = {test.name: ended[test.name] for test in assignment.tests}
    earned = sum(test.points for test in assignment.tests if outcomes[test.name].ok)
    return Marks(earned, assignment.points, outcomes)


def problems(assignment: Assignment, limit: float = runner.LIMIT) -> Iterator[str]:
    """Whatever is wrong with an assignment's graders, a sentence each; none means that they can be trusted."""
    right = grade(assignment, limit)
    for name in sorted(right.lost):
        yield f"{assignment.name}: the right answer loses {name}: {right.outcomes[name].message or right.outcomes[name].error}"
    empty = grade(assignment.empty(), limit)
    for name in sorted(set(empty.outcomes) - empty.lost):
        yield f"{assignment.name}: the empty answer passes {name}"
    for wrong in assignment.wrong:
        marks = grade(assignment.with_answers({wrong.answer: wrong.source}), limit)
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
