"""NCE, Hellinger, RPC, DCL: their optimum on finite batches, and their relations to each other and to the papers."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import Scores, bounds
from tests.helpers.law import COUNTS, JOINT, LOG_RATIO, MI, scores_of

T = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
EYE = torch.eye(6, dtype=torch.bool)


def gradient(bound: bounds.AbstractBound, t: Tensor) -> Tensor:
    t = t.clone().requires_grad_()
    return torch.autograd.grad(bound(Scores.from_matrix(t)).objective, t)[0]


def expected_gradient(bound: bounds.AbstractBound, shift: float) -> np.ndarray:
    """The gradient of the objective's mean over all batches of three pairs, at the log ratio plus a constant."""
    critic = torch.tensor(LOG_RATIO + shift, requires_grad=True)
    atoms, mean = np.argwhere(COUNTS), torch.zeros((), dtype=torch.float64)
    for batch in itertools.product(range(9), repeat=3):
        x, y = atoms[list(batch)].T
        matrix = critic[torch.tensor(x)[:, None], torch.tensor(y)]
        mean = mean + JOINT[x, y].prod() * bound(Scores.from_matrix(matrix)).objective
    return torch.autograd.grad(mean, critic)[0].numpy()


@pytest.mark.parametrize(
    ("bound", "shift"),
    [
        (bounds.NCE(), 0.0),
        (bounds.NCE(3.0), 0.0),
        (bounds.JS(), 0.0),
        (bounds.RPC(), 0.0),
        (bounds.Hellinger(cap=None), 0.0),
        (bounds.TUBA(cap=None), 0.0),
        (bounds.NWJ(cap=None), 1.0),
        (bounds.InfoNCE(), 0.0),
    ],
    ids=["NCE", "NCE(3)", "JS", "RPC", "Hellinger", "TUBA", "NWJ", "InfoNCE"],
)
def test_log_ratio_is_the_optimum_on_batches_of_three(bound: bounds.AbstractBound, shift: float) -> None:
    np.testing.assert_allclose(expected_gradient(bound, shift), 0, atol=1e-14)


def test_log_ratio_is_not_the_optimum_of_dcl() -> None:
    assert np.abs(expected_gradient(bounds.DCL(), 0.0)).max() > 0.01


def test_nce_without_noise_ratio_is_js() -> None:
    terms, expected = (bound(Scores.from_matrix(T)) for bound in (bounds.NCE(0.0), bounds.JS()))
    torch.testing.assert_close(tuple(terms), tuple(expected), rtol=1e-14, atol=1e-14)


def test_nce_uses_the_numbers_of_pairs_of_the_batch() -> None:
    assert bounds.NCE()(Scores.from_matrix(T)) == bounds.NCE(math.log(5))(Scores.from_matrix(T))
    lists = Scores.from_samples(T[0], T[1:3].flatten())
    assert bounds.NCE()(lists) == bounds.NCE(math.log(2))(lists)


def test_nce_is_the_likelihood_of_a_classifier_of_all_pairs() -> None:
    logits = T - math.log(5)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, EYE.double(), reduction="sum")
    assert bounds.NCE()(Scores.from_matrix(T)).objective.item() == pytest.approx(-loss.item() / 6, abs=1e-12)


def test_nce_with_much_noise_has_the_gradient_of_tuba() -> None:
    torch.testing.assert_close(gradient(bounds.NCE(25.0), T), gradient(bounds.TUBA(cap=None), T), rtol=1e-8, atol=1e-10)


def test_tuba_is_kl_dime_and_js_is_gan_dime() -> None:
    """In the paper's form: D is the ratio for the KL divergence; the ratio is (1 - D) / D for the GAN divergence."""
    d = T.exp()
    kl = -(-d[EYE].log().mean() + d[~EYE].mean())
    assert bounds.TUBA(cap=None)(Scores.from_matrix(T)).objective.item() == pytest.approx(1 + kl.item(), abs=1e-12)
    d = 1 / (1 + T.exp())
    gan = (1 - d[EYE]).log().mean() + d[~EYE].log().mean()
    assert bounds.JS()(Scores.from_matrix(T)).objective.item() == pytest.approx(gan.item(), abs=1e-12)
    assert bounds.JS().plug_in(bounds.JS()(Scores.from_matrix(T)).joint_term).item() == pytest.approx(T[EYE].mean())


def test_hellinger_is_hd_dime() -> None:
    d = (-T / 2).exp()
    loss = d[EYE].mean() + (1 / d[~EYE]).mean()
    terms = bounds.Hellinger(cap=None)(Scores.from_matrix(T))
    assert terms.objective.item() == pytest.approx(2 - loss.item(), abs=1e-12)
    assert terms.value.item() == pytest.approx(-2 * d[EYE].log().mean().item(), abs=1e-12)


@pytest.mark.parametrize("cap", [0.0, 1.0])
def test_cap_of_hellinger_bounds_the_gradient_and_keeps_the_optimum(cap: float) -> None:
    bound = bounds.Hellinger(cap)
    assert gradient(bound, T - 200).abs().sum() <= math.exp(cap) + 1e-12
    literal = bounds.Hellinger(None)(scores_of(LOG_RATIO)).objective
    assert bound(scores_of(LOG_RATIO)).objective == literal
    for shift in (-1.0, 1.0, 8.0):
        assert bound(scores_of(LOG_RATIO + shift)).objective < literal


def test_weight_alpha_of_rpc_changes_only_the_scale() -> None:
    first, second = (gradient(bounds.RPC(alpha=alpha), T) for alpha in (0.0, 5.0))
    torch.testing.assert_close(second, (1 + 5 * 0.005 / 0.995) ** 2 * first)


def test_log_outside_the_mean_of_rpc_is_another_number() -> None:
    ratio = torch.tensor(LOG_RATIO).exp()
    alpha, beta, gamma = 0.01, 0.005, 0.995
    mean_f = (torch.tensor(JOINT) * (ratio - alpha) / (beta * ratio + gamma)).sum()
    outside = ((gamma * mean_f + alpha) / (1 - beta * mean_f)).log().item()
    assert bounds.RPC()(scores_of(LOG_RATIO)).value.item() == pytest.approx(MI, abs=1e-12)
    assert abs(outside - MI) > 0.01


def test_flatnce_has_the_gradient_of_dcl() -> None:
    t = T.clone().requires_grad_()
    others = t.masked_fill(EYE, -torch.inf).logsumexp(dim=1) - t.diagonal()
    flat = (others - others.detach()).exp().mean()
    torch.testing.assert_close(gradient(bounds.DCL(), T), -torch.autograd.grad(flat, t)[0])


def test_dcl_keeps_its_gradient_where_infonce_saturates() -> None:
    separated = T + 30 * EYE
    assert gradient(bounds.InfoNCE(), separated).abs().max() < 1e-10
    assert gradient(bounds.DCL(), separated).abs().max() > 0.1


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), (51.0, ValueError), ("64", TypeError)])
def test_log_noise_ratio_out_of_range_is_an_error(value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Got log_noise_ratio='?{value}"):
        bounds.NCE(value)


def test_weights_of_rpc_out_of_range_are_errors() -> None:
    for arguments in ({"alpha": -0.1}, {"beta": 0.0}, {"gamma": math.inf}, {"alpha": math.nan}):
        ((name, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"Got {name}={value}"):
            bounds.RPC(**arguments)
