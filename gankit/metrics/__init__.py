"""Measures of generated samples: `modes` counts modes and classes, `frechet` compares features.

Every function takes tensors and returns tensors. Feature spaces are the caller's: these modules load no network
and name no distance after one.
"""

from gankit.metrics import frechet, modes

__all__ = ["frechet", "modes"]
