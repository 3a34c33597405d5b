"""Networks. They hold layers and nothing else: no optimiser, no cost, no training code."""

from gankit.models.biggan import biggan, biggan_cifar, sagan
from gankit.models.conditioning import Condition
from gankit.models.conv import conv, dcgan
from gankit.models.mlp import mlp
from gankit.models.resnet import projection_gan, sngan, wgan_gp

__all__ = [
    "Condition",
    "biggan",
    "biggan_cifar",
    "conv",
    "dcgan",
    "mlp",
    "projection_gan",
    "sagan",
    "sngan",
    "wgan_gp",
]
