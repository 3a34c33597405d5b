"""What came back from students: any file, in any state."""

import copy
import io
import json
import zipfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course import collect


def dumped(notebook: dict) -> bytes:
    return json.dumps(notebook).encode()


def by_id(notebook: nbformat.NotebookNode) -> dict[str, str]:
    return {cell.id: cell.source for cell in notebook.cells}


def test_right_answers_come_through_unchanged(released, answered) -> None:
    notebook, notes, _ = collect.best_reading(dumped(answered(released)), released)
    assert notes == []
    assert "softplus(-real_logits)" in by_id(notebook)["d-cost"]
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in released.cells]


def test_changed_deleted_and_doubled_tests_are_put_back(released, answered) -> None:
    damaged = answered(released)
    cells = damaged["cells"]
    for cell in cells:
        if cell["id"] == "d-cost-values":
            cell["source"] = "pass"
    cells[:] = [cell for cell in cells if cell["id"] != "g-costs-values"]
    cells.append(copy.deepcopy(next(cell for cell in cells if cell["id"] == "step-moves")))
    notebook, notes, _ = collect.best_reading(dumped(damaged), released)
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in released.cells]
    assert by_id(notebook)["d-cost-values"] == by_id(released)["d-cost-values"]
    assert notes == [
        "d-cost-values: changed, and put back",
        "g-costs-values: deleted, and put back",
        "step-moves: 2 cells; the last one that was filled in counts",
    ]


def test_cells_that_were_added_stay_where_they_were(released, answered) -> None:
    mine = answered(released)
    place = [cell["id"] for cell in mine["cells"]].index("d-cost")
    helper = {
        "cell_type": "code",
        "id": "q1",
        "metadata": {},
        "source": "def helper():\n    return 1",
        "outputs": [],
    }
    mine["cells"].insert(place, helper)
    notebook, _, _ = collect.best_reading(dumped(mine), released)
    ids = [cell.id for cell in notebook.cells]
    assert ids.index("added-1") < ids.index("d-cost")
    assert by_id(notebook)["added-1"] == helper["source"]
    nbformat.validate(notebook)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"cells": 3}', b'{"cells": [1, null]}', b"\xff\xfe", b"%PDF"]
)
def test_what_is_no_notebook_is_said_to_be_none(content: bytes, released) -> None:
    notebook, notes, _ = collect.best_reading(content, released)
    assert notebook is None
    assert len(notes) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["cells", "source", "id", "metadata", "nbgrader", "grade_id", "d-cost"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON, st.lists(JSON, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_json_stops_the_batch(released, anything, cells) -> None:
    for raw in (
        anything,
        {"cells": cells},
        {"cells": [{"cell_type": "code", "id": "d-cost", "source": anything}]},
    ):
        notebook, _, known = collect.best_reading(dumped(raw), released)
        assert (notebook is None) == (known == 0)
        if notebook is not None:
            nbformat.validate(notebook)


def test_moodles_archives_of_both_kinds_and_archives_in_archives(released, answered, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("deep/er/mine.ipynb", dumped(answered(released)))
    path = tmp_path / "moodle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Ann Lee_7_assignsubmission_file_/a.ipynb", dumped(answered(released)))
        archive.writestr("Bo Li_8_assignsubmission_file_b.ipynb", dumped(answered(released)))
        archive.writestr("Cy Ma_9_assignsubmission_file_/all.zip", inner.getvalue())
        archive.writestr("../../Dy_10_assignsubmission_file_/x.ipynb", b"never written outside")
    came = {one.student: one.notebook is not None for one in collect.collect(path, released)}
    assert came == {"Ann-Lee-7": True, "Bo-Li-8": True, "Cy-Ma-9": True} | {
        next(student for student in came if student not in ("Ann-Lee-7", "Bo-Li-8", "Cy-Ma-9")): False
    }
    assert all("/" not in student and "." not in student for student in came)


def test_the_fullest_of_several_notebooks_counts(released, answered, tmp_path: Path) -> None:
    (tmp_path / "zoe").mkdir()
    (tmp_path / "zoe" / "a_scratch.ipynb").write_bytes(dumped({"cells": answered(released)["cells"][:5]}))
    (tmp_path / "zoe" / "b_final.ipynb").write_bytes(dumped(answered(released)))
    [one] = collect.collect(tmp_path, released)
    assert one.notebook is not None
    assert "step" in by_id(one.notebook)
    assert any("holds more" in note for note in one.notes)


def test_names_become_folders() -> None:
    assert collect.folder_name("Žofia Müller-Ørsted_3") == "Zofia-Muller-rsted-3"
    assert collect.folder_name("../..") == "student-" + collect.folder_name("../..")[8:]
    assert collect.folder_name("李明") != collect.folder_name("李雷")


def test_a_source_that_is_none_is_named(tmp_path: Path, released) -> None:
    with pytest.raises(FileNotFoundError, match="FROM names"):
        collect.collect(tmp_path / "nothing.zip", released)
    (tmp_path / "x.zip").write_text("no archive")
    with pytest.raises(ValueError, match="neither"):
        collect.collect(tmp_path / "x.zip", released)
