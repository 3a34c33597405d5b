"""Figures and tables of "Boosting generative networks for incremental learning"."""
