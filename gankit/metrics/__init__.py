"""Measures of generated samples.

>>> scores = gk.metrics.evaluate(run.teacher.sample, data, features=gk.metrics.features.classifier("digits"))
>>> print(scores)

`evaluate` measures a generator by any of the metrics, with errors and the protocol. The modules below it are pure
functions of tensors, which load no network and name no distance after one: `frechet` and the others compare features,
`inception` scores class probabilities, `modes` counts modes and classes. `features` are the spaces to compare in.
"""

from gankit.metrics import errors, features, frechet, inception, measures, modes, protocol
from gankit.metrics.evaluate import Reference, evaluate, evaluate_classes, evaluate_points, reference
from gankit.metrics.features import FeatureSpace
from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats
from gankit.metrics.inception import inception_score
from gankit.metrics.measures import METRICS
from gankit.metrics.modes import class_divergence, classes_covered, modes_covered
from gankit.metrics.protocol import Protocol, Score, Scores, mixed_table, table

__all__ = [
    "METRICS",
    "FeatureSpace",
    "FrechetStats",
    "Protocol",
    "Reference",
    "Score",
    "Scores",
    "class_divergence",
    "classes_covered",
    "errors",
    "evaluate",
    "evaluate_classes",
    "evaluate_points",
    "features",
    "frechet",
    "frechet_distance",
    "frechet_from_stats",
    "inception",
    "inception_score",
    "measures",
    "mixed_table",
    "modes",
    "modes_covered",
    "protocol",
    "reference",
    "table",
]
