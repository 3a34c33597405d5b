"""Judges: classifiers of the book's data, trained once and then cached."""

from gankit.classifiers.cache import RECIPES, cache_path, load, read, train_and_cache, write
from gankit.classifiers.networks import Classifier, ResidualClassifier, Stacked
from gankit.classifiers.prediction import class_frequencies, compute_features, predict
from gankit.classifiers.training import PICTURES, flip_and_shift, hold_out, train

__all__ = [
    "PICTURES",
    "RECIPES",
    "Classifier",
    "ResidualClassifier",
    "Stacked",
    "cache_path",
    "class_frequencies",
    "compute_features",
    "flip_and_shift",
    "hold_out",
    "load",
    "predict",
    "read",
    "train",
    "train_and_cache",
    "write",
]
