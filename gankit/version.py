"""The package's version, in the one place from which the others read it."""

__version__ = "0.1.0"
