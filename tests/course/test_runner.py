"""The runner: nothing that a cell does costs more than the test that it belongs to."""

import pytest

from course import runner
from course.runner import Step, run


def ended(*cells: tuple[str, str, str], limit: float = 20.0) -> dict[str, str]:
    """How each cell ended, "" where it was well; cells are (name, kind, source)."""
    outcomes = run([Step(name, source, kind) for name, kind, source in cells], limit)
    return {name: outcome.error for name, outcome in outcomes.items()}


def test_a_loop_with_a_bare_except_is_killed_and_the_others_run():
    loop = "while True:\n    try:\n        pass\n    except:\n        pass"
    assert ended(
        ("loop", "answer", loop),
        ("f", "answer", f"def f():\n    {loop.replace(chr(10), chr(10) + '    ')}\ng = 1"),
        ("hangs", "test", "f()"),
        ("passes", "test", "assert g == 1"),
        limit=1.5,
    ) == {"loop": "Timeout", "f": "", "hangs": "Timeout", "passes": ""}


def test_ending_the_interpreter_ends_one_cell():
    assert ended(
        ("exit", "answer", "exit()"),
        ("sys", "answer", "import sys\nsys.exit(0)"),
        ("hard", "other", "import os\nos._exit(0)"),
        ("f", "answer", "import os\ndef f():\n    os._exit(0)"),
        ("dies", "test", "f()"),
        ("after", "test", "assert f"),
    ) == {"exit": "Exit", "sys": "Exit", "hard": "Exit", "f": "", "dies": "Exit", "after": ""}


def test_the_peak_is_that_of_the_largest_notebook():
    ended(("big", "other", "b = bytes(3 * 10**8)\nb = b + b"))
    assert 6e8 < runner.peak() < 6e9


def test_too_much_memory_is_an_error_of_that_cell():
    assert ended(("big", "answer", "b = bytearray(2**36)"), ("small", "test", "assert 1")) == {
        "big": "MemoryError",
        "small": "",
    }


def test_what_a_test_prints_does_not_count():
    noisy = "import sys, warnings\nwarnings.warn('!')\nprint('!', file=sys.stderr)\nassert True"
    outcome = run([Step("noisy", noisy, "test")])["noisy"]
    assert outcome.ok
    assert outcome.outputs == []


def test_tests_see_pythons_own_functions_and_the_given_names():
    cheat = "abs = lambda x: 0\nhelp_ = 3\nAssertionError = ValueError\ndef f(x):\n    return abs(x) + 1"
    assert ended(
        ("given", "given", "import math\nhelp_ = 2"),
        ("cheat", "answer", cheat),
        ("own", "test", "assert f(-5) == 1"),
        ("ours", "test", "assert abs(-5) == 5\nassert help_ == 2"),
        ("false", "test", "assert abs(-5) == 0"),
    ) == {"given": "", "cheat": "", "own": "", "ours": "", "false": "AssertionError"}


@pytest.mark.full
def test_asserts_are_not_stripped_where_python_strips_them(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    runner._server.cache_clear()
    assert ended(("false", "test", "assert False")) == {"false": "AssertionError"}
    runner._server.cache_clear()


def test_a_test_leaves_nothing_behind():
    assert ended(
        ("list", "answer", "xs = []"),
        ("fills", "test", "xs.append(1)\ny = 1\nassert xs"),
        ("empty", "test", "assert not xs\nassert 'y' not in globals()"),
        ("false", "test", "assert False"),
    ) == {"list": "", "fills": "", "empty": "", "false": "AssertionError"}


def test_magics_and_input_do_nothing():
    assert (
        ended(
            ("magic", "other", "%matplotlib inline\n!pip install nothing\nx = 1"),
            ("x", "test", "assert x == 1"),
        )["x"]
        == ""
    )
    assert ended(("asks", "answer", "name = input()"), ("next", "test", "assert True")) == {
        "asks": "EOFError",
        "next": "",
    }


def test_what_a_cell_shows_is_kept():
    source = "import matplotlib.pyplot as plt\nprint('text')\nplt.plot([1, 2])\nplt.show()\n1 + 1"
    kinds = [output["output_type"] for output in run([Step("a", source)])["a"].outputs]
    assert kinds == ["stream", "execute_result", "display_data"]


def test_a_traceback_names_the_students_lines_alone():
    outcome = run([Step("f", "def f():\n    return 1 / 0", "answer"), Step("t", "f()", "test")])["t"]
    assert outcome.error == "ZeroDivisionError"
    assert "f, line 2, in f" in outcome.trace
    assert "runner.py" not in outcome.trace
