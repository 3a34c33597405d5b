"""GAN models, losses, teachers, metrics and their training, small enough to read."""

__version__ = "0.1.0"
