import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import gankit as gk
from gankit.recipes import operations, recipes
from gankit.recipes.recipe import Recipe


def mlp_recipe(**settings) -> Recipe:
    small = {"depth": 3, "z_dim": 5, "width": 7, "batch_size": 6, "steps": 10}
    return Recipe("mine", "").changed(small | settings)


def test_an_mlps_operations_are_those_of_its_matrices():
    """A product of [N, a] and [a, b] takes 2 N a b, and twice as many again for its gradients."""
    G, D = 5 * 7 + 7 * 7 + 7 * 64, 64 * 7 + 7 * 7 + 7 * 1
    n = 6
    # D's step: G forwards; D on both halves forwards, to its weights, and to its inputs but those of the first layer.
    d_step = 2 * n * G + 2 * 2 * n * (D + D + D - 64 * 7)
    # G's step: both forwards, D to its inputs, G to its weights and to its inputs but z.
    g_step = 2 * n * (G + D + D + G + G - 5 * 7)
    counted = operations.of_recipe(mlp_recipe())
    assert counted.step == d_step + g_step
    assert counted.total == 10 * counted.step
    assert operations.of_recipe(mlp_recipe(n_dis=3)).step == 3 * d_step + g_step
    assert operations.of_recipe(mlp_recipe(accumulate=2)).step == 2 * (d_step + g_step)
    leaky = operations.of_recipe(mlp_recipe(leak_beta=0.5, leak_start=4))
    assert leaky.total == counted.total + 6 * 0.5 * 2 * n * G


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("sngan", {"z_dim": 8, "width": 16}),
        ("biggan", {"z_dim": None, "width": 8}),
        ("biggan", {"z_dim": None, "width": 8, "leak_beta": 0.3}),  # one of four samples is the teacher's
        ("conv", {"depth": 3, "z_dim": 8, "width": 8}),
        ("conv", {"depth": 3, "z_dim": 8, "width": 8, "wgan_gp": 10.0, "loss": "wgan"}),
        ("conv", {"depth": 3, "z_dim": 8, "width": 8, "r1": 1.0}),
    ],
)
def test_the_count_is_that_of_a_real_step(model, settings):
    """Of the Trainer's own, on numbers; what it does beside the two gradients has no products."""
    recipe = mlp_recipe(
        **({"model": model, "data": "digits", "depth": None, "n_dis": 2, "batch_size": 4} | settings)
    )
    run = recipe.build(device="cpu")
    with operations._Operations() as counted:
        run.step()
    assert operations.of_recipe(recipe).step == counted.total
    assert counted.total > 0


def test_the_counter_agrees_with_pytorchs():
    G, D = gk.models.sngan((3, 32, 32), width=16)
    z = torch.randn(4, 128)

    def step():
        torch.autograd.grad(D(G(z)).sum(), list(G.parameters()))

    with FlopCounterMode(display=False) as theirs:
        step()
    with operations._Operations() as ours:
        step()
    assert ours.total == theirs.get_total_flops()


def test_hours_are_operations_over_the_stated_rate_and_never_less_than_the_launches():
    large, small = recipes["sngan-church128"], recipes["ns-digits"]
    counted = operations.of_recipe(large)
    assert counted.hours == pytest.approx(counted.total / operations.RATE / 3600)
    assert counted.hours > large.steps * 6 * operations.LAUNCH / 3600
    assert operations.of_recipe(small).hours == pytest.approx(small.steps * 2 * operations.LAUNCH / 3600)


def test_a_path_needs_a_size():
    with pytest.raises(ValueError, match="the size of the pictures in photos is not known: give size"):
        operations.of_recipe(mlp_recipe(data="photos"))
    assert operations.of_recipe(mlp_recipe(data="photos", size=16)).step > 0


def test_what_does_not_change_the_work_does_not_change_the_count():
    recipe = recipes["ns-mnist-conv4"]
    other = recipe.changed({"lr": 0.1, "loss": "mm", "ema_decay": 0.5, "name": "x"})
    assert operations.of_recipe(other) == operations.of_recipe(recipe)


def test_the_counts_that_are_listed_are_those_of_the_recipes():
    """If they are not: `python -m gankit.recipes.operations`."""
    assert json.loads(operations.COUNTS.read_text("utf-8")) == operations.counts()
