"""vadwatch: video in, frame-level anomaly curve and events out."""

__version__ = "0.1.0"
