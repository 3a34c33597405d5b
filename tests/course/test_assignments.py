"""Every assignment's own graders: the right answer earns all, the empty one nothing, a wrong one loses what it must."""

import pytest

from course import graders, runner, source

TEXTS = sorted(source.ASSIGNMENTS.glob("[0-9][0-9]_*.md"))
EVERY_YEAR = [(path, year) for path in TEXTS for year in range(1, source.variants(path))]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_right_empty_and_wrong_answers(path):
    one = source.read(path)
    assert list(graders.problems(one)) == []
    assert 12 <= one.points <= 18
    assert 90 <= one.minutes <= 150
    assert len(one.wrong) >= 4
    assert any(test.hidden for test in one.tests)
    assert any(not test.hidden for test in one.tests)


@pytest.mark.full
@pytest.mark.parametrize(("path", "year"), EVERY_YEAR, ids=lambda value: getattr(value, "stem", value))
def test_right_empty_and_wrong_answers_of_the_other_years(path, year):
    assert list(graders.problems(source.read(path, year))) == []


@pytest.mark.full
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_experiments_run_with_the_right_answers(path):
    one = source.read(path)
    cells = [cell for cell in one.cells if cell.kind in ("given", "answer", "experiment")]
    outcomes = runner.run([runner.Step(cell.name, cell.source, cell.kind) for cell in cells], limit=300)
    assert {name: outcome.trace for name, outcome in outcomes.items() if not outcome.ok} == {}
    assert outcomes["experiment-1"].outputs
