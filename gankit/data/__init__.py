"""What is imitated: data sets by name, folders and archives of pictures, and packs."""

from gankit.data.archives import DataError, SkippedPictures
from gankit.data.dataset import Dataset, MappedDataset, Split, frequencies
from gankit.data.named import (
    NAMES,
    SHAPES,
    cache_root,
    data_root,
    find,
    load,
    mixture,
    sample_shape,
)

__all__ = [
    "NAMES",
    "SHAPES",
    "DataError",
    "Dataset",
    "MappedDataset",
    "SkippedPictures",
    "Split",
    "cache_root",
    "data_root",
    "find",
    "frequencies",
    "load",
    "mixture",
    "sample_shape",
]
