"""rkt-py: signed application images as ordinary processes."""

__version__ = "0.1.0"
