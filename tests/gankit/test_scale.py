import pytest

from gankit.scale import current_scale, scale


def test_the_switch_is_read_when_a_value_is_asked_for(monkeypatch):
    monkeypatch.delenv("GANKIT_SCALE", raising=False)
    assert (current_scale(), scale(quick=600, full=50_000)) == ("quick", 600)
    monkeypatch.setenv("GANKIT_SCALE", "full")
    assert (current_scale(), scale(quick=600, full=50_000)) == ("full", 50_000)
    monkeypatch.setenv("GANKIT_SCALE", "quick")
    assert (current_scale(), scale(quick="a", full="b")) == ("quick", "a")


@pytest.mark.parametrize("value", ["", "FULL", "medium"])
def test_any_other_value_is_refused(monkeypatch, value):
    monkeypatch.setenv("GANKIT_SCALE", value)
    with pytest.raises(ValueError, match=f"GANKIT_SCALE must be quick or full, got '{value}'"):
        scale(quick=1, full=2)
