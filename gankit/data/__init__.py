"""What is imitated: data sets by name, folders and archives of pictures, and packs."""

from gankit.data.archives import DataError
from gankit.data.dataset import Dataset, MappedDataset, frequencies
from gankit.data.named import NAMES, cache_root, data_root, find, load, mixture, sample_shape

__all__ = [
    "NAMES",
    "DataError",
    "Dataset",
    "MappedDataset",
    "cache_root",
    "data_root",
    "find",
    "frequencies",
    "load",
    "mixture",
    "sample_shape",
]
