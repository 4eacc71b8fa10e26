"""A LightningModule, not an MIEstimationModule, whose terms and scores follow a script."""

import lightning.pytorch as L
import numpy as np
import torch
from torch import nn

from lightning_mi import BoundTerms, Scores, bounds
from tests.helpers.small_module import Batches

NUM = 8  # pairs of a batch


class Scripted(L.LightningModule):
    """``course(step)`` returns the value, the log-normalizer and the score of joint pairs at a step."""

    def __init__(self, course, bound=None, regularizer=None, literal=True):
        super().__init__()
        self.course, self.literal = course, literal
        self.bound = bounds.DV() if bound is None else bound
        self.regularizer = regularizer
        self.weight = nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        value, normalizer, score = (torch.tensor(float(x)) for x in self.course(self.global_step))
        terms = BoundTerms(value, value + (not self.literal), value + normalizer, normalizer, normalizer)
        scores = Scores.from_matrix(score * torch.eye(NUM))
        return {"loss": self.weight - value, "terms": terms, "scores": scores}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def steps(count):
    return Batches([torch.zeros(1)] * count)


def noise(count, seed=0, std=0.1):
    return np.random.default_rng(seed).normal(scale=std, size=(3, count))
