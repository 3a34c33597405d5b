"""GAN models, losses, teachers, metrics and their training, small enough to read.

>>> import gankit as gk
>>> data = gk.data.load("digits")
>>> G, D = gk.models.mlp(data.shape)
>>> run = gk.Trainer(G, D, data, loss="mm-nsat")
>>> run.fit(3_000)
>>> gk.plotting.grid(run.teacher.sample(64))
"""

from gankit import classifiers, data, metrics, models, plotting, processes, study
from gankit import classifiers as classifier
from gankit.game import leak, penalties
from gankit.game.leak import Leak
from gankit.game.losses import Loss, losses
from gankit.models import sampling
from gankit.models.ensemble import Ensemble, pair
from gankit.scale import scale
from gankit.streams import Streams
from gankit.training import Diverged, Trainer, checkpoints
from gankit.training.average import EMA
from gankit.training.optimisers import SGD, Adam, RMSProp
from gankit.version import __version__

__all__ = [
    "EMA",
    "SGD",
    "Adam",
    "Diverged",
    "Ensemble",
    "Leak",
    "Loss",
    "RMSProp",
    "Streams",
    "Trainer",
    "__version__",
    "checkpoints",
    "classifier",
    "classifiers",
    "data",
    "leak",
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
