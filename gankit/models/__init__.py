"""Networks. They hold layers and nothing else: no optimiser, no cost, no training code."""

from gankit.models.began import began, began_mlp
from gankit.models.biggan import biggan, biggan_cifar, sagan
from gankit.models.conditioning import Condition
from gankit.models.conv import conv, conv_sn, dcgan, dcgan_attention, dcgan_bn_sn, sndcgan
from gankit.models.mlp import mlp
from gankit.models.progan import progan
from gankit.models.r3gan import r3gan
from gankit.models.resnet import projection_gan, sngan, wgan_gp
from gankit.models.style_blocks import Truncated
from gankit.models.stylegan import stylegan
from gankit.models.stylegan2 import stylegan2, stylegan2_cifar

__all__ = [
    "Condition",
    "Truncated",
    "began",
    "began_mlp",
    "biggan",
    "biggan_cifar",
    "conv",
    "conv_sn",
    "dcgan",
    "dcgan_attention",
    "dcgan_bn_sn",
    "mlp",
    "progan",
    "projection_gan",
    "r3gan",
    "sagan",
    "sndcgan",
    "sngan",
    "stylegan",
    "stylegan2",
    "stylegan2_cifar",
    "wgan_gp",
]
