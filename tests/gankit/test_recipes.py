import dataclasses
import inspect
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import gankit as gk
from gankit.data import DataError
from gankit.game.penalties import R1, ClipWeights, Dragan, Orthogonal, WganGP
from gankit.game.play import Every, d_gradient, g_gradient
from gankit.models.blocks import SelfAttention
from gankit.models.ensemble import StackedLinear
from gankit.models.growing import Growing
from gankit.models.r3gan import ResidualBlock
from gankit.recipes import MODELS, Networks, Recipe, conditional, from_dict, open_run, recipes, records
from gankit.recipes.records import differences

EMBEDDED = ("digits", "ring", "spiral")


def recipe(**changes: Any) -> Recipe:
    """A small recipe with changes, by their short names."""
    return Recipe("mine", "a recipe of a test").changed({"width": 8, "depth": 3, "z_dim": 4} | changes)


def build(of: Recipe, seeds: tuple[int, ...] = (0,)) -> gk.Trainer:
    return of.build(seeds, device="cpu")


def layer_sizes(net: nn.Module) -> list[int]:
    """Units of each layer, inputs first, of a plain network or an ensemble."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Linear | StackedLinear)]
    return [weights[0].shape[-1], *(w.shape[-2] for w in weights)]


# --- The named recipes ------------------------------------------------------------------------------------------


def test_the_table_has_each_paper_setting():
    settings = ("digits", "digits-saturating", "ring", "spiral", "mnist-fc4", "mnist-conv4", "cifar10-conv4")
    expected = {f"{loss}-{setting}" for loss in ("ns", "mm", "mm-nsat") for setting in settings}
    zoo = ("wgan", "wgan-gp", "ls", "hinge", "dragan", "began", "rpgan")
    expected |= {
        f"{cost}-{setting}" for cost in zoo for setting in ("digits", "ring", "mnist-conv4", "cifar10-conv4")
    }
    expected |= {"leakyema-digits", "incremental-biggan-cifar10"}
    expected |= {f"{family}-digits" for family in ("progan", "stylegan", "stylegan2")}
    expected |= {f"{name}-ffhq1024" for name in ("progan", "stylegan", "stylegan2")}
    expected |= {"stylegan2-ffhq1024-e", "stylegan-ffhq256", "stylegan2-ffhq256"}
    expected |= {"stylegan2-cifar10", "stylegan2-cifar10-conditional"}
    expected |= {
        f"{name}-{data}" for name in ("gp", "dragan", "sn", "ln", "bn", "l2") for data in ("mnist", "cifar10")
    }
    expected |= {"r3gan-cifar10"}
    both, four = ("ns", "mm-nsat"), ("ns", "mm-nsat", "hinge", "ls")
    large = {name: four for name in ("conv6-cat128", "dcgan-bn-sn-cat128", "conv4-sn-cifar10")}
    large |= {name: both for name in ("conv6-sn-cat128", "dcgan-attention-cat128", "sndcgan-cifar10")}
    large |= {f"conv{depth}-ffhq{2**depth}": both for depth in range(5, 10)}
    expected |= {f"{loss}-{name}" for name, losses in large.items() for loss in losses}
    expected |= {f"mm-nsat-stylegan-ffhq{side}" for side in (256, 1024)}
    sets = ("church128", "bedroom128", "ffhq128")
    rows = [f"sngan-{name}" for name in sets] + [
        f"wgangp-{name}{t}" for name in sets for t in ("", "-table5")
    ]
    rows += ["biggan-cifar10", "biggan-imagenet128"]
    expected |= {*rows, *(f"leakyema-{row}" for row in rows)}
    variants = ("80k", "120k", "140k", "async-noise", "generator", "most-realistic")
    expected |= {f"leakyema-sngan-church128-{variant}" for variant in variants}
    ways = ("projection", "cgan-concat", "acgan")
    expected |= {f"{way}-{data}" for way in ways for data in ("cifar10", "imagenet128", "digits", "mnist")}
    expected |= {"concat-digits", "concat-mnist"}
    expected |= {f"{way}-biggan-cifar10" for way in ("cr", "bcr", "icr", "ada")}
    expected |= {
        "cr-sngan-cifar10",
        "ada-cifar10",
        "biggan-cifar10-10percent",
        "diffaugment-cifar10-10percent",
    }
    expected |= {"few-digits", "diffaugment-few-digits", "ada-few-digits", "bcr-few-digits"}
    assert set(recipes) == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        # Section 4.1, appendix B and table 1.
        ("leakyema-sngan-church128", "hinge 250000 64 5 0.0002 0.0002 0.5 0.999 0.999 0.5 100000 0.0"),
        ("leakyema-sngan-church128-140k", "hinge 250000 64 5 0.0002 0.0002 0.5 0.999 0.999 0.5 140000 0.0"),
        ("sngan-ffhq128", "hinge 250000 64 5 0.0002 0.0002 0.5 0.999 0.999 0.0 0 0.0"),
        # Figures 5, 12 and 13.
        ("leakyema-sngan-bedroom128", "hinge 250000 64 5 0.0002 0.0002 0.5 0.999 0.999 0.5 80000 0.0"),
        ("leakyema-sngan-ffhq128", "hinge 250000 64 5 0.0002 0.0002 0.5 0.999 0.999 0.5 60000 0.0"),
        # Appendix B, and appendix D for table 5.
        ("leakyema-wgangp-bedroom128", "wgan 250000 64 5 0.0001 0.0001 0.5 0.9 0.999 0.25 80000 10.0"),
        ("wgangp-bedroom128-table5", "wgan 250000 64 5 0.0001 0.0001 0.0 0.9 0.999 0.0 0 10.0"),
        # Figure 8; the rest from the scripts of the authors' code.
        ("leakyema-biggan-imagenet128", "hinge 200000 256 1 0.0001 0.0004 0.0 0.999 0.9999 0.75 120000 0.0"),
        ("biggan-cifar10", "hinge 125000 50 4 0.0002 0.0002 0.0 0.999 0.9999 0.0 0 0.0"),
        # Section 5.
        ("projection-imagenet128", "hinge 450000 256 5 0.0002 0.0002 0.0 0.9 0.999 0.0 0 0.0"),
        ("incremental-biggan-cifar10", "hinge 100000 64 4 0.0002 0.0002 0.0 0.999 0.9999 0.0 0 0.0"),
        # Setting C of table 1 of Miyato et al. 2018; half its rate, figure 14's appendix says, elsewhere.
        ("mm-nsat-sndcgan-cifar10", "mm-nsat 390625 128 1 0.0002 0.0002 0.5 0.999 0.999 0.0 0 0.0"),
        ("ns-conv4-sn-cifar10", "ns 390625 128 1 0.0001 0.0001 0.5 0.999 0.999 0.0 0 0.0"),
        # 1,000 epochs of 70,000 pictures, figure 24.
        ("mm-nsat-conv9-ffhq512", "mm-nsat 546875 128 1 0.0001 0.0001 0.5 0.999 0.999 0.0 0 0.0"),
    ],
)
def test_recipes_have_the_papers_values(name, values):
    r = recipes[name]
    g, d, leak = r.g_optimizer, r.d_optimizer, r.leak or gk.Leak(0.0)
    penalty = sum(term.weight for term in r.d_terms)
    found = (
        r.loss, r.steps, r.batch_size, r.n_dis, g.lr, d.lr, g.beta1, g.beta2, r.ema.decay, leak.beta, leak.start,
        float(penalty),
    )  # fmt: skip
    assert " ".join(map(str, found)) == values


def test_a_row_with_a_leak_differs_from_the_row_it_is_compared_with_by_the_leak_alone():
    pairs = [name for name in recipes if f"leakyema-{name}" in recipes]
    assert len(pairs) == 11
    for name in pairs:
        leaky = recipes[f"leakyema-{name}"]
        assert leaky.leak.beta > 0
        assert set(differences(leaky, recipes[name])) == {"name", "about", "leak"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("biggan-cifar10", (4_304_387, 4_207_361)),
        ("biggan-imagenet128", (70_433_988, 87_982_370)),
        ("sngan-church128", (32_150_787, 29_017_857)),
        ("wgangp-ffhq128", (32_150_787, 29_017_857)),
        ("progan-ffhq1024", (23_079_115, 23_087_249)),
        ("stylegan-ffhq1024", (26_219_627, 23_087_249)),
        ("stylegan2-ffhq1024", (30_370_060, 29_012_513)),
        ("stylegan2-ffhq1024-e", (24_900_764, 24_038_161)),
        # Four stages of two blocks: 768 x 1536 twice, groups of 16 x 3 x 3 for each of 1536; and both ends.
        ("r3gan-cifar10", (8 * 2_584_320 + 12_288 * 65 + 3 * 769, 8 * 2_584_320 + 768 * 4 + 12_289)),
        ("stylegan2-ffhq256", (24_767_458, 24_001_089)),
        ("stylegan2-cifar10", (19_947_539, 20_720_641)),
        ("stylegan2-cifar10-conditional", (20_215_315, 23_089_664)),
        ("ns-sndcgan-cifar10", (3_813_379, 2_935_873)),
    ],
)
def test_recipes_have_the_papers_networks(name, parameters):
    shape, n_classes = gk.data.sample_shape(recipes[name].data, recipes[name].size)
    with torch.device("meta"):
        networks = recipes[name].networks(shape, 0, n_classes)
    assert tuple(sum(p.numel() for p in net.parameters()) for net in networks) == parameters


@pytest.mark.parametrize("name", list(recipes))
def test_a_recipe_is_known_by_its_name_and_survives_json(name):
    named = recipes[name]
    assert named.name == name
    assert named.about
    of_a_cost = next((loss for loss in ("ns", "mm-nsat", "mm") if name.startswith(f"{loss}-")), None)
    assert named.loss == (of_a_cost or named.loss)
    ours = "digits" in name or named in conditional.RECIPES
    assert named.paper or ours, "a recipe belongs to a paper, or is ours, on small data"
    stored = json.loads(json.dumps(named.stored((3, 1))))
    assert from_dict(stored) == (named, (3, 1))


def not_yet_grown(net: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of layers that a growing network does not use at its stage, and StyleGAN's constant, whose maps are
    flat at first: instance norm makes them 0."""
    for module in (m for m in net.modules() if isinstance(m, Growing)):
        stage, _ = module.now()
        for name in ("to_rgb", "from_rgb"):
            for i, layer in enumerate(getattr(module, name, ())):
                yield from layer.parameters() if i != stage else ()
        for block in module.blocks[stage:]:
            yield from block.parameters()
        if hasattr(module, "constant"):
            yield module.constant


@pytest.mark.parametrize("name", list(recipes))
def test_a_recipe_takes_a_step(name, monkeypatch):
    """At reduced width and with a leak from the start; otherwise as listed. Data that are missing are noise."""
    load = gk.data.load

    def load_or_make(of: str, **settings: Any) -> gk.data.Dataset:
        try:
            return load(of, **settings)
        except DataError:
            assert of not in EMBEDDED
            shape, _ = gk.data.sample_shape(recipes[name].data, recipes[name].size)
            generator = torch.Generator().manual_seed(0)
            images = torch.randint(0, 256, (20, *shape), generator=generator, dtype=torch.uint8)
            return gk.data.Dataset(of, images, torch.arange(20) % 10, tuple("0123456789"))

    monkeypatch.setattr(gk.data, "load", load_or_make)
    takes = inspect.signature(MODELS[recipes[name].networks.family]).parameters
    side = recipes[name].size or 0
    large = side >= 128
    narrow = recipes[name].changed(
        {
            "width": 1 if side > 128 else 8 if large else 16,
            "batch_size": 4 if large else 8,
            "accumulate": 1,
            "n_dis": 1,
        }
        | ({"networks.max_width": 8} if "max_width" in takes else {})
        | ({"leak_start": 0} if recipes[name].leak else {})
        | ({"subset": 12} if recipes[name].subset else {})
        # The hinge is silent where a narrow D happens to tell noise from noise before it learned anything.
        | ({"loss": "ns"} if name == "acgan-cifar10" else {})
        # An average over millions of images does not move by a float32 in one step.
        | ({"ema.half_life": 1e4} if name == "r3gan-cifar10" else {})
        # The non-saturating cost is silent where sums over a map make logits of a hundred and all are of one sign.
        | (
            {"loss": "wgan"}
            if name in [f"{one}-cifar10" for one in ("gp", "dragan", "ln", "bn", "l2")]
            else {}
        )
    )
    run = build(narrow)
    before = [p.detach().clone() for net in (run.G, run.D, run.teacher) for p in net.parameters()]
    stats = run.step()
    after = [p for net in (run.G, run.D, run.teacher) for p in net.parameters()]
    assert all(p.isfinite().all() for p in after)
    # Every weight matrix moved; a bias of a dead unit need not, nor what attention's gate of zero keeps shut.
    shut = {id(p) for net in (run.G, run.D, run.teacher) for layer in net.modules()
            if isinstance(layer, SelfAttention) for p in layer.parameters()}  # fmt: skip
    shut |= {id(p) for net in (run.G, run.D, run.teacher) for p in not_yet_grown(net)}
    # The last layer of such a block begins at zero, so that those before it learn from the second step on.
    shut |= {id(layer.weight) for net in (run.G, run.D, run.teacher) for block in net.modules()
             if isinstance(block, ResidualBlock) for layer in (block.widen, block.mix)}  # fmt: skip
    moved = [
        not torch.equal(b, a) for b, a in zip(before, after, strict=True) if a.ndim > 1 and id(a) not in shut
    ]
    assert all(moved)
    assert stats["g_loss"].isfinite()
    assert run.data.name == narrow.data


@pytest.mark.parametrize(
    ("setting", "g_sizes", "d_sizes", "batch_size", "beta1"),
    [
        ("ring", [8, 64, 64, 2], [2, 64, 64, 1], 64, 0.5),
        ("spiral", [8, 48, 48, 48, 2], [2, 48, 48, 48, 1], 64, 0.5),
        ("digits", [16, 64, 64, 64], [64, 64, 64, 64, 1], 32, 0.5),
        ("digits-saturating", [16, 48, 48, 48, 64], [64, 48, 48, 48, 1], 32, 0.9),
    ],
)
def test_quick_settings_have_the_networks_that_are_known_to_show_their_phenomenon(
    setting, g_sizes, d_sizes, batch_size, beta1
):
    for loss in ("ns", "mm", "mm-nsat"):
        named = recipes[f"{loss}-{setting}"]
        run = build(named)
        assert layer_sizes(run.G) == g_sizes
        assert layer_sizes(run.D) == d_sizes
        assert (named.batch_size, run.game.loss.name) == (batch_size, loss)
        assert [(o.beta1, o.beta2) for o in (named.g_optimizer, named.d_optimizer)] == [(beta1, 0.999)] * 2
        assert (named.n_dis, named.d_terms, named.leak) == (1, (), None)


def test_costs_of_one_setting_differ_in_nothing_but_the_cost():
    for name, named in recipes.items():
        if not name.startswith("mm-nsat-"):
            continue
        alike = [name.replace("mm-nsat", loss, 1) for loss in ("ns", "mm", "hinge", "ls")]
        alike = [recipes[one] for one in [*alike, name.removeprefix("mm-nsat-")] if one in recipes]
        assert alike[0].loss == "ns"
        for other in alike:
            assert (
                {"name", "about", "loss"}
                <= set(differences(named, other))
                <= {"name", "about", "loss", "paper"}
            )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mm-nsat-digit", "did you mean mm-nsat-digits"),
        ("leakyema-digit", "did you mean leakyema-digits"),
        ("qqq", "`gankit recipes` lists them"),
    ],
)
def test_an_unknown_name_lists_near_matches(name, hint):
    with pytest.raises(ValueError, match=f"recipe '{name}' is unknown; {hint}"):
        recipes[name]
    with pytest.raises(KeyError):
        recipes[name]
    assert name not in recipes


# --- From a recipe to a run -------------------------------------------------------------------------------------


def test_fields_reach_the_run():
    made = recipe(
        data="digits", loss="hinge", batch_size=7, n_dis=3, d_depth=4, ema_decay=0.75, leak_beta=0.5,
        leak_start=11, leak_source="generator", r1=2.0, wgan_gp=5.0, ema_start=9,
    )  # fmt: skip
    run = build(made)
    assert (run.game.loss.name, run.batch_size, run.n_dis) == ("hinge", 7, 3)
    assert layer_sizes(run.G) == [4, 8, 8, 64]
    assert layer_sizes(run.D) == [64, 8, 8, 8, 1]
    assert (run.teacher.alpha, run.teacher.start) == (0.75, 9)
    assert (run.game.leak.beta, run.game.leak.start, run.game.leak.source) == (0.5, 11, "generator")
    assert run.game.d_terms == (R1(2.0), WganGP(5.0))
    assert run.recipe == made.stored([0])
    assert from_dict(run.recipe) == (made, (0,))


@pytest.mark.parametrize(
    ("settings", "g", "d"),
    [
        ({"lr": 0.1}, gk.Adam(0.1, 0.5, 0.999), gk.Adam(0.1, 0.5, 0.999)),
        (
            {"lr": 0.1, "d_lr": 0.2, "beta1": 0.3, "beta2": 0.4, "d_beta2": 0.5},
            gk.Adam(0.1, 0.3, 0.4),
            gk.Adam(0.2, 0.3, 0.5),
        ),
        ({"d_lr": 0.2, "lr": 0.1}, gk.Adam(0.1), gk.Adam(0.2)),  # the order of changes does not matter
        ({"optimizer": "sgd", "lr": 0.1, "d_lr": 0.2}, gk.SGD(0.1), gk.SGD(0.2)),
        ({"d_optimizer": "sgd", "d_optimizer.momentum": 0.9}, gk.Adam(1e-3), gk.SGD(1e-3, 0.9)),
        ({"optimizer": "rmsprop", "lr": 0.1}, gk.RMSProp(0.1), gk.RMSProp(0.1)),
    ],
)
def test_each_network_has_its_optimiser(settings, g, d):
    made = recipe(**settings)
    assert (made.g_optimizer, made.d_optimizer) == (g, d)


CHANGES = {
    "data": "ring", "size": 6, "networks.family": "conv", "networks.z_dim": 5, "networks.depth": 2, "networks.width": 9,
    "networks.y_dim": 7, "networks.d_depth": 5, "networks.g_condition": "embedding",
    "networks.d_condition": "class-head", "loss": "mm", "batch_size": 3, "n_dis": 2, "accumulate": 2,
    "precision": "bfloat16", "g_optimizer": "sgd", "d_optimizer": "rmsprop", "g_optimizer.lr": 0.5,
    "g_optimizer.beta1": 0.25, "g_optimizer.beta2": 0.25, "g_optimizer.eps": 0.5, "g_optimizer.momentum": 0.5,
    "g_optimizer.decay": 0.5, "d_optimizer.lr": 0.5, "d_optimizer.beta1": 0.25, "d_optimizer.beta2": 0.25,
    "d_optimizer.eps": 0.5, "d_optimizer.momentum": 0.5, "d_optimizer.decay": 0.5, "ema.decay": 0.5,
    **{f"{player}_optimizer.schedule{field}": value for player in "gd" for field, value in (
        ("", "linear_decay"), (".end", 90), (".start", 9), (".last", 0.75))},
    "ema.half_life": 50.0, "ema.start": 3, "leak": None, "leak.beta": 0.25, "leak.start": 3, "leak.source": "generator",
    "leak.precision": "bfloat16", "d_terms.r1.gamma": 2.0, "d_terms.r2.gamma": 2.0,
    "d_terms.wgan_gp.weight": 2.0, "d_terms.dragan.weight": 2.0,
    "d_terms.dragan.spread": 0.25, "g_terms.orthogonal.weight": 2.0, "projections.clip_weights.limit": 0.5,
    "d_terms.learn_classes.weight": 2.0, "d_terms.learn_classes.fake": 0.5, "g_terms.show_classes.weight": 2.0,
    "d_terms.learn_classes.every": 2, "g_terms.show_classes.every": 2, "share_fakes": True,
    "d_terms.r1.every": 2, "d_terms.r2.every": 2,
    "d_terms.wgan_gp.every": 2, "d_terms.dragan.every": 2, "g_terms.orthogonal.every": 2,
    "rules.began_balance.gamma": 0.25, "rules.began_balance.rate": 0.5,
    "d_terms.drift.weight": 2.0, "d_terms.drift.every": 2, "g_terms.path_length.weight": 3.0,
    "g_terms.path_length.decay": 0.5, "g_terms.path_length.part": 0.25, "g_terms.path_length.every": 2,
    "rules.mean_path_length.decay": 0.75, "networks.w_dim": 6, "networks.mapping": 3, "networks.max_width": 5,
    "networks.group": 2, "networks.phase": 50, "networks.conditional": True, "networks.normalisation": "layer",
    "d_terms.l2.weight": 2.0, "d_terms.l2.every": 2,
    "subset": 150, "freeze_d": 1, "data_augment": "flips", "data_augment.p": 0.25, "augment": "ada",
    "augment.policy": "cutout", "augment.parts": "blit", "augment.steps": "turn", "augment.p": 0.25,
    "d_terms.cr.weight": 2.0, "d_terms.cr.steps": "cutout", "d_terms.cr.every": 2, "d_terms.bcr.real": 2.0,
    "d_terms.bcr.fake": 2.0, "d_terms.bcr.steps": "cutout", "d_terms.bcr.every": 2, "d_terms.zcr.weight": 2.0,
    "d_terms.zcr.sigma": 0.5, "d_terms.zcr.every": 2, "g_terms.diversity.weight": 2.0, "g_terms.diversity.sigma": 0.5,
    "g_terms.diversity.every": 2, "rules.adapt_p.target": 0.5, "rules.adapt_p.images": 70, "rules.adapt_p.interval": 2,
    "rules.adapt_p.start": 0.5,
}  # fmt: skip
"""Every field that reaches a trainer, and another value than the recipe's."""
NEEDS = {
    "size": {"data": "cats"}, "networks.family": {"d_depth": None},
    "networks.y_dim": {"model": "biggan", "depth": None, "d_depth": None},
    **{f"networks.{player}_condition": {"g_condition": "one-hot", "d_condition": "concat"} for player in "gd"},
    **{f"{player}_optimizer.{name}": {f"{player}_optimizer": kind} for player in "gd"
       for name, kind in (("momentum", "sgd"), ("decay", "rmsprop"))},
    **{f"{player}_optimizer.schedule{field}": {"schedule": "cosine_decay", "schedule_end": 80}
       for player in "gd" for field in ("", ".end", ".start", ".last")},
    "ema.half_life": {"ema.decay": None},
    **{f"networks.{name}": {"model": "stylegan", "depth": None, "d_depth": None} for name in (
        "w_dim", "mapping", "max_width", "group", "phase", "conditional"
    )},
    "augment.policy": {"augment": "diff_augment"}, "augment.parts": {"augment": "ada"},
    "augment.steps": {"augment": "chain"}, "augment.p": {"augment": "chain"}, "data_augment": {"flips": 0},
}  # fmt: skip
"""What a change goes with."""


@records.register("augment")
@dataclasses.dataclass(frozen=True)
class Shifted:
    """Samples, brighter.

    Attributes:
        by: so much.
    """

    by: float = 0.1

    def __call__(self, x, streams, states):
        return x + self.by


@records.register("rules")
@dataclasses.dataclass(frozen=True)
class Counted:
    """The number of steps."""

    def init(self, lead):
        return {"count": torch.zeros(lead)}

    def observe(self, play):
        return {}

    def update(self, states, seen):
        return {"count": states["count"] + 1}


def seen(run: gk.Trainer) -> dict[str, str]:
    """What a trainer is made of, in words."""
    optimisers = [
        (type(o).__name__, {k: v for k, v in o.param_groups[0].items() if k != "params"})
        for o in (run.g_opt, run.d_opt)
    ]
    known = {
        name: repr(getattr(run, name)) for name in ("game", "batch_size", "n_dis", "accumulate", "precision")
    }
    nets = [[(tuple(p.shape), p.requires_grad) for p in net.parameters()] for net in (run.G, run.D)]
    average = (run.teacher.alpha, run.teacher.start)
    return known | {
        "optimisers": repr(optimisers),
        "schedules": repr([schedule for _, schedule in run.schedules.values()]),
        "networks": repr(nets),
        "layers": f"{run.D}, {getattr(run.G, 'growth', None)}",
        "data": (run.data.name, len(run.data)),
        "ema": repr(average),
    }


def test_every_field_reaches_the_trainer(tmp_path, monkeypatch):
    from PIL import Image

    (tmp_path / "cats" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "cats" / "cat" / "0.png")
    monkeypatch.setenv("GANKIT_DATA", str(tmp_path))
    around = {"name", "about", "paper", "steps", "leak.model", "augment.by"}
    # A family of networks that figures registered in this process adds a choice between two kinds.
    assert set(CHANGES) | around == {f.name for f in records.fields(Recipe)} - {"networks"}
    full = {
        "d_depth": 4,
        "leak_beta": 0.5,
        "r1": 1.0,
        "d_terms.r2.gamma": 1.0,
        "wgan_gp": 1.0,
        "dragan": 1.0,
        "l2": 1.0,
        "orthogonal": 1.0,
        "learn_classes": 1.0,
        "show_classes": 1.0,
        "drift": 1.0,
        "path_length": 1.0,
        "mean_path_length": 0.5,
        "clip": 1.0,
        "cr": 1.0,
        "bcr": 1.0,
        "zcr": 1.0,
        "diversity": 1.0,
        "flips": 0.5,
        "adapt_p": 0.6,
        "rules.began_balance.gamma": 0.5,
    }
    for name, value in CHANGES.items():
        base = recipe(**full | NEEDS.get(name, {}))
        before, after = seen(build(base)), seen(build(base.changed({name: value})))
        differing = {part for part in before if before[part] != after[part]}
        assert differing, f"{name} reaches nothing"
    around = build(dataclasses.replace(recipe(), augment=Shifted(), rules=(Counted(),)))
    assert (around.game.augment, around.game.rules) == (Shifted(), (Counted(),))
    around.step()
    assert around.states["count"].item() == 1


@pytest.mark.parametrize(
    ("model", "sizes"),
    [("mlp", {}), ("conv", {}), ("dcgan", {"depth": None}), ("sngan", {"depth": None})],
)
def test_several_seeds_are_the_single_runs_side_by_side(model, sizes):
    made = recipe(model=model, batch_size=4, **sizes)
    seeds = (5, 2)
    together = build(made, seeds)
    assert together.seeds == seeds
    assert together.recipe["seeds"] == [5, 2]
    alone = [build(made, (seed,)) for seed in seeds]
    z, x = together.draw_latents()[0], together.draw_data()[0]
    for i, run in enumerate(alone):
        for net in ("G", "D"):
            mine, theirs = getattr(together, net).replica(i).state_dict(), getattr(run, net).state_dict()
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
        assert torch.equal(z[i], run.draw_latents()[0])
        assert torch.equal(x[i], run.draw_data()[0])
    assert not torch.equal(z[0], z[1])
    together.step()


def test_equal_seeds_are_paired():
    run = build(recipe(), (3, 3, 4))
    first, second, third = (nn.utils.parameters_to_vector(run.G.replica(i).parameters()) for i in range(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    x, _ = run.draw_data()
    assert torch.equal(x[0], x[1])
    assert not torch.equal(x[0], x[2])


def test_a_folder_of_pictures_is_resized(tmp_path):
    from PIL import Image

    (tmp_path / "cats").mkdir()
    Image.new("RGB", (12, 9), "red").save(tmp_path / "cats" / "0.png")
    run = build(recipe(data=str(tmp_path), size=6, batch_size=2))
    assert run.data.shape == (3, 6, 6)
    run.step()


# --- What is out of range ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: recipe(loss="nss"), "loss 'nss' is unknown; did you mean ns"),
        (lambda: recipe(model="vae"), "model must be one of mlp, conv, dcgan, sngan, wgan-gp, .*biggan, .*got 'vae'"),
        (lambda: recipe(optimizer="lion"), "g_optimizer must be one of adam, sgd, rmsprop, got 'lion'"),
        (lambda: recipe(model="dcgan"), "model 'dcgan' has no depth, got 3; --depth none unsets it"),
        (lambda: recipe(model="conv", d_depth=2), "model 'conv' has no d_depth, got 2; --d-depth none unsets it"),
        (lambda: recipe(lr=0.0), r"lr must lie in \(0, inf\), got 0"),
        (lambda: recipe(d_lr=float("nan")), r"lr must lie in \(0, inf\), got nan"),
        (lambda: recipe(beta1=1.0), r"beta1 must lie in \[0, 1\), got 1"),
        (lambda: recipe(d_beta2=-0.1), r"beta2 must lie in \[0, 1\), got -0.1"),
        (lambda: recipe(ema_decay=1.0), r"decay must lie in \[0, 1\), got 1"),
        (lambda: recipe(leak_beta=1.5), r"beta is the share .* \[0, 1\], got 1.5"),
        (lambda: recipe(leak_beta=0.5, leak_start=-1), "start must be a generator step of at least 0, got -1"),
        (lambda: recipe(leak_beta=0.5, leak_source="teacher"), "source must be one of sync, .*, got 'teacher'"),
        (lambda: recipe(r1=-1.0), "gamma is the penalty's strength"),
        (lambda: recipe(wgan_gp=float("inf")), "weight is the penalty's strength"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(make: Callable[[], Recipe], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("name", "value"),
    list(
        itertools.product(
            ("size", "z_dim", "depth", "width", "d_depth", "steps", "batch_size", "n_dis"), (0, -3)
        )
    ),
)
def test_sizes_and_counts_are_at_least_one(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        recipe(**{name: value})


@pytest.mark.parametrize("leak_beta", [0.0, 0.5])
@pytest.mark.parametrize("model", list(MODELS))
def test_every_model_takes_a_step(model, leak_beta):
    made = recipe(
        model=model, depth=None, width=8, z_dim=8, batch_size=4, n_dis=2, leak_beta=leak_beta, lr=0.01
    )
    run = build(made)

    def vector(net: nn.Module) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    before = [vector(net) for net in (run.G, run.D, run.teacher)]
    stats = run.step()
    for net, start in zip((run.G, run.D, run.teacher), before, strict=True):
        after = vector(net)
        assert after.isfinite().all()
        assert not torch.equal(after, start)
    assert stats["d_loss"].isfinite()
    assert stats["g_loss"].isfinite()
    assert run.G.z_dim == 8
    conditional = model in ("projection-gan", "sagan", "biggan-cifar", "biggan")
    assert getattr(run.G, "n_classes", 0) == getattr(run.D, "n_classes", 0) == (10 if conditional else 0)
    assert run.teacher.sample(3).shape == (3, 1, 8, 8)


def test_several_seeds_of_a_conditional_model_are_the_single_runs_side_by_side():
    made = recipe(model="biggan", depth=None, width=2, z_dim=6, batch_size=4, leak_beta=0.5)
    together = build(made, (5, 2))
    alone = build(made, (2,))
    for key, gradient in (("d_grad", d_gradient), ("g_grad", g_gradient)):
        net = key[0].upper()
        mine, theirs = (
            gradient(run.play(getattr(run, net)), list(getattr(run, net).parameters()))[key]
            for run in (together, alone)
        )
        largest = max(g.abs().max() for g in theirs)
        for ours, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(ours[1], other, rtol=1e-3, atol=1e-5 * float(largest))


def test_a_size_that_is_not_given_is_the_models_own():
    made = recipe(model="biggan", depth=None, z_dim=None, width=2)
    assert made.networks((3, 16, 16), 0, n_classes=4)[0].z_dim == 60


def test_a_conditional_model_needs_classes():
    with pytest.raises(
        ValueError, match="model 'sagan' learns classes and needs n_classes of at least 1, got 0"
    ):
        recipe(model="sagan", depth=None).networks((1, 8, 8), 0)


def test_a_recipe_is_a_value():
    assert recipe() == recipe()
    assert recipe(lr=0.5) != recipe()
    assert hash(recipe()) == hash(recipe())
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe().steps = 1


# --- Changes by name, and records as plain values -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"g_optimizer.lr": 0.5}, "g_optimizer", gk.Adam(0.5)),
        ({"networks.width": 5}, "networks", Networks("mlp", 4, 3, 5)),
        ({"networks": Networks("conv")}, "networks", Networks("conv")),
        ({"leak.beta": 0.5, "leak_start": 7}, "leak", gk.Leak(0.5, 7)),
        ({"leak": gk.Leak(0.25)}, "leak", gk.Leak(0.25)),
        ({"ema_start": 5}, "ema", gk.EMA(0.999, start=5)),
        ({"d_terms.r1.gamma": 2.0}, "d_terms", (R1(2.0),)),
        (
            {"dragan": 2.0, "r1": (1.0, 2.0)},
            "d_terms",
            (R1((1.0, 2.0)), Dragan(2.0)),
        ),  # in the order of the kinds
        ({"d_terms.dragan.spread": 0.25}, "d_terms", (Dragan(spread=0.25),)),
        ({"d_terms": (WganGP(3.0),)}, "d_terms", (WganGP(3.0),)),
        ({"orthogonal": 0.5}, "g_terms", (Orthogonal(0.5),)),
        ({"clip": 0.5}, "projections", (ClipWeights(0.5),)),
        ({"augment": "shifted", "augment.by": 0.5}, "augment", Shifted(0.5)),
        ({"augment": "shifted"}, "augment", Shifted(0.1)),
        ({"rules": (Counted(),)}, "rules", (Counted(),)),
        ({"r1": 2.0, "d_terms.r1.every": 16}, "d_terms", (Every(R1(2.0), 16),)),
    ],
)
def test_a_change_names_a_field_or_goes_by_a_short_name(changes, field, value):
    before = recipe()
    after = before.changed(changes)
    assert getattr(after, field) == value
    assert dataclasses.replace(after, **{field: getattr(before, field)}) == before
    assert from_dict(json.loads(json.dumps(records.plain(after) | {"seeds": [0]}))) == (after, (0,))


def test_a_strength_of_zero_removes_what_has_it():
    names = ("r1", "wgan_gp", "dragan", "orthogonal", "clip", "leak_beta")
    full = recipe(**dict.fromkeys(names, 0.5))
    assert full != recipe()
    assert full.changed(dict.fromkeys(names, 0)) == recipe()
    assert full.changed(dict.fromkeys(("d_terms", "g_terms", "projections", "leak"))) == recipe()
    assert full.changed({"wgan_gp": 0.0}).d_terms == (R1(0.5), Dragan(0.5))


def test_a_lazy_term_goes_by_its_own_name():
    lazy = dataclasses.replace(recipe(), d_terms=(Every(R1(1.0), 4),))
    assert lazy.changed({"r1": 2.0}).d_terms == (Every(R1(2.0), 4),)
    assert lazy.changed({"d_terms.r1.every": 1}).d_terms == (R1(1.0),)
    assert lazy.changed({"r1": 0}).d_terms == ()
    assert [records.value_at(lazy, f"d_terms.r1.{name}") for name in ("gamma", "every")] == [1.0, 4]
    with pytest.raises(ValueError, match="interval must be at least 1 generator step, got 0"):
        lazy.changed({"d_terms.r1.every": 0})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rate": 1}, "a recipe has no 'learning_rate'"),
        ({"lrr": 1}, "a recipe has no 'lrr'; did you mean lr"),
        ({"network.width": 1}, "did you mean networks.width"),
        ({"d_terms.r3.gamma": 1}, "did you mean d_terms.r2.gamma or d_terms.r1.gamma"),
        ({"leak_start": 3}, "leak is none, and a new one needs leak.beta"),
        ({"optimizer": "sgd", "beta1": 0.5}, "sgd has no beta1, it has lr, momentum"),
        ({"d_terms": R1(1.0)}, r"d_terms must be a tuple of records, got R1\(gamma=1.0\)"),
    ],
)
def test_a_change_that_says_nothing_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe().changed(changes)


@dataclasses.dataclass(frozen=True)
class Centred:
    """weight times the squared mean logit of real samples.

    Attributes:
        weight: strength of the pull, at least 0. More is said here.
        name: of the pull.
    """

    weight: float = 1.0
    name: str | None = None

    def __call__(self, play):
        return self.weight * play.real_verdict.logits.mean(-1).square()


@pytest.fixture
def centred():
    """A term that a user registers; forgotten after the test."""
    yield records.register("d_terms")(Centred)
    del records.KINDS["Centred"], records.PLACES["d_terms"]["centred"]


def test_a_term_of_a_user_is_stored_changed_and_trained_with(centred, tmp_path):
    made = recipe(centred=0.5, r1=1.0)
    assert made.d_terms == (R1(1.0), Centred(0.5))
    assert made.changed({"d_terms.centred.name": "x"}).d_terms[1] == Centred(0.5, "x")
    assert made.changed({"centred": 0}).d_terms == (R1(1.0),)
    assert from_dict(json.loads(json.dumps(records.plain(made) | {"seeds": [0]}))) == (made, (0,))
    run = build(made)
    run.fit(1, out=tmp_path, progress=False)
    plain = build(made.changed({"centred": 0})).fit(1, progress=False)
    assert not all(torch.equal(a, b) for a, b in zip(run.D.parameters(), plain.D.parameters(), strict=True))
    again = open_run(tmp_path, device="cpu")
    assert again.recipe == run.recipe
    assert all(torch.equal(a, b) for a, b in zip(run.D.parameters(), again.D.parameters(), strict=True))


def test_what_is_not_registered_cannot_be_stored_or_read():
    made = dataclasses.replace(recipe(), d_terms=(Centred(),))
    with pytest.raises(ValueError, match=r"registered records, got Centred\(weight=1.0"):
        records.plain(made)
    with pytest.raises(ValueError, match="record 'Ortogonal' is unknown; did you mean Orthogonal"):
        records.revived({"kind": "Ortogonal", "weight": 1.0})


def test_two_records_of_one_name_are_refused(centred):
    other = dataclasses.make_dataclass("R1", [("gamma", float)], frozen=True)
    with pytest.raises(ValueError, match=r"a record R1 is registered already, by gankit.game.penalties"):
        records.register("d_terms")(other)
    assert records.register("d_terms")(Centred) is Centred  # a cell of a notebook that is run again


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [(float, "1e-3", 1e-3), (int | None, "none", None), (float | tuple[float, ...], "2", 2.0), (str, "none", "none"),
     (bool, "false", False), (bool | None, "true", True)],
)  # fmt: skip
def test_a_text_is_read_as_its_fields_type(annotation, text, value):
    read = records.reader(annotation)(text)
    assert (type(read), read) == (type(value), value)
    assert records.reader(nn.Module | None) is None


def test_a_run_is_opened_at_any_checkpoint_and_without_its_pictures(tmp_path):
    from gankit.recipes.opening import find_checkpoint

    made = recipe(model="projection-gan", depth=None, batch_size=4)
    run = build(made, (1, 2)).fit(4, out=tmp_path, save_every=2, progress=False)
    assert open_run(tmp_path, device="cpu").steps == 4
    assert open_run(str(tmp_path), step=2, device="cpu").steps == 2
    blank = open_run(tmp_path, device="cpu", needs_data=False)
    assert (blank.data.name, blank.data.shape, blank.data.n_classes) == ("blank", (1, 8, 8), 10)
    assert torch.equal(blank.teacher.sample(3), run.teacher.sample(3))
    other = gk.data.load("digits", n=50)
    assert len(open_run(tmp_path, device="cpu", data=other).data) == 50
    with pytest.raises(gk.checkpoints.CheckpointError, match=r"must be one of 2, 4 of .*, got 3"):
        find_checkpoint(tmp_path, step=3)
