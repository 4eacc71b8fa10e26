"""An independent reference of the bounds in float64 NumPy and SciPy, with gradients by hand.

Scores lie on a *sheet* of any shape (a matrix, or one list after another) on which two masks mark the joint and the
marginal pairs. A gradient is an array of the sheet's shape: the derivative with respect to each score.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logsumexp, softmax


@dataclass(frozen=True)
class Sheet:
    """Scores with masks of joint and marginal pairs."""

    t: np.ndarray
    joint: np.ndarray
    marginal: np.ndarray
    y: np.ndarray | None = None  # (*t.shape, D) the candidate of each entry


class Reading(NamedTuple):
    """The five terms of a bound, and the gradients of two of them."""

    value: float
    objective: float
    joint_term: float
    marginal_term: float
    log_normalizer: float
    d_objective: np.ndarray
    d_log_normalizer: np.ndarray


def joint_mean(sheet: Sheet, t: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """E_P[t] and its gradient."""
    t = sheet.t if t is None else t
    return t[sheet.joint].mean(), sheet.joint / sheet.joint.sum()


def log_mean_exp(sheet: Sheet, t: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """log E_Q[e^t] and its gradient, a softmax over the marginal pairs."""
    t = sheet.t if t is None else t
    gradient = np.zeros(t.shape)
    gradient[sheet.marginal] = softmax(t[sheet.marginal])
    return logsumexp(t[sheet.marginal]) - np.log(sheet.marginal.sum()), gradient


def gan_objective(sheet: Sheet) -> tuple[float, np.ndarray]:
    """-E_P[softplus(-T)] - E_Q[softplus(T)] and its gradient."""
    t, p, q = sheet.t, sheet.joint, sheet.marginal
    value = -np.logaddexp(0, -t[p]).mean() - np.logaddexp(0, t[q]).mean()
    return value, p / p.sum() * expit(-t) - q / q.sum() * expit(t)


def dv(sheet: Sheet) -> Reading:
    joint, d_joint = joint_mean(sheet)
    ell, d_ell = log_mean_exp(sheet)
    return Reading(joint - ell, joint - ell, joint, ell, ell, d_joint - d_ell, d_ell)


def mine(sheet: Sheet, rate: float, log_average: float) -> Reading:
    """DV, with the gradient of the log term divided by the moving average of E_Q[e^T]."""
    reading = dv(sheet)
    ell, d_ell = reading.log_normalizer, reading.d_log_normalizer
    average = logsumexp([log_average, ell], b=[1 - rate, rate])
    return reading._replace(d_objective=joint_mean(sheet)[1] - np.exp(ell - average) * d_ell)


def smile(sheet: Sheet, tau: float, objective: str = "value", clip_joint: bool = False) -> Reading:
    clipped, inside = np.clip(sheet.t, -tau, tau), np.abs(sheet.t) <= tau
    joint, d_joint = joint_mean(sheet, clipped if clip_joint else sheet.t)
    if clip_joint:
        d_joint = d_joint * inside
    marginal, d_marginal = log_mean_exp(sheet, clipped)
    ell, d_ell = log_mean_exp(sheet)
    value, d_value = joint - marginal, d_joint - d_marginal * inside
    ascended, d_ascended = (value, d_value) if objective == "value" else gan_objective(sheet)
    return Reading(value, ascended, joint, marginal, ell, d_ascended, d_ell)


def infonce(sheet: Sheet) -> Reading:
    """A loop over joint pairs: each against the joint and marginal pairs of its row."""
    differences, log_normalizers = [], []
    d_joint, d_ell = joint_mean(sheet)[1], np.zeros(sheet.t.shape)
    pairs = np.argwhere(sheet.joint)
    for i, j in pairs:
        candidates = np.flatnonzero(sheet.joint[i] | sheet.marginal[i])
        row = sheet.t[i, candidates]
        log_normalizers.append(logsumexp(row) - np.log(len(row)))
        differences.append(sheet.t[i, j] - log_normalizers[-1])
        d_ell[i, candidates] += softmax(row) / len(pairs)
    value, ell = np.mean(differences), np.mean(log_normalizers)
    return Reading(value, value, joint_mean(sheet)[0], ell, ell, d_joint - d_ell, d_ell)


def dcl(sheet: Sheet) -> Reading:
    """InfoNCE, with an objective over the marginal pairs of each joint pair's row; its joint pairs if it has none."""
    reading = infonce(sheet)
    objective, gradient = 0.0, np.zeros(sheet.t.shape)
    pairs = np.argwhere(sheet.joint)
    for i, j in pairs:
        candidates = np.flatnonzero(sheet.marginal[i] if sheet.marginal[i].any() else sheet.joint[i])
        row = sheet.t[i, candidates]
        objective += (sheet.t[i, j] - logsumexp(row) + np.log(len(row))) / len(pairs)
        gradient[i, j] += 1 / len(pairs)
        gradient[i, candidates] -= softmax(row) / len(pairs)
    return reading._replace(objective=objective, d_objective=gradient)


def exp_linear(ell: float, cap: float | None) -> tuple[float, float]:
    """The exponential, continued by its tangent above ``cap``; value and slope."""
    if cap is None or ell <= cap:
        return np.exp(ell), np.exp(ell)
    return np.exp(cap) * (1 + ell - cap), np.exp(cap)


def tuba(sheet: Sheet, log_a: np.ndarray | float, cap: float | None, constant: float = 1.0) -> Reading:
    """1 + E_P[T - log a] - E_Q[e^T / a], ascended with the continued exponential."""
    joint, d_joint = joint_mean(sheet, sheet.t - log_a)
    ell, d_ell = log_mean_exp(sheet, sheet.t - log_a)
    continued, slope = exp_linear(ell, cap)
    joint = joint + constant
    marginal = np.exp(ell)
    return Reading(joint - marginal, joint - continued, joint, marginal, ell, d_joint - slope * d_ell, d_ell)


def nwj(sheet: Sheet, cap: float | None) -> Reading:
    """E_P[T] - E_Q[e^(T - 1)]."""
    return tuba(Sheet(sheet.t - 1, sheet.joint, sheet.marginal), 0.0, cap)


def js(sheet: Sheet) -> Reading:
    """The value 1 + E_P[T] - E_Q[e^T]; training maximizes the GAN objective."""
    objective, d_objective = gan_objective(sheet)
    return tuba(sheet, 0.0, cap=None)._replace(objective=objective, d_objective=d_objective)


def nce(sheet: Sheet, shift: float | None = None) -> Reading:
    """The value of JS; training classifies with ``exp(shift)`` marginal pairs for each joint pair."""
    t, p, q = sheet.t, sheet.joint, sheet.marginal
    s = np.log(q.sum() / p.sum()) if shift is None else shift
    objective = -np.logaddexp(0, s - t[p]).mean() - np.exp(s) * np.logaddexp(0, t[q] - s).mean()
    gradient = p / p.sum() * expit(s - t) - np.exp(s) * q / q.sum() * expit(t - s)
    return js(sheet)._replace(objective=objective, d_objective=gradient)


def plug_in(sheet: Sheet, objective: float, d_objective: np.ndarray) -> Reading:
    """The value E_P[T]."""
    joint, (ell, d_ell) = joint_mean(sheet)[0], log_mean_exp(sheet)
    return Reading(joint, objective, joint, 0.0, ell, d_objective, d_ell)


def hellinger(sheet: Sheet, cap: float | None) -> Reading:
    """2 - E_P[e^(-T/2)] - E_Q[e^(T/2)], with the continued exponential."""
    joint, d_joint = log_mean_exp(Sheet(sheet.t, sheet.joint, sheet.joint), -sheet.t / 2)
    marginal, d_marginal = log_mean_exp(sheet, sheet.t / 2)
    (first, first_slope), (second, second_slope) = exp_linear(joint, cap), exp_linear(marginal, cap)
    return plug_in(sheet, 2 - first - second, first_slope * d_joint / 2 - second_slope * d_marginal / 2)


def rpc(sheet: Sheet, alpha: float = 0.01, beta: float = 0.005, gamma: float = 0.995) -> Reading:
    """E_P[f] - alpha E_Q[f] - beta / 2 E_P[f^2] - gamma / 2 E_Q[f^2], with f a function of the ratio e^T."""
    p, q, small = sheet.joint, sheet.marginal, np.exp(-np.abs(sheet.t))
    up = sheet.t > 0  # numerator and denominator of f over e^T
    above, below = np.where(up, 1.0, small), np.where(up, small, 1.0)
    denominator = beta * above + gamma * below
    f, slope = (above - alpha * below) / denominator, small * (gamma + alpha * beta) / denominator**2
    objective = f[p].mean() - alpha * f[q].mean() - beta / 2 * (f[p] ** 2).mean() - gamma / 2 * (f[q] ** 2).mean()
    gradient = p / p.sum() * (1 - beta * f) * slope - q / q.sum() * (alpha + gamma * f) * slope
    return plug_in(sheet, objective, gradient)


def released(sheet: Sheet, clip: float, shift: float) -> Reading:
    """NWJ (shift 1) or TUBA (shift 0) of clipped scores, with log E_Q[e^T] of the unclipped scores."""
    inside = np.abs(sheet.t) <= clip
    clipped = Sheet(np.clip(sheet.t, -clip, clip) - shift, sheet.joint, sheet.marginal)
    reading = tuba(clipped, 0.0, cap=None)
    ell, d_ell = log_mean_exp(sheet)
    return reading._replace(d_objective=reading.d_objective * inside, log_normalizer=ell, d_log_normalizer=d_ell)


def released_js(sheet: Sheet) -> Reading:
    """The value of NWJ, the objective of JS, and E_Q[softplus(T)] as log-normalizer."""
    objective, d_objective = gan_objective(sheet)
    t, q = sheet.t, sheet.marginal
    return nwj(sheet, cap=None)._replace(
        objective=objective,
        d_objective=d_objective,
        log_normalizer=np.logaddexp(0, t[q]).mean(),
        d_log_normalizer=q / q.sum() * expit(t),
    )


def ba(sheet: Sheet, entropy: float) -> Reading:
    """H + E_P[T]; training maximizes E_P[T]."""
    joint, d_joint = joint_mean(sheet)
    return Reading(entropy + joint, joint, joint, -entropy, -entropy, d_joint, np.zeros(sheet.t.shape))


def leave_one_out(sheet: Sheet) -> Reading:
    """A loop over joint pairs: each against the marginal pairs of its row, if there are any."""
    joint, d_joint = joint_mean(sheet)
    differences, log_means, d_ell = [], [], np.zeros(sheet.t.shape)
    pairs = [(i, j) for i, j in np.argwhere(sheet.joint) if sheet.marginal[i].any()]
    for i, j in pairs:
        others = np.flatnonzero(sheet.marginal[i])
        log_means.append(logsumexp(sheet.t[i, others]) - np.log(len(others)))
        differences.append(sheet.t[i, j] - log_means[-1])
        d_ell[i, others] += softmax(sheet.t[i, others]) / len(pairs)
    ell = np.mean(log_means)
    return Reading(np.mean(differences), joint, joint, ell, ell, d_joint, d_ell)


def club(sheet: Sheet) -> Reading:
    """A loop over joint pairs: each against the mean of the joint and marginal pairs of its row."""
    joint, d_joint = joint_mean(sheet)
    means, d_mean = [], np.zeros(sheet.t.shape)
    pairs = np.argwhere(sheet.joint)
    for i, _ in pairs:
        candidates = np.flatnonzero(sheet.joint[i] | sheet.marginal[i])
        means.append(sheet.t[i, candidates].mean())
        d_mean[i, candidates] += 1 / len(candidates) / len(pairs)
    mean = np.mean(means)
    return Reading(joint - mean, joint, joint, mean, mean, d_joint, d_mean)


def club_sample(sheet: Sheet) -> Reading:
    """E_P[T] - E_Q[T]."""
    joint, d_joint = joint_mean(sheet)
    mean = sheet.t[sheet.marginal].mean()
    return Reading(joint - mean, joint, joint, mean, mean, d_joint, sheet.marginal / sheet.marginal.sum())


def squared(deviation: float) -> tuple[float, float]:
    return deviation**2, 2 * deviation


def absolute(deviation: float) -> tuple[float, float]:
    return np.abs(deviation), np.sign(deviation)


def huber(deviation: float, delta: float) -> tuple[float, float]:
    if np.abs(deviation) <= delta:
        return deviation**2 / 2, deviation
    return delta * (np.abs(deviation) - delta / 2), delta * np.sign(deviation)
