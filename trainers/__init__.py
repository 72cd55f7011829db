"""Training: labels and features in, a head out."""

from vad import torchvision_cure

torchvision_cure.install()
