"""Evaluation: score sets are read, aligned with an annotation video by video, measured, audited and reported."""
