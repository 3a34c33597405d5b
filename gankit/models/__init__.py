"""Networks. They hold layers and nothing else: no optimiser, no cost, no training code."""

from gankit.models.began import began, began_mlp
from gankit.models.biggan import biggan, biggan_cifar, sagan
from gankit.models.conv import conv, dcgan
from gankit.models.mlp import mlp
from gankit.models.resnet import projection_gan, sngan, wgan_gp

__all__ = [
    "began",
    "began_mlp",
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
