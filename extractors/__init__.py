"""Backbones: pixels -> features. One file per kind."""

from vad import torchvision_cure

torchvision_cure.install()
