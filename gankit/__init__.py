"""GAN models, losses, teachers, metrics and their training, small enough to read.

>>> import gankit as gk
>>> data = gk.data.load("digits")
>>> G, D = gk.models.mlp(data.shape)
>>> run = gk.Trainer(G, D, data, loss="mm-nsat")
>>> run.fit(3_000)
>>> gk.plotting.grid(run.teacher.sample(64))
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from gankit.scale import scale  # at once: loading the module would put itself in the function's place
from gankit.version import __version__

if TYPE_CHECKING:
    from gankit import classifiers, data, metrics, models, plotting, processes, study
    from gankit import classifiers as classifier
    from gankit.game import augment, consistency, leak, penalties
    from gankit.game.leak import Leak
    from gankit.game.losses import Loss, losses
    from gankit.models import sampling
    from gankit.models.ensemble import Ensemble, pair
    from gankit.recipes import load
    from gankit.streams import Streams
    from gankit.training import Diverged, Trainer, checkpoints
    from gankit.training.average import EMA
    from gankit.training.optimisers import SGD, Adam, CosineDecay, LinearDecay, RMSProp

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "CosineDecay",
    "Diverged",
    "Ensemble",
    "Leak",
    "LinearDecay",
    "Loss",
    "RMSProp",
    "Streams",
    "Trainer",
    "__version__",
    "augment",
    "checkpoints",
    "classifier",
    "classifiers",
    "consistency",
    "data",
    "leak",
    "load",
    "losses",
    "metrics",
    "models",
    "pair",
    "penalties",
    "plotting",
    "processes",
    "sampling",
    "scale",
    "study",
]

_ELSEWHERE = {
    "augment": "game.augment",
    "classifier": "classifiers",
    "consistency": "game.consistency",
    "leak": "game.leak",
    "penalties": "game.penalties",
    "sampling": "models.sampling",
    "checkpoints": "training.checkpoints",
}
"""Modules that go by another name here."""
_WITHIN = {
    "game.leak": ("Leak",),
    "game.losses": ("Loss", "losses"),
    "models.ensemble": ("Ensemble", "pair"),
    "recipes": ("load",),
    "streams": ("Streams",),
    "training": ("Diverged", "Trainer"),
    "training.average": ("EMA",),
    "training.optimisers": ("SGD", "Adam", "CosineDecay", "LinearDecay", "RMSProp"),
}
"""Module -> what is taken from it."""


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: PyTorch takes seconds, and `gankit --version` does not need it."""
    found = next((module for module, names in _WITHIN.items() if name in names), None)
    if found is not None:
        value = getattr(importlib.import_module(f"gankit.{found}"), name)
    elif not name.startswith("_") and (name in _ELSEWHERE or importlib.util.find_spec(f"gankit.{name}")):
        value = importlib.import_module(f"gankit.{_ELSEWHERE.get(name, name)}")
    else:
        raise AttributeError(f"module 'gankit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
