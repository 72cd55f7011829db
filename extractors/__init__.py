"""Backbones: pixels -> features. One file per kind."""
