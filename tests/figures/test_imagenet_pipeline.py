"""The pipeline of chapter 21: what it reads from logs, its stored result, and once all of it on tiny pictures."""

import base64
import io
import json
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from figures.book import cluster, imagenet_pipeline
from figures.book.imagenet_pipeline import attempts, rows_from
from figures.leakyema import fig09_truncation
from figures.provenance import RESULTS, load
from gankit.data.packs import BLOCK
from gankit.recipes import recipes
from tests.figures.stored import assert_drawn, assert_shaped_alike
from tools.pipeline import imagenet, watched
from tools.pipeline.imagenet import blocks_done, compare
from tools.pipeline.watched import difference, new_rows, repeated, rows_of, step_seconds

matplotlib.use("Agg")
NAME = "book/imagenet_pipeline"


def row(step: int, seconds: float = 0.0, cost: float = 1.0) -> dict:
    return {"step": step, "seconds": seconds, "d_loss": cost, "g_loss": -cost}


@pytest.fixture(scope="module")
def stored() -> dict:
    return load(NAME)


# --- Logs ---------------------------------------------------------------------------------------------------------


@given(kill=st.integers(1, 30), every=st.integers(1, 10), end=st.integers(1, 20))
def test_a_log_that_is_watched_across_a_kill_tells_what_was_done_twice(kill, every, end):
    resumed = kill // every * every
    first = [row(step) for step in range(1, kill + 1)]
    second = [row(step, seconds=1.0) for step in range(resumed + 1, kill + end + 1)]
    # As an observer meets the log: a row at a time, cut at the checkpoint, a row at a time again.
    states = [first[:i] for i in range(kill + 1)]
    states += [first[:resumed] + second[:i] for i in range(len(second) + 1)]
    written = [new for a, b in pairwise(states) for new in new_rows(a, b)]
    assert written == first + second
    assert repeated(written) == list(range(resumed + 1, kill + 1))
    if resumed < kill:
        assert attempts(written) == [first, second]
    assert difference(written) == 0


def test_rows_that_appear_between_two_looks_are_all_new():
    before = [row(1), row(2), row(3)]
    assert new_rows(before, [row(1), row(2, 9.0), row(3, 9.5)]) == [row(2, 9.0), row(3, 9.5)]
    assert new_rows(before, before) == []
    assert new_rows([], before) == before


def test_costs_of_a_repeated_step_are_compared_with_the_first_ones():
    assert difference([row(1, cost=2.0), row(2), row(1, cost=2.5)]) == 0.25
    assert difference([row(1, cost=0.0), row(1, cost=0.5)]) == 0.5
    assert difference([row(1, cost=1.0), row(2, cost=9.0)]) == 0


def test_step_times_do_not_reach_over_a_restart():
    log = [row(1, 10.0), row(2, 11.0), row(3, 12.0), row(3, 99.0), row(4, 102.0), row(5, 105.0)]
    assert step_seconds(log, 1, 5) == 2.0  # of 1, 1, 3, 3
    assert step_seconds(log, 3, 5) == 3.0
    assert step_seconds(log, 1, 3) == 1.0
    assert step_seconds(log, 7, 9) is None


def test_a_line_that_is_being_written_is_no_row(tmp_path):
    log = tmp_path / "log.jsonl"
    assert rows_of(log) == []
    log.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:9])
    assert rows_of(log) == [row(1)]


def test_blocks_of_a_pack_that_is_being_written(tmp_path):
    assert blocks_done(tmp_path) == (0, 0)
    (tmp_path / "pack").mkdir()
    np.save(tmp_path / "pack" / "images.npy", np.zeros((2 * BLOCK + 1, 1, 1, 1), dtype=np.uint8))
    (tmp_path / "done.jsonl").write_text('\n[0, "abc", {}]\n[256, "de')
    assert blocks_done(tmp_path) == (2, 3)


# --- Commands -----------------------------------------------------------------------------------------------------


def test_commands_are_written_as_one_would_type_them():
    data = Path("/somewhere/else/photos.zip")
    words = watched.in_words(watched.gankit("pack", data, "pack", "--size", 8), data)
    assert words == "gankit pack photos.zip pack --size 8"
    words = watched.in_words(watched.torchrun("train", "x"), data)
    assert words == "torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m gankit train x"


def test_a_command_is_timed_and_one_that_fails_says_why(tmp_path):
    ran, said = watched.done([sys.executable, "-c", "print(sum(range(2_000_000)))"], tmp_path)
    assert said.strip() == "1999999000000"
    assert ran["code"] == 0
    assert ran["cpu_seconds"] > 0
    assert ran["seconds"] > 0
    with pytest.raises(watched.Failed, match=r"ended with 3: no such picture"):
        watched.done([sys.executable, "-c", "print('no such picture'); raise SystemExit(3)"], tmp_path)


def test_a_log_is_watched_while_it_is_written(tmp_path):
    lines = "".join(
        f"print('{json.dumps(row(i, float(i)))}', file=f, flush=True); sleep(0.1); " for i in (1, 2, 3)
    )
    program = f"from time import sleep; f = open('log.jsonl', 'w'); {lines}"
    observer = watched.Observer(tmp_path / "log.jsonl")
    watched.done([sys.executable, "-c", program], tmp_path, meanwhile=observer)
    assert [seen["step"] for seen in observer.rows] == [1, 2, 3]
    at = [seen["at_s"] for seen in observer.rows]
    assert at == sorted(at)
    assert at[-1] - at[0] >= 0.1
    trace = watched.traced(observer.rows)
    again = rows_from(json.loads(json.dumps(trace)))
    assert [seen["d_loss"] for seen in again] == [1.0, 1.0, 1.0]
    assert observer.killed_s is None


def test_coarse_pictures_keep_means_and_compare_like_any_features():
    space = imagenet.coarse()
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = space(images)
    assert features.shape == (40, 3 * 8 * 8)
    torch.testing.assert_close(features.mean(1), images.mean((1, 2, 3)))
    same = compare(features, features, features)
    assert same == {"FD": pytest.approx(0, abs=1e-3), "precision": 1.0, "recall": 1.0}


# --- The stored result --------------------------------------------------------------------------------------------


def test_the_stored_pack_survived_its_kill(stored):
    pack, settings = stored["stages"]["pack"], stored["settings"]
    assert pack["parts"]["killed"]["code"] == -9
    assert all(part["code"] == 0 for name, part in pack["parts"].items() if name != "killed")
    assert 0 < pack["blocks_at_kill"] < pack["blocks"] == -(-pack["shape"][0] // BLOCK)
    assert pack["same_bytes"]
    assert pack["verified"]
    assert pack["shape"][1:] == [3, settings["size"], settings["size"]]
    assert pack["bytes"] >= np.prod(pack["shape"])
    assert set(pack["sha256"]) == {"images.npy", "labels.npy", "members.json", "pack.json"}


def test_the_stored_run_survived_its_kill_and_went_on_alone(stored):
    two, one, settings = stored["stages"]["two"], stored["stages"]["one"], stored["settings"]
    rows = rows_from(two["trace"])
    first, second = attempts(rows)
    assert first[-1]["step"] == two["killed_at_step"] >= settings["kill_at"]
    assert second[0]["step"] == two["resumed_from"] + 1
    assert two["resumed_from"] % settings["save_every"] == 0
    assert two["steps_done_twice"] == len(repeated(rows)) == two["killed_at_step"] - two["resumed_from"]
    assert two["difference_of_repeats"] == pytest.approx(difference(rows), abs=1e-4)
    at = two["trace"]["at_s"]
    assert at == sorted(at)
    assert at[len(first) - 1] - 0.5 < two["killed_s"] < at[len(first)]
    assert second[-1]["step"] == two["end"] == one["resumed_from"] == settings["steps"]
    alone = rows_from(one["trace"])
    assert [r["step"] for r in alone] == list(range(two["end"] + 1, one["end"] + 1))
    assert one["end"] == settings["steps"] + settings["more"]
    assert one["logged_once"]
    assert np.isfinite([[r["d_loss"], r["g_loss"]] for r in rows + alone]).all()


def test_the_stored_prediction_is_that_of_its_numbers(stored):
    speed, settings = stored["speed"], stored["settings"]
    counts, two = cluster.Counts(**speed["counts"]), cluster.Machine(**speed["machine"])
    plan = cluster.plan(counts, two, batch=settings["batch"], n_dis=stored["recipe"]["n_dis"])
    first = speed["phases"]["two processes"]
    assert first["step"]["predicted_s"] == pytest.approx(plan["step_s"], rel=1e-3)
    rows = rows_from(stored["stages"]["two"]["trace"])
    for name, clock in (("step", "seconds"), ("cpu", "cpu_s")):
        measured = step_seconds(rows, 1, settings["leak_start"], clock)
        assert first[name]["measured_s"] == pytest.approx(measured, rel=1e-3)
    # Counted from the networks' layers, and from the operators of real steps.
    assert speed["flops"] == pytest.approx(stored["operations"], rel=0.05)
    for phase in speed["phases"].values():
        for one in phase.values():
            assert one["ratio"] == pytest.approx(one["predicted_s"] / one["measured_s"], rel=2e-3)


def test_the_stored_scores_are_shares_and_the_pictures_can_be_opened(stored):
    for scores in stored["stages"]["evaluate"]["scores"].values():
        assert all(
            0 <= value <= 1 for name, value in scores.items() if name.startswith(("precision", "recall"))
        )
    for text in stored["stages"]["evaluate"]["samples"].values():
        assert Image.open(io.BytesIO(base64.b64decode(text))).size[0] <= 320
    sweep = stored["stages"]["sweep"]
    assert sweep["limits"] == list(fig09_truncation.LIMITS)
    assert all(len(sweep[key]) == len(sweep["limits"]) for key in ("FD", "precision", "recall"))
    # One picture of a class gives no precision inside it.
    assert all("at least 6 are needed" in found["refused"] for found in sweep["classes"].values())


def test_the_stored_result_says_nothing_of_the_machine_but_what_it_is(stored):
    text = (RESULTS / f"{NAME}.json").read_text(encoding="utf-8")
    assert len(text) < 200_000
    words = [command for one in stored["stages"].values() for command in one["commands"]]
    assert words
    assert not any(word.startswith("/") for command in words for word in command.split())
    assert stored["provenance"]["wall_time_s"] == pytest.approx(
        sum(part["seconds"] for one in stored["stages"].values() for part in one["parts"].values()), rel=1e-3
    )


def test_the_stored_commands_name_the_run_that_the_settings_describe(stored):
    (command,) = stored["stages"]["two"]["commands"]
    name, *words = command.partition("-m gankit train ")[2].split()
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert name == imagenet.RECIPE
    settings = stored["settings"]
    for flag in ("width", "steps", "leak-start", "save-every"):
        assert flags[f"--{flag}"] == str(settings[flag.replace("-", "_")])
    assert flags["--batch-size"] == str(settings["batch"])
    assert settings["width"] < stored["full"]["width"] == recipes[name].networks.width
    assert settings["batch"] < stored["full"]["batch"] == recipes[name].batch_size * recipes[name].accumulate
    # The same words, one number of steps later, on one process.
    (alone,) = stored["stages"]["one"]["commands"]
    assert alone.startswith(f"gankit train {name} ")
    assert f"--steps {settings['steps'] + settings['more']} " in alone


def test_the_figure_can_be_drawn(stored):
    assert_drawn(imagenet_pipeline.draw(stored))


# --- All of it ----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_whole_pipeline_on_noise(tmp_path, stored):
    rng = np.random.default_rng(0)
    archive = tmp_path / "noise.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for i in range(2 * BLOCK + 10):
            buffer = io.BytesIO()
            picture = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(picture).save(buffer, format="JPEG")
            file.writestr(f"train/class{i:03}/{i}.jpg", buffer.getvalue())
    tiny = {
        "data": str(archive), "folder": str(tmp_path / "work"), "size": 32, "width": 2, "batch": 8, "steps": 12,
        "more": 3, "save_every": 4, "kill_at": 6, "leak_start": 3, "n": 40, "classes": "1,2",
    }  # fmt: skip
    result = imagenet.compute(**tiny)
    assert_shaped_alike(result, stored)
    assert result["stages"]["two"]["resumed_from"] in (4, 8)
    assert result["stages"]["one"]["end"] == 15
    assert_drawn(imagenet_pipeline.draw(result))

    marks = {p: p.stat().st_mtime_ns for p in (tmp_path / "work").glob("stage-*.json")}
    again = imagenet.compute(**tiny)
    assert again["stages"] == result["stages"], "stages that are done are not done again"
    assert {p: p.stat().st_mtime_ns for p in marks} == marks
    with pytest.raises(ValueError, match="other settings"):
        imagenet.compute(**tiny | {"width": 3})
