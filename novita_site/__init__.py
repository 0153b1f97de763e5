"""The settings and the entry points of the service."""

__version__ = "0.1.0"
