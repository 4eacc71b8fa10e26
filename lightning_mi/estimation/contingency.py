"""The critic of two labels."""

import torch
from torch import Tensor

from lightning_mi.critics import BilinearCritic


@torch.no_grad()
def table_critic(x: Tensor, y: Tensor) -> BilinearCritic:
    """The log-ratio of the counts of two labels, in closed form, each cell with one expected sample more.

    With n samples, T = log((n_xy + 1) / (n_x n_y / n + 1)): 0 for labels that are too rare to tell.

    Args:
        x: (N, Cx) one-hot.
        y: (N, Cy) one-hot.

    Example:
        >>> labels = torch.eye(2).repeat(10, 1)  # 20 samples, x = y
        >>> table_critic(labels, labels).weight.detach().exp()  # 11 / 6, 1 / 6
        tensor([[1.8333, 0.1667],
                [0.1667, 1.8333]])
    """
    critic = BilinearCritic(x.shape[1], y.shape[1])
    expected = torch.outer(x.sum(0), y.sum(0)) / len(x)
    critic.weight.copy_(((x.T @ y + 1) / (expected + 1)).log())
    return critic
