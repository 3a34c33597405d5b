"""Figures and tables of "Sample weighting as an explanation for mode collapse in generative adversarial networks"."""
