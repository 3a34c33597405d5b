"""The plan of a large run: operations against those of training steps, the ring against a simulated one."""

import json

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import gankit as gk
from figures.book import cluster, cluster_check
from figures.book.cluster import Counts, Machine
from figures.provenance import load
from gankit.data import sample_shape
from gankit.recipes import operations, recipes

matplotlib.use("Agg")
torch.set_num_threads(1)

SOME = Counts(1_000_000, 2_000_000, 3e9, 4e9, 1e6, 2e6, 3072, g_norms=7)


def machine(devices: int = 8, per_node: int = 8) -> Machine:
    return Machine(devices, per_node, flops=1e12, link=1e10, network=1e9, latency=1e-5)


def test_a_step_of_the_plan_has_the_operations_of_a_training_step():
    run = cluster_check.trainer(width=8, batch=8)
    counts = cluster.count(run.G, run.D, cluster_check.SHAPE)
    with FlopCounterMode(display=False) as counter:
        run.step()
    planned = cluster.step_flops(counts, 8, run.n_dis)
    # The plan counts no gradient of the first layer's input and no power iteration.
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.parametrize("name", ["biggan-imagenet128", "leakyema-biggan-cifar10"])
def test_the_plan_predicts_what_the_recipe_counts(name):
    recipe = recipes[name].changed({"width": 16, "batch_size": 16, "accumulate": 1})
    if recipe.leak is not None:
        recipe = recipe.changed({"leak_start": 0})
    shape, n_classes = sample_shape(recipe.data, recipe.size)
    with FakeTensorMode():
        counts = cluster.count(*recipe.networks(shape, 0, n_classes), shape)
    planned = cluster.step_flops(
        counts, recipe.batch_size, recipe.n_dis, recipe.leak.beta if recipe.leak else 0.0
    )
    assert planned == pytest.approx(operations.of_recipe(recipe).step, rel=0.02)


def test_counts_need_no_numbers_and_do_not_depend_on_the_batch():
    shape = (3, 32, 32)
    real = cluster.count(*gk.models.sngan(shape, width=8, seed=0), shape)
    with FakeTensorMode():
        fake = cluster.count(*gk.models.sngan(shape, width=8, seed=0), shape)
    assert (fake.g_flops, fake.d_flops) == (real.g_flops, real.d_flops)
    assert (fake.g_parameters, fake.d_parameters) == (real.g_parameters, real.d_parameters)
    more = cluster.count(*gk.models.sngan(shape, width=8, seed=0), shape, batch=16)
    assert more.g_flops == real.g_flops
    # What is kept once for all images, such as spectrally normalised weights, weighs less in a larger batch.
    assert 0.5 * real.d_saved < more.d_saved <= real.d_saved


def test_kept_activations_of_known_networks():
    class Scaled(torch.nn.Linear):
        z_dim, n_classes = 6, 0

    class Scored(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x).relu().squeeze(-1)

    counts = cluster.count(Scaled(6, 5), Scored(5, 1), (5,))
    assert (counts.g_flops, counts.d_flops) == (2 * 6 * 5, 2 * 5)
    assert counts.g_saved == 4 * 6  # a linear layer keeps its input
    assert counts.d_saved == 4 * (5 + 1)  # and a ReLU its output


@given(n=st.integers(2, 9), size=st.integers(1, 40))
def test_bytes_on_the_ring_are_those_of_a_simulated_one(n, size):
    # Reduce-scatter and all-gather, chunk by chunk: each device passes one chunk on, 2 (n - 1) times.
    chunks = np.arange(n * n * size, dtype=float).reshape(n, n, size)  # [device, chunk, values]
    expected, sent = chunks.sum(0), 0
    for round_ in range(2 * (n - 1)):
        passing = [(device, (device - round_) % n) for device in range(n)]
        moved = [chunks[device, chunk].copy() for device, chunk in passing]
        for (device, chunk), values in zip(passing, moved, strict=True):
            neighbour = (device + 1) % n
            chunks[neighbour, chunk] = values if round_ >= n - 1 else chunks[neighbour, chunk] + values
        sent += size
    assert np.array_equal(chunks, np.broadcast_to(expected, chunks.shape))
    one = Machine(n, n, 1.0, link=1.0, network=1.0, latency=0.0)
    assert cluster.all_reduce_seconds(n * size, one) == pytest.approx(sent)


def test_a_single_device_exchanges_nothing_and_slow_wires_cost():
    assert cluster.all_reduce_seconds(1e9, machine(1)) == 0
    inside, across = (cluster.all_reduce_seconds(1e9, machine(n)) for n in (8, 16))
    # A second node adds 2 (1/2) of an eighth of the bytes at a tenth of the speed.
    assert across - inside == pytest.approx(1e9 / 8 / 1e9 + 2e-5)


@given(devices=st.sampled_from([1, 2, 4, 8, 16, 64]), beta=st.floats(0, 1))
def test_plans_scale_as_they_must(devices, beta):
    settings = {"batch": 256, "n_dis": 3, "beta": beta}
    one, many = (cluster.plan(SOME, machine(n), **settings) for n in (1, devices))
    assert many["compute_s"] == pytest.approx(one["compute_s"] / devices)
    assert many["activation_bytes"] == pytest.approx(one["activation_bytes"] / devices)
    assert many["state_bytes"] == one["state_bytes"] == 4 * (5 * 1_000_000 + 4 * 2_000_000)
    assert many["step_s"] == pytest.approx(many["compute_s"] + many["all_reduce_s"] + many["norm_s"])
    assert many["step_s"] >= one["step_s"] / devices
    assert many["norm_s"] == (3 + 2) * 7 * cluster.all_reduce_seconds(0, machine(devices))
    assert many["read_bytes_per_s"] == pytest.approx(many["images_per_s"] * 3072)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": 0}, "at least 1, got 0"),
        ({"devices": 12}, "whole nodes: got 12 devices, 8"),
        ({"flops": 0.0}, "flops must be positive, got 0.0"),
        ({"latency": -1.0}, "latency must be at least 0"),
    ],
)
def test_machines_that_cannot_be(change, message):
    good = {"devices": 8, "per_node": 8, "flops": 1.0, "link": 1.0, "network": 1.0, "latency": 0.0}
    with pytest.raises(ValueError, match=message):
        Machine(**(good | change))


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(ValueError, match="multiple of the 8 devices, got 12"):
        cluster.plan(SOME, machine(), batch=12, n_dis=1)


def test_parts_of_a_batch_cost_messages_and_save_memory():
    whole = cluster.plan(SOME, machine(), batch=256, n_dis=1)
    parts = cluster.plan(SOME, machine(), batch=32, n_dis=1, accumulate=8)
    assert parts["compute_s"] == pytest.approx(whole["compute_s"])
    assert parts["norm_s"] == pytest.approx(8 * whole["norm_s"])
    assert parts["all_reduce_s"] == whole["all_reduce_s"]  # gradients are added up before they are sent
    assert parts["activation_bytes"] == pytest.approx(whole["activation_bytes"] / 8)
    half = cluster.plan(SOME, machine(), batch=256, n_dis=1, precision="bfloat16")
    assert half["activation_bytes"] == pytest.approx(whole["activation_bytes"] / 2)
    assert half["state_bytes"] == whole["state_bytes"]
    with pytest.raises(ValueError, match="precision must be one of float32, tf32, bfloat16, got 'int8'"):
        cluster.plan(SOME, machine(), batch=256, n_dis=1, precision="int8")


def test_the_stored_plan_is_that_of_the_recipe_and_what_its_counts_give():
    stored = load("book/cluster")
    counts = Counts(**stored["counts"])
    assert (counts.g_parameters, counts.d_parameters) == (70_433_988, 87_982_370)
    recipe = recipes[stored["recipe"]["name"]]
    plain = ("name", "n_dis", "batch_size", "accumulate", "precision", "steps")
    said = {key: getattr(recipe, key) for key in plain}
    assert stored["recipe"] == said | {"leak_beta": recipe.leak.beta, "leak_start": recipe.leak.start}
    assert stored["starts"] == cluster.starts(recipe.name)
    for name, way in stored["starts"].items():
        assert way["batch"] * way["accumulate"] == recipe.batch_size * recipe.accumulate
        rest = {key: way[key] for key in ("batch", "accumulate", "precision")}
        settings = {"n_dis": recipe.n_dis, "beta": recipe.leak.beta}
        again = cluster.plan(counts, Machine(**stored["machines"][name]), **settings, **rest)
        assert stored["plans"][name] == pytest.approx(again, rel=1e-4)
    images = recipe.batch_size * recipe.accumulate
    assert stored["flops"]["before"] == pytest.approx(cluster.step_flops(counts, images, recipe.n_dis))
    # The same operations, counted one by one in a training step without numbers, and averaged over the run.
    whole = stored["flops"]["leaking"] * (recipe.steps - recipe.leak.start)
    whole += stored["flops"]["before"] * recipe.leak.start
    assert whole == pytest.approx(operations.of_recipe(recipe).total, rel=0.01)
    plt.close(cluster.draw(stored))


def test_the_published_time_is_within_what_the_cards_can_do():
    authors = load("book/cluster")["authors"]
    assert authors["step_s"] == pytest.approx(8.64)
    assert 0.25 < authors["share"] < 1
    assert authors["share"] == pytest.approx(authors["flops"] / 8 / 15.7e12 / 8.64, rel=1e-4)


def test_the_stored_check_predicts_within_a_third():
    stored = load("book/cluster_check")
    again = cluster.plan(
        Counts(**stored["counts"]),
        Machine(**stored["machine"]),
        batch=stored["batch"],
        n_dis=stored["n_dis"],
    )
    assert stored["predicted"] == pytest.approx(again, rel=1e-3)
    assert abs(stored["predicted"]["step_s"] / stored["together"]["step_s"] - 1) < 0.3
    plt.close(cluster_check.draw(stored))


def test_two_processes_measure_steps_and_messages():
    (together,) = cluster_check.measured((2,), 4, 4, 1)
    assert together["step_s"] > 0
    assert len(together["messages_s"]) == len(cluster_check.MESSAGES)
    assert all(seconds > 0 for seconds in together["messages_s"])
    json.dumps(together)
