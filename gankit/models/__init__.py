"""Networks. They hold layers and nothing else: no optimiser, no cost, no training code."""

from gankit.models.conv import conv, dcgan
from gankit.models.mlp import mlp

__all__ = ["conv", "dcgan", "mlp"]
