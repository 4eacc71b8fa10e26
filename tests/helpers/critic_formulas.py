"""The scores of each critic in float64 NumPy, from its definition: (N, M) for x (N, Dx) and y (M, Dy)."""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.stats import multivariate_normal, norm
from torch import Tensor, nn

from lightning_mi import critics

Formula = Callable[..., np.ndarray]  # of the critic, x and y


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def relu_network(network: Iterable[nn.Module], x: np.ndarray) -> np.ndarray:
    """The output of linear layers and ReLUs."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            bias = 0.0 if layer.bias is None else array(layer.bias)  # type: ignore[redundant-expr]  # torch: never None
            x = np.matmul(x, array(layer.weight).T) + bias
        else:
            assert isinstance(layer, nn.ReLU)
            x = np.maximum(x, 0)  # NaN stays NaN
    return x


def inner_product(critic: critics.InnerProductCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if critic.normalize:
        x, y = (view / np.linalg.norm(view, axis=1, keepdims=True) for view in (x, y))
    return x @ y.T / critic.temperature / (np.sqrt(x.shape[1]) if critic.scaled else 1)


def bilinear(critic: critics.BilinearCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum("id,de,je->ij", x, array(critic.weight), y)


def separable(critic: critics.SeparableCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return relu_network(critic.x_net, x) @ relu_network(critic.y_net, y).T


def joint(critic: critics.JointCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The network of every concatenation [x_i, y_j], plus the separable term."""
    every = np.concatenate([np.repeat(x, len(y), axis=0), np.tile(y, (len(x), 1))], axis=1)
    scores = relu_network([critic.first, *critic.rest], every).reshape(len(x), len(y))
    return scores if critic.separable is None else scores + separable(critic.separable, x, y)


def gaussian_conditional(critic: critics.GaussianConditional, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The normal density of each coordinate; log-variances are continued by a rational function."""
    assert isinstance(critic.network, nn.Sequential)
    mean, raw = np.split(relu_network(critic.network, x), 2, axis=1)
    inside = np.clip(raw, *critic.log_variance_range)
    beyond = raw - inside
    scale = np.exp((inside + beyond / (1 + np.abs(beyond))) / 2)
    logarithms: np.ndarray = norm.logpdf(y, mean[:, None], scale[:, None]).sum(axis=2)
    return logarithms


def gaussian_copula(critic: critics.GaussianCopulaCritic, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The log-ratio of each canonical pair by the densities of normal distributions, and the residual."""
    u = (x - array(critic.x_mean)) @ array(critic.x_directions)
    v = (y - array(critic.y_mean)) @ array(critic.y_directions)
    scores = separable(critic.residual, x, y)
    for k, rho in enumerate(array(critic.correlations)):
        pairs = np.stack(np.meshgrid(u[:, k], v[:, k], indexing="ij"), axis=-1)
        scores += multivariate_normal([0, 0], [[1, rho], [rho, 1]]).logpdf(pairs).reshape(scores.shape)
        scores -= norm.logpdf(u[:, k])[:, None] + norm.logpdf(v[:, k])
    return scores


def calibrated(critic: critics.CalibratedCritic, x: np.ndarray, y: np.ndarray, formula: Formula) -> np.ndarray:
    scale = 1.0 if critic.log_scale is None else np.exp(array(critic.log_scale))
    offset = 0.0 if critic.offset is None else critic.offset_unit * array(critic.offset)
    return scale * formula(critic.critic, x, y) + offset
