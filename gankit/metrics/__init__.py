"""Measures of generated samples.

>>> scores = gk.metrics.evaluate(run.teacher.sample, data, features=gk.metrics.features.classifier("digits"))
>>> print(scores)

`evaluate` measures a generator by any of `METRICS`, with errors and the protocol; `features` are the spaces to compare
in. The modules below are functions of tensors, which load no network and name no distance after one:

.. table:: The modules.

   ===============  ===========================================================================================
   `frechet`        Frechet distance (FID in Inception's space)
   `kernel`         kernel distance (KID)
   `neighbours`     precision and recall, density and coverage
   `entropies`      Inception Score
   `modes`          modes and classes: how many, how often, any metric inside each class
   `similarity`     MS-SSIM, LPIPS
   `path_length`    perceptual path length, change during training
   ===============  ===========================================================================================
"""

from gankit.metrics import (
    entropies,
    features,
    frechet,
    kernel,
    measures,
    modes,
    neighbours,
    path_length,
    protocol,
    similarity,
    uncertainty,
)
from gankit.metrics.entropies import inception_score
from gankit.metrics.evaluation import (
    Reference,
    choose,
    evaluate,
    evaluate_classes,
    reference,
)
from gankit.metrics.features import FeatureSpace
from gankit.metrics.frechet import FrechetStats, frechet_distance, frechet_from_stats
from gankit.metrics.kernel import kernel_distance, kernel_distance_error
from gankit.metrics.measures import METRICS, Metric
from gankit.metrics.modes import (
    class_divergence,
    class_kl,
    classes_covered,
    intra_class,
    modes_covered,
)
from gankit.metrics.monitoring import watch
from gankit.metrics.neighbours import density_coverage, prdc, precision_recall
from gankit.metrics.overfitting import memorisation, watch_discriminator
from gankit.metrics.path_length import (
    ConsecutiveDistance,
    consecutive_distance,
    cropped,
    perceptual_path_length,
)
from gankit.metrics.protocol import Protocol, Score, Scores, mixed_table, table
from gankit.metrics.similarity import load_lpips, ms_ssim, ms_ssim_diversity

__all__ = [
    "METRICS",
    "ConsecutiveDistance",
    "FeatureSpace",
    "FrechetStats",
    "Metric",
    "Protocol",
    "Reference",
    "Score",
    "Scores",
    "choose",
    "class_divergence",
    "class_kl",
    "classes_covered",
    "consecutive_distance",
    "cropped",
    "density_coverage",
    "entropies",
    "evaluate",
    "evaluate_classes",
    "features",
    "frechet",
    "frechet_distance",
    "frechet_from_stats",
    "inception_score",
    "intra_class",
    "kernel",
    "kernel_distance",
    "kernel_distance_error",
    "load_lpips",
    "measures",
    "memorisation",
    "mixed_table",
    "modes",
    "modes_covered",
    "ms_ssim",
    "ms_ssim_diversity",
    "neighbours",
    "path_length",
    "perceptual_path_length",
    "prdc",
    "precision_recall",
    "protocol",
    "reference",
    "similarity",
    "table",
    "uncertainty",
    "watch",
    "watch_discriminator",
]
