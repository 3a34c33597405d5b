"""What training computes, bit for bit: hashes of all networks after 30 steps, in 65 settings.

They were recorded before the package was taken apart into rooms and the step into plays, and hold since; that of batch
norm on two processes was recorded again when PyTorch's kernels took the place of sums by hand. Bits depend on
the processor's instructions and on PyTorch's version, so on another machine than theirs these tests are skipped;
`python tests/gankit/test_bits.py FILE` records them anew, for a comparison before and after a change.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gankit as gk
from gankit import penalties, processes
from gankit.recipes import MODELS, recipes
from gankit.training import optimisers

STEPS = 30

# --- Settings, as plain data ------------------------------------------------------------------------------------

MLP = {"z_dim": 8, "depth": 3, "width": 16}
DEFAULTS: dict[str, Any] = {
    "data": "digits", "model": "mlp", "sizes": MLP, "seeds": 0, "batch_size": 8, "loss": "ns", "n_dis": 1,
    "accumulate": 1, "precision": "float32", "g_optimizer": {"Adam": {"lr": 1e-3}},
    "d_optimizer": {"Adam": {"lr": 2e-3}}, "ema": {"decay": 0.9}, "leak": None, "penalties": {}, "g_penalties": {},
    "projections": {},
}  # fmt: skip
"""`seeds` is a number for a plain run and a list for an ensemble."""
CONV28 = {"data": "noise28", "model": "conv", "sizes": {"z_dim": 8, "depth": 3, "width": 4}}
DCGAN32 = {"data": "noise32", "model": "dcgan", "sizes": {"z_dim": 8, "width": 4}}
SNGAN = {"model": "sngan", "sizes": {"z_dim": 8, "width": 8}}
SNGAN32 = {"data": "noise32", **SNGAN}
BIGGAN8 = {"model": "biggan", "sizes": {"z_dim": 6, "width": 2, "y_dim": 6}}
LEAK = {"beta": 0.5, "start": 10}
SGD = {"g_optimizer": {"SGD": {"lr": 0.05}}, "d_optimizer": {"SGD": {"lr": 0.05}}}

SETTINGS: dict[str, dict[str, Any]] = {
    # costs
    **{
        loss: {"loss": loss}
        for loss in (
            "ns", "mm", "mm-nsat", "mm-unit", "ns-unit", "ns+mm(0.5)", "ns+mm-nsat(0.3)", "ns-add-0.1",
            "mm-nsat-add-1", "ns-exp-2", "mm-nsat-exp-2", "ns-exp-0.5", "mm-nsat-exp-0.5", "ls", "hinge",
        )
    },
    "wgan, clipped weights, RMSProp": {
        "loss": "wgan", "projections": {"ClipWeights": {"limit": 0.05}},
        "g_optimizer": {"RMSProp": {"lr": 1e-3}}, "d_optimizer": {"RMSProp": {"lr": 1e-3}},
    },
    "ring": {"data": "ring", "loss": "mm-nsat"},
    # leaks
    **{
        f"leak {source}": {"loss": "mm-nsat", "leak": LEAK | {"source": source}}
        for source in ("sync", "async-noise", "generator", "most-realistic")
    },
    "leak async-model": {"leak": LEAK | {"source": "async-model", "model": 99}},  # seed of the fixed generator
    "leak, half-life, average from step 5": {
        "leak": {"beta": 0.25, "start": 7}, "ema": {"half_life": 40.0, "start": 5}, "n_dis": 2,
    },
    "leak in bfloat16": CONV28 | {"leak": LEAK | {"precision": "bfloat16"}},
    # penalties and projections
    "R1": {"penalties": {"R1": {"gamma": 0.5}}},
    "WGAN-GP": {"loss": "wgan", "n_dis": 2, "penalties": {"WganGP": {"weight": 10.0}}},
    "DRAGAN": {"penalties": {"Dragan": {"weight": 10.0, "spread": 0.5}}},
    "orthogonal": {"g_penalties": {"Orthogonal": {"weight": 1e-2}}},
    "R1 and WGAN-GP and a leak": {
        "loss": "mm-nsat", "leak": LEAK, "penalties": {"WganGP": {"weight": 1.0}, "R1": {"gamma": 0.1}},
    },
    # networks
    "conv": CONV28,
    "dcgan, batch norm in D": DCGAN32 | {"loss": "mm-nsat", "leak": LEAK, "n_dis": 2},
    "sngan": SNGAN32 | {"loss": "hinge", "n_dis": 2},
    "sngan, leak most-realistic": SNGAN | {"leak": LEAK | {"source": "most-realistic"}},
    "wgan-gp": {
        "data": "noise32", "model": "wgan-gp", "sizes": {"z_dim": 8, "width": 4}, "loss": "wgan",
        "penalties": {"WganGP": {"weight": 10.0}},
    },
    "projection-gan": {
        "data": "noise32", "model": "projection-gan", "sizes": {"z_dim": 8, "width": 4}, "loss": "hinge",
        "penalties": {"R1": {"gamma": 0.1}}, "leak": LEAK,
    },
    "sagan": {
        "data": "noise32", "model": "sagan", "sizes": {"z_dim": 8, "width": 8}, "loss": "hinge",
        "leak": LEAK | {"source": "async-noise"},
    },
    "biggan-cifar": {
        "data": "noise32", "model": "biggan-cifar", "sizes": {"z_dim": 8, "width": 2}, "loss": "hinge",
        "g_penalties": {"Orthogonal": {"weight": 1e-3}},
    },
    "biggan": BIGGAN8 | {
        "loss": "hinge", "leak": LEAK | {"source": "most-realistic"},
        "g_penalties": {"Orthogonal": {"weight": 1e-3}}, "accumulate": 2,
        "g_optimizer": {"Adam": {"lr": 1e-3, "beta1": 0.0, "eps": 1e-6}},
        "d_optimizer": {"Adam": {"lr": 2e-3, "beta1": 0.0, "beta2": 0.99}},
    },
    # ensembles
    "ensemble": {"seeds": [3, 8, 1], "loss": "mm-nsat", "leak": LEAK, "penalties": {"R1": {"gamma": 0.1}}},
    "ensemble, everything per replica": {
        "seeds": [0, 0, 1, 2], "loss": ["mm-nsat", "ns", "mm-unit", "mm-nsat"],
        "g_optimizer": {"Adam": {"lr": (1e-3, 1e-3, 2e-3, 1e-3), "beta1": (0.5, 0.5, 0.0, 0.9), "beta2": 0.99}},
        "d_optimizer": {"Adam": {"lr": 1e-3, "beta1": 0.5, "beta2": (0.999, 0.9, 0.9, 0.99)}},
        "penalties": {"R1": {"gamma": (0.0, 0.1, 1.0, 0.5)}},
        "leak": {"beta": (0.5, 0.25, 0.0, 0.75), "start": (5, 10, 0, 12)},
    },
    "ensemble, every kind of penalty": {
        "seeds": [4, 2], "loss": ["ns-exp-0.5", "ls"], "n_dis": 2, "accumulate": 2,
        "penalties": {"WganGP": {"weight": 1.0}, "Dragan": {"weight": 1.0}},
        "g_penalties": {"Orthogonal": {"weight": 1e-2}}, "projections": {"ClipWeights": {"limit": 0.3}},
        "leak": LEAK | {"source": "most-realistic"},
        "g_optimizer": {"SGD": {"lr": 0.05, "momentum": 0.5}}, "d_optimizer": {"RMSProp": {"lr": 1e-3}},
    },
    "ensemble of conv": CONV28 | {
        "seeds": [0, 1], "loss": ["mm-nsat", "ns"], "penalties": {"R1": {"gamma": (0.1, 1.0)}},
        "leak": {"beta": (0.5, 0.25), "start": 10, "source": "async-noise"},
    },
    "ensemble of dcgan": {
        "model": "dcgan", "sizes": {"z_dim": 8, "width": 4}, "seeds": [0, 1], "loss": "mm-nsat",
        "leak": LEAK | {"source": "generator"},
    },
    "ensemble of biggan": BIGGAN8 | {
        "seeds": [0, 1], "loss": "hinge", "g_penalties": {"Orthogonal": {"weight": 1e-3}}, "leak": LEAK,
    },
    # the step itself
    "accumulate 2": {"loss": "mm-nsat", "accumulate": 2, "leak": LEAK},
    "n_dis 3": {"loss": "hinge", "n_dis": 3},
    "SGD with momentum": {
        "g_optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9}}, "d_optimizer": {"SGD": {"lr": 0.05, "momentum": 0.5}},
    },
    "bfloat16": {
        "precision": "bfloat16", "loss": "mm-nsat", "leak": LEAK, "penalties": {"WganGP": {"weight": 1.0}},
    },
    "bfloat16 sngan": SNGAN32 | {"precision": "bfloat16", "loss": "hinge", "penalties": {"R1": {"gamma": 0.1}}},
}  # fmt: skip

RECIPES: dict[str, dict[str, Any]] = {
    "recipe mm-nsat-digits": {"recipe": "mm-nsat-digits", "seeds": [0, 1, 2]},
    "recipe ns-spiral": {"recipe": "ns-spiral"},
    "recipe mm-digits-saturating": {"recipe": "mm-digits-saturating"},
    "recipe leakyema-digits": {"recipe": "leakyema-digits", "change": {"leak_start": 10, "ema_decay": 0.9}},
    "recipe mm-nsat-mnist-conv4": {
        "recipe": "mm-nsat-mnist-conv4", "data": "noise28", "change": {"width": 4, "batch_size": 8, "r1": 0.1},
    },
    "recipe leakyema-sngan-church128": {
        "recipe": "leakyema-sngan-church128", "data": "noise32",
        "change": {"width": 8, "z_dim": 8, "batch_size": 8, "n_dis": 2, "leak_start": 10},
    },
    "recipe leakyema-wgangp-bedroom128-table5": {
        "recipe": "leakyema-wgangp-bedroom128-table5",
        "change": {"width": 8, "z_dim": 8, "batch_size": 8, "n_dis": 2, "leak_start": 10},
    },
    "recipe leakyema-biggan-cifar10": {
        "recipe": "leakyema-biggan-cifar10",
        "change": {"width": 2, "z_dim": 8, "batch_size": 8, "n_dis": 2, "leak_start": 10, "ema_start": 5},
    },
    "recipe incremental-biggan-cifar10": {
        "recipe": "incremental-biggan-cifar10",
        "change": {"width": 2, "z_dim": 6, "y_dim": 6, "batch_size": 8, "n_dis": 2, "ema_start": 5, "ema_decay": 0.9},
    },
    "recipe leakyema-biggan-imagenet128": {
        "recipe": "leakyema-biggan-imagenet128",
        "change": {
            "width": 2, "z_dim": 6, "y_dim": 6, "batch_size": 8, "accumulate": 2, "leak_start": 10, "ema_start": 5,
        },
    },
    "recipe ns-digits with every number changed": {
        "recipe": "ns-digits",
        "change": {
            "loss": "wgan", "optimizer": "rmsprop", "lr": 1e-3, "d_lr": 2e-3, "clip": 0.1, "dragan": 1.0, "r1": 0.1,
            "wgan_gp": 0.5, "orthogonal": 1e-3, "width": 16, "batch_size": 8, "n_dis": 2, "leak_beta": 0.25,
            "leak_source": "generator", "ema_decay": 0.8,
        },
    },
}  # fmt: skip
"""A named recipe with some fields changed, on the data of that name here (`digits` unless given)."""

TOGETHER: dict[str, dict[str, Any]] = {
    "two processes, mm-nsat and a leak": SGD | {"loss": "mm-nsat", "leak": LEAK, "batch_size": 16},
    "two processes, batch norm": SGD | SNGAN | {"loss": "mm-nsat", "leak": LEAK, "batch_size": 16, "n_dis": 2},
    "two processes, classes": SGD | BIGGAN8 | {
        "loss": "hinge", "leak": LEAK | {"source": "async-noise"}, "batch_size": 16, "accumulate": 2,
    },
    "two processes, penalties": SGD | {
        "loss": "wgan", "penalties": {"WganGP": {"weight": 10.0}, "R1": {"gamma": 0.1}}, "batch_size": 16,
    },
    "two processes, unit gradient": SGD | {"loss": "mm-unit", "batch_size": 16},
}  # fmt: skip


# --- Builders: all that knows gankit's names ----------------------------------------------------------------------


@functools.cache
def data_of(name: str) -> gk.data.Dataset:
    if name in ("ring", "spiral"):
        return gk.data.load(name, n=500)
    if name == "digits":
        return gk.data.load(name, n=300)
    shape = {"noise28": (1, 28, 28), "noise32": (3, 32, 32)}[name]
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (64, *shape), generator=generator, dtype=torch.uint8)
    return gk.data.Dataset(name, images, torch.arange(64) % 4, ("a", "b", "c", "d"))


def networks(setting: dict[str, Any], seed: int) -> tuple[nn.Module, nn.Module]:
    data, model = data_of(setting["data"]), MODELS[setting["model"]]
    conditional = setting["model"] in ("projection-gan", "sagan", "biggan-cifar", "biggan")
    return model(data.shape, *([data.n_classes] if conditional else []), **setting["sizes"], seed=seed)


def optimizer(setting: dict[str, dict[str, Any]]) -> optimisers.Optimizer:
    ((name, numbers),) = setting.items()
    return getattr(optimisers, name)(**numbers)


def leak(setting: dict[str, Any]) -> gk.Leak | None:
    given = setting["leak"]
    if given is None:
        return None
    fixed = {"model": networks(setting, given["model"])[0].eval()} if "model" in given else {}
    return gk.Leak(**given | fixed)


def run_of(setting: dict[str, Any]) -> gk.Trainer:
    if "recipe" in setting:
        return recipe_of(setting)
    setting = DEFAULTS | setting
    seeds, build = setting["seeds"], functools.partial(networks, setting)
    G, D = gk.pair(build, seeds) if isinstance(seeds, list) else build(seeds)
    return gk.Trainer(
        G,
        D,
        data_of(setting["data"]),
        seed=0 if isinstance(seeds, list) else seeds,
        g_optimizer=optimizer(setting["g_optimizer"]),
        d_optimizer=optimizer(setting["d_optimizer"]),
        ema=gk.EMA(**setting["ema"]),
        leak=leak(setting),
        device="cpu",
        **{
            argument: [getattr(penalties, name)(**numbers) for name, numbers in setting[kind].items()]
            for kind, argument in (
                ("penalties", "d_terms"),
                ("g_penalties", "g_terms"),
                ("projections", "projections"),
            )
        },
        **{key: setting[key] for key in ("batch_size", "loss", "n_dis", "accumulate", "precision")},
    )


def recipe_of(setting: dict[str, Any]) -> gk.Trainer:
    recipe = recipes[setting["recipe"]].changed(setting.get("change", {}))
    own = recipe.data if recipe.data in ("ring", "spiral") else "digits"
    data = data_of(setting.get("data", own))
    return recipe.build(setting.get("seeds", [0]), data=data, device="cpu")


def trained(setting: dict[str, Any]) -> gk.Trainer:
    return run_of(setting).fit(STEPS, progress=False)


def nets(run: gk.Trainer) -> dict[str, nn.Module]:
    return {"G": run.G, "D": run.D, "teacher": run.teacher.net}


# --- Hashes -------------------------------------------------------------------------------------------------------


def sha256(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for x in tensors:
        digest.update(f"{x.dtype} {list(x.shape)};".encode())
        digest.update(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_of(run: gk.Trainer) -> str:
    return sha256(x for net in nets(run).values() for x in net.state_dict().values())


def check(name: str, run: gk.Trainer, setting: dict[str, Any]) -> None:
    """A hash of networks that did not train, or that broke, would say nothing."""
    start = run_of(setting)
    for net, fresh in zip(nets(run).values(), nets(start).values(), strict=True):
        assert all(x.isfinite().all() for x in net.state_dict().values()), f"{name}: not finite"
        pairs = zip(net.parameters(), fresh.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), f"{name}: did not move"


# --- The machine that these bits depend on ------------------------------------------------------------------------


def fingerprint() -> dict[str, str]:
    """What decides how float operations round: the library, the instructions it uses, and what both compute.

    The probe is plain PyTorch, so it says the same of a machine whatever becomes of gankit.
    """
    return {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "probe": sha256(_probe())[:16],
    }


def _probe() -> Iterable[Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).requires_grad_()

    yield torch.rand(40, generator=generator)
    yield torch.linalg.qr(normal(48, 32))[0].detach()
    for n, a, b in ((8, 8, 16), (16, 64, 16), (8, 64, 64), (32, 256, 128), (8, 16, 1)):  # linear layers
        x, w, bias = normal(n, a), normal(b, a), normal(b)
        y = F.linear(x, w, bias)
        slope = torch.autograd.grad(F.softplus(y).mean(), x, create_graph=True)[0].square().sum(-1)
        yield from (y, *torch.autograd.grad(slope.mean() + y.tanh().sigmoid().mean(), [x, w, bias]))
        with torch.autocast("cpu", torch.bfloat16):
            yield F.linear(x, w, bias)
        s, sw, sb = normal(3, n, a), normal(3, b, a), normal(3, b, 1)
        y = torch.baddbmm(sb, sw, s.mT).mT.relu()
        yield from (y, *torch.autograd.grad(y.square().sum(), [s, sw, sb]))
    convolutions = ((8, 1, 4, 3, 1), (32, 3, 4, 4, 2), (28, 1, 4, 3, 2), (32, 8, 8, 3, 1), (4, 16, 16, 1, 1))
    for side, a, b, k, stride in convolutions:
        x, w = normal(8, a, side, side), normal(b, a, k, k)
        for kernel in (w, w.detach().contiguous(memory_format=torch.channels_last).requires_grad_()):
            y = F.conv2d(x, kernel, stride=stride, padding=k // 2)
            z = F.batch_norm(y, None, None, training=True).relu()
            slope = torch.autograd.grad(F.softplus(y).mean(), x, create_graph=True)[0].square().sum()
            back = F.conv_transpose2d(z, kernel, stride=stride, padding=k // 2)
            yield from (z, back, *torch.autograd.grad(slope + back.square().mean(), [x, kernel]))
            with torch.autocast("cpu", torch.bfloat16):
                yield F.conv2d(x, kernel, stride=stride, padding=k // 2)
    p = normal(33)
    for make in (torch.optim.Adam, torch.optim.SGD):
        optimizer = make([p], 1e-2, fused=True)
        for _ in range(3):
            p.grad = torch.autograd.grad((p.exp() - p.sin()).square().mean(), p)[0]
            optimizer.step()
        yield p.detach().clone()


# --- The tests ------------------------------------------------------------------------------------------------------

RECORDED = Path(__file__).with_name("bits.json")


@functools.cache
def recorded() -> dict[str, str]:
    """The stored hashes; skips on a machine that rounds otherwise."""
    stored, here = json.loads(RECORDED.read_text("utf-8")), fingerprint()
    if here != stored["fingerprint"]:
        pytest.skip(f"the hashes are those of {stored['fingerprint']}, and this machine is {here}")
    return stored["hashes"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SETTINGS | RECIPES)
def test_training_computes_the_same_bits(name: str, one_thread: None) -> None:
    hashes, setting = recorded(), (SETTINGS | RECIPES)[name]
    run = trained(setting)
    check(name, run, setting)
    assert hash_of(run) == hashes[name]


def test_two_processes_compute_the_same_bits(one_thread: None) -> None:
    hashes = recorded()
    for name, found in together().items():
        assert found == hashes[name], name


def test_no_two_settings_train_alike() -> None:
    hashes = json.loads(RECORDED.read_text("utf-8"))["hashes"]
    assert hashes.keys() == (SETTINGS | RECIPES | TOGETHER).keys()
    assert len(set(hashes.values())) == len(hashes)


def together() -> dict[str, str]:
    """Hashes of the runs on two processes, which `torchrun` starts on this file."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "hashes.json"
        paths = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run(
            [*command, __file__, str(out), "--process"],
            env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return json.loads(out.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the hashes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--process", action="store_true", help="one of two processes, started by torchrun")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.process:
        with processes.joined():
            hashes = {name: hash_of(trained(setting)) for name, setting in TOGETHER.items()}
            if processes.rank() == 0:
                args.out.write_text(json.dumps(hashes))
        return
    hashes = {name: hash_of(trained(setting)) for name, setting in (SETTINGS | RECIPES).items()} | together()
    args.out.write_text(json.dumps({"fingerprint": fingerprint(), "hashes": hashes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
