"""How the game is played: the step, the loop around it, optimisers, the averaged generator, the files of a run."""

from gankit.training.loop import Diverged
from gankit.training.trainer import Trainer

__all__ = ["Diverged", "Trainer"]
