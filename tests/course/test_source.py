"""The format of assignments: what is refused, and what students get."""

from pathlib import Path

import pytest

from course import graders, source

HEAD = """---
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
assignment:
  chapters: [1]
  minutes: 90
  variants:
    - {n: 2}
    - {n: 3}
---

# Twice

Text.

<!-- BEGIN SOLUTION -->
For lecturers.
<!-- END SOLUTION -->

"""
ANSWER = """```{code-cell} ipython3
:answer: twice

def twice(x):
    ### BEGIN SOLUTION
    return <<n>> * x
    ### END SOLUTION
```

"""
TEST = """```{code-cell} ipython3
:test: twice-one
:points: 2
:about: one
:hidden: true

assert twice(1) == <<n>>
```

"""
WRONG = """```{code-cell} ipython3
:wrong: the same
:loses: [twice-one]

def twice(x):
    return x
```

"""


def write(folder: Path, text: str) -> Path:
    path = folder / "01_twice.md"
    path.write_text(text, "utf-8")
    return path


def test_a_small_assignment_is_read_and_graded(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + ANSWER + TEST + WRONG)
    assert source.variants(path) == 2
    one = source.read(path, 1, {"twice-one": 5})
    assert (one.points, one.minutes, one.title, one.variant) == (5, 90, "Twice", {"n": 3})
    assert "return 3 * x" in one.cells[1].source
    assert "raise NotImplementedError()" in one.empty().cells[1].source
    assert source.without_solution_text(one.cells[0].source) == "# Twice\n\nText."
    assert "For lecturers." in source.with_solution_text(one.cells[0].source)
    assert list(graders.problems(one)) == []


def test_graders_that_are_wrong_are_found(tmp_path: Path) -> None:
    blind = TEST.replace("assert twice(1) == <<n>>", "assert True")
    found = list(graders.problems(source.read(write(tmp_path, HEAD + ANSWER + blind + WRONG))))
    assert len(found) == 2
    assert "the empty answer passes twice-one" in found[0]
    assert "the wrong answer 'the same' must lose" in found[1]
    strict = TEST.replace("== <<n>>", "== 7")
    assert "the right answer loses twice-one" in next(
        graders.problems(source.read(write(tmp_path, HEAD + ANSWER + strict + WRONG)))
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD.replace("minutes: 90", "minutes: long") + ANSWER, "`minutes: 100`"),
        (HEAD + TEST, "comes after the answer"),
        (HEAD + ANSWER.replace("### END SOLUTION", ""), "### END SOLUTION"),
        (HEAD + ANSWER.replace("<<n>>", "<<m>>"), "<<m>> is no value"),
        (HEAD + ANSWER + TEST.replace("assert twice(1) == <<n>>", "twice(1) == 2"), "not in an expression"),
        (HEAD + ANSWER + TEST.replace(":points: 2", ":points: 0"), "a whole number from 1"),
        (HEAD + ANSWER + TEST + TEST, "two cells have the name twice-one"),
        (HEAD + ANSWER + TEST + WRONG.replace("[twice-one]", "[other]"), "must say `:loses:`"),
        (HEAD + ANSWER.replace(":answer:", ":anwser:"), "a code cell is one of"),
        (HEAD + ANSWER + TEST.replace(":about: one", ":about: one: two"), "01_twice.md"),
    ],
)
def test_mistakes_of_authors_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(source.SourceError, match=complaint.replace("[", r"\[").replace("(", r"\(")):
        source.read(write(tmp_path, text))


def test_an_unknown_assignment_lists_those_there_are() -> None:
    with pytest.raises(source.SourceError, match="no assignment '77'; there are 01_the_game"):
        source.find("77")
