"""Figures of "Mean teachers can train superior GANs" (LeakyEMA)."""
