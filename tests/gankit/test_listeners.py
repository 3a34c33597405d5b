"""What listens to a run hears every row, and does not change what it hears of."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import gankit as gk
from gankit.commands.train import DISTANCES  # noqa: F401  the command line imports all that listens
from gankit.training.listeners import Pictures, TensorBoard, is_due, numbers


def run_on(name="digits", seeds=(0,)):
    data = gk.data.load(name)
    make = lambda seed: gk.models.mlp(data.shape, z_dim=4, depth=2, width=8, seed=seed)  # noqa: E731
    G, D = make(seeds[0]) if len(seeds) == 1 else gk.pair(make, seeds)
    return gk.Trainer(G, D, data, batch_size=8, device="cpu")


def weights(run):
    return torch.cat([p.detach().flatten() for net in (run.G, run.D, run.teacher) for p in net.parameters()])


def test_a_listener_hears_every_row_that_is_logged(tmp_path):
    heard = []
    run = run_on().fit(
        7, out=tmp_path, log_every=3, listeners=[lambda run, row: heard.append(row)], progress=False
    )
    assert heard == run.history
    assert [row["step"] for row in heard] == [3, 6, 7]


def test_what_a_listener_raises_stops_the_run():
    def full(run, row):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        run_on().fit(3, listeners=[full], progress=False)


def test_numbers_of_a_row():
    row = {"step": 4, "d_loss": [1.0, 2.0], "seconds": 0.5, "FD": None, "classes": [[0.5, 0.5], [1.0, 0.0]]}
    assert numbers(row) == {"d_loss/0": 1.0, "d_loss/1": 2.0, "seconds": 0.5}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("name", ["digits", "ring"])
def test_pictures_are_drawn_when_due_and_leave_training_alone(tmp_path, name, seeds):
    listeners = [Pictures(tmp_path / "pictures", 4, n=6)]
    drawn = run_on(name, seeds).fit(9, log_every=3, listeners=listeners, progress=False)
    alone = run_on(name, seeds).fit(9, log_every=3, progress=False)
    assert torch.equal(weights(drawn), weights(alone))
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == ["samples-00000003.png", "samples-00000006.png", "samples-00000009.png"]
    with Image.open(tmp_path / "pictures" / files[-1]) as picture:
        assert picture.mode == "RGB"
        assert picture.width >= picture.height * len(seeds) * 0.8
        assert len(np.unique(np.asarray(picture))) > 2


@pytest.mark.parametrize(
    ("step", "last", "due"), [(3, None, True), (5, 3, True), (7, 5, False), (9, 7, True)]
)
def test_a_picture_is_due_at_the_first_row_from_a_multiple_on(step, last, due):
    assert is_due(step, 4 if step != 9 else 8, last) is due


@pytest.mark.parametrize("settings", [{"every": 0}, {"every": 5, "n": 0}])
def test_impossible_pictures_are_refused(tmp_path, settings):
    with pytest.raises(ValueError, match="every and n must be at least 1, got"):
        Pictures(tmp_path, **settings)


def test_tensorboard_reads_curves_and_pictures_and_a_resumed_run_goes_on_in_them(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the package tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = lambda: TensorBoard(tmp_path / "board", pictures_every=5, n=4)  # noqa: E731
    run_on().fit(6, out=tmp_path / "run", log_every=2, listeners=[board()], progress=False)
    again = run_on().load(gk.checkpoints.latest(tmp_path / "run"))
    again.fit(4, log_every=2, listeners=[board()], progress=False)
    found = EventAccumulator(str(tmp_path / "board")).Reload()
    read = {event.step: event.value for event in found.Scalars("d_loss")}
    expected = {row["step"]: row["d_loss"] for row in again.history}
    assert read == pytest.approx(expected)
    assert list(read) == [2, 4, 6, 8, 10]
    assert [event.step for event in found.Images("samples")] == [2, 6, 8, 10]


def test_a_missing_tensorboard_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "gankit\[tensorboard\]"'):
        TensorBoard(tmp_path)
