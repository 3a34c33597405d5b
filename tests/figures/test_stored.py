import matplotlib
import matplotlib.pyplot as plt
import pytest

from tests.figures.stored import assert_drawn, assert_shaped_alike

matplotlib.use("Agg")
RESULT = {"steps": [1], "summary": {"ns": 1.0}, "provenance": {"seeds": [0]}}


def test_equal_shapes_pass() -> None:
    assert_shaped_alike(RESULT, {"steps": [1, 2], "summary": {"ns": 2.0}, "provenance": {"seeds": [0, 1]}})


@pytest.mark.parametrize("change", [{"more": 1}, {"summary": {"mm": 1.0}}, {"provenance": {}}])
def test_another_shape_is_noticed(change: dict) -> None:
    with pytest.raises(AssertionError):
        assert_shaped_alike(RESULT | change, RESULT)


def test_what_json_cannot_say_is_noticed() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        assert_shaped_alike(RESULT | {"steps": [float("inf")]}, RESULT)


def test_an_axis_needs_a_label_or_a_neighbour_that_has_one() -> None:
    figure, (_, lower) = plt.subplots(2, 1, sharex=True)
    with pytest.raises(AssertionError):
        assert_drawn(figure)
    lower.set_xlabel("step")
    assert_drawn(figure)
    with pytest.raises(AssertionError):
        assert_drawn(plt.figure())
