"""The GAN laboratory: its training is that of `gk.Trainer`, its presets fail as the page says, a browser can use it."""

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import gankit as gk
from book import laboratory

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node in the path")


def in_node(code: str, value: Any = None) -> Any:
    """What `code`, run after the page's own training script, puts into `answer`; `given` is `value`."""
    program = (
        f"{laboratory.script(laboratory.modules('crew.js'))}\n"
        'const given = JSON.parse(require("fs").readFileSync(0, "utf-8"));\nlet answer;\n'
        f"{code}\nprocess.stdout.write(JSON.stringify(answer));"
    )
    done = subprocess.run(
        [str(NODE), "-e", program], input=json.dumps(value), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


# --- Fifty steps are fifty steps of gk.Trainer -------------------------------------------------------------------


class Recorder(gk.sampling.Streams):
    """Random numbers that are written down, so that JavaScript can train on the same ones."""

    def __init__(self, seed: int) -> None:
        super().__init__([seed], (), "cpu")
        self.normals: list[list[float]] = []
        self.uniforms: list[list[float]] = []

    def normal(self, n: int, *shape: int) -> Tensor:
        z = super().normal(n, *shape)
        self.normals.append(z.flatten().tolist())
        return z

    def uniform(self, n: int, *shape: int) -> Tensor:
        u = super().uniform(n, *shape)
        self.uniforms.append(u.flatten().tolist())
        return u


class Recording(gk.Trainer):
    """A trainer in float64 whose minibatches are written down."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, device="cpu", **settings)
        self.streams = Recorder(0)
        self.batches: list[list[float]] = []

    def draw_data(self) -> tuple[Tensor, Tensor]:
        real, labels = super().draw_data()
        self.batches.append(real.flatten().tolist())
        return real, labels


def flat(net: nn.Module) -> list[float]:
    """Parameters in the order of the page: weights of each layer by input, then by output; then biases."""
    return torch.cat([p.detach().mT.flatten() if p.ndim == 2 else p.detach() for p in net.parameters()]).tolist()


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison: the page's settings that differ from the defaults, and the same for the Trainer."""

    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    layers: tuple[int, int] = (2, 2)


def optimiser(player: str, kind: str, lr: float, beta1: float, beta2: float) -> dict[str, Any]:
    return {f"{player}.kind": kind, f"{player}.lr": lr, f"{player}.beta1": beta1, f"{player}.beta2": beta2}


R1 = Case({"r1": 0.7}, {"penalties": [gk.penalties.R1(0.7)]})
LEAK = Case(
    {"leak.beta": 0.5, "leak.start": 7, "ema.decay": 0.9, "ema.start": 3},
    {"leak": gk.Leak(0.5, start=7), "ema": gk.EMA(0.9, start=3)},
)
COSTS = [name for name in gk.losses if name != "rpgan"]
CASES = {
    **{name: Case({"loss": name}, {"loss": name}) for name in [*COSTS, "ns+mm(0.3)", "ns-add-0.7"]},
    **{
        f"{name}, {label}": Case({"loss": name} | other.changes, {"loss": name} | other.settings)
        for name in COSTS
        for label, other in {"R1": R1, "leak": LEAK}.items()
    },
    "three D steps": Case({"nDis": 3}, {"n_dis": 3}),
    "three D steps, R1, leak": Case({"nDis": 3} | R1.changes | LEAK.changes, {"n_dis": 3} | R1.settings | LEAK.settings),
    "gradient descent": Case(
        optimiser("g", "sgd", 0.05, 0, 0) | optimiser("d", "sgd", 0.03, 0.5, 0),
        {"g_optimizer": gk.SGD(0.05), "d_optimizer": gk.SGD(0.03, momentum=0.5)},
    ),
    "RMSProp, clipping": Case(
        {"loss": "wgan", "nDis": 3, "clip": 0.05} | optimiser("g", "rmsprop", 1e-3, 0, 0.9) | optimiser("d", "rmsprop", 2e-3, 0, 0.99),
        {"loss": "wgan", "n_dis": 3, "projections": [gk.penalties.ClipWeights(0.05)],
         "g_optimizer": gk.optim.RMSProp(1e-3, decay=0.9), "d_optimizer": gk.optim.RMSProp(2e-3)},
    ),
    "WGAN-GP": Case({"loss": "wgan", "gp": 2}, {"loss": "wgan", "penalties": [gk.penalties.WganGP(2)]}),
    "slow Adam": Case(
        optimiser("g", "adam", 1e-3, 0.9, 0.99) | optimiser("d", "adam", 3e-4, 0.0, 0.9),
        {"g_optimizer": gk.Adam(1e-3, 0.9, 0.99), "d_optimizer": gk.Adam(3e-4, 0.0, 0.9)},
    ),
    **{
        f"leak from {source}": Case(
            {"leak.beta": 0.3, "leak.from": source}, {"leak": gk.Leak(0.3, source=source)}
        )
        for source in ("async-noise", "generator", "most-realistic")
    },
    "one layer and four": Case(R1.changes, R1.settings, (1, 4)),
}  # fmt: skip
STEPS, BATCH, Z_DIM, WIDTH = 50, 10, 3, 16  # a batch of 10: the leak's round(beta N) meets a half


def networks(layers: tuple[int, int] = (2, 2)) -> tuple[nn.Module, nn.Module]:
    """Small networks with biases that are not zero, in float64."""
    G, D = gk.models.mlp((2,), z_dim=Z_DIM, depth=layers[0] + 1, d_depth=layers[1] + 1, width=WIDTH)
    generator = torch.Generator().manual_seed(1)
    for net in (G.double(), D.double()):
        for p in net.parameters():
            p.data += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return G, D


def page_settings(layers: tuple[int, int]) -> dict[str, Any]:
    small = {"batch": BATCH, "zDim": Z_DIM, "gLayers": layers[0], "dLayers": layers[1], "gWidth": WIDTH, "dWidth": WIDTH}
    adam = optimiser("g", "adam", 2e-4, 0.5, 0.999) | optimiser("d", "adam", 2e-4, 0.5, 0.999)
    return small | adam | {"ema.decay": 0.999}


def train_in_python(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page needs for the same run, and how the run of `gk.Trainer` ended."""
    G, D = networks(case.layers)
    run = Recording(G, D, gk.data.load("ring", n=1000), batch_size=BATCH, **case.settings)
    given = {"changes": page_settings(case.layers) | case.changes, "G": flat(G), "D": flat(D)}
    seen = [run.step() for _ in range(STEPS)]
    ended = {
        "costs": [[float(s[k]) for k in ("d_loss", "g_loss", "real_logit", "fake_logit")] for s in seen],
        **{name: flat(net) for name, net in {"G": run.G, "D": run.D, "teacher": run.teacher.net}.items()},
    }
    return given | {"z": run.streams.normals, "u": run.streams.uniforms, "data": run.batches}, ended


TRAIN = """
answer = given.map(({ changes, G, D, z, u, data }) => {
  const settings = changed(DEFAULTS, changes), next = (list) => () => Float64Array.from(list.shift());
  const run = new Trainer(settings, 0, { latents: next(z), uniform: next(u), data: next(data) });
  run.G.parameters.set(G);
  run.teacher.parameters.set(G);
  run.D.parameters.set(D);
  const costs = [];
  for (let i = 0; i < 50; i += 1) {
    run.step();
    costs.push([run.seen.dLoss, run.seen.gLoss, run.seen.realLogit, run.seen.fakeLogit]);
  }
  const list = (net) => Array.from(net.parameters);
  return { costs, G: list(run.G), D: list(run.D), teacher: list(run.teacher), left: z.length + u.length + data.length };
});
"""


def assert_alike(mine: dict[str, Any], theirs: dict[str, Any], name: str) -> float:
    assert mine["left"] == 0, f"{name}: the page drew fewer random numbers"
    worst = 0.0
    for key, values in theirs.items():
        np.testing.assert_allclose(mine[key], values, rtol=0, atol=1e-9, err_msg=f"{name}: {key}")
        worst = max(worst, float(np.abs(np.subtract(mine[key], values)).max()))
    return worst


@needs_node
def test_fifty_steps_are_those_of_the_trainer() -> None:
    given, ended = zip(*map(train_in_python, CASES.values()), strict=True)
    page = in_node(TRAIN, given)
    worst = {
        name: assert_alike(mine, theirs, name) for name, mine, theirs in zip(CASES, page, ended, strict=True)
    }
    print(f"{len(worst)} cases, largest difference {max(worst.values()):.1e}")
    moved = [np.abs(np.subtract(g["G"], e["G"])).max() for g, e in zip(given, ended, strict=True)]
    assert min(moved) > 1e-4  # something was learnt that could have differed
