"""GAN models, losses, teachers, metrics and their training, small enough to read.

>>> import gankit as gk
>>> data = gk.data.load("digits")
>>> G, D = gk.models.mlp(data.shape)
>>> run = gk.Trainer(G, D, data, loss="mm-nsat")
>>> run.fit(3_000)
>>> gk.plotting.grid(run.teacher.sample(64))
"""

__version__ = "0.1.0"

from gankit import (
    checkpoints,
    classifier,
    data,
    distributed,
    losses,
    metrics,
    models,
    optim,
    penalties,
    plotting,
    sampling,
)
from gankit.ensemble import Ensemble, pair
from gankit.losses import Loss
from gankit.optim import SGD, Adam, RMSProp
from gankit.scale import scale
from gankit.teacher import EMA, Leak
from gankit.training import Diverged, Trainer

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "Diverged",
    "Ensemble",
    "Leak",
    "Loss",
    "RMSProp",
    "Trainer",
    "checkpoints",
    "classifier",
    "data",
    "distributed",
    "losses",
    "metrics",
    "models",
    "optim",
    "pair",
    "penalties",
    "plotting",
    "sampling",
    "scale",
]
