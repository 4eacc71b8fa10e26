"""Encoders: modules that map a view of a batch to the representation that a critic scores."""

from lightning_mi.encoders.gaussian_noise import GaussianNoise
from lightning_mi.encoders.images import ResNet18, SmallCNN
from lightning_mi.encoders.mlp import MLP
from lightning_mi.encoders.normal_scores import NormalScores
from lightning_mi.encoders.onehot import OneHot

__all__ = ["MLP", "GaussianNoise", "NormalScores", "OneHot", "ResNet18", "SmallCNN"]
