"""How the game is played: the step, the loop around it, optimisers, the averaged generator, the files of a run."""

from gankit.training.recording import Diverged, FolderInUse
from gankit.training.trainer import Trainer

__all__ = ["Diverged", "FolderInUse", "Trainer"]
