"""locum, the stand-in for key exchange."""

__version__ = "0.1.0"
