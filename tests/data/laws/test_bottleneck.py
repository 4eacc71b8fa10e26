"""The information-bottleneck curve of Gaussian laws against a numerical optimum."""

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from lightning_mi.data import laws

DIM_X, DIM_Y = 3, 4
BETAS = [0.05, 0.2, 0.4, 0.6, 0.8]


@pytest.fixture(scope="module")
def law():
    mixing = np.random.default_rng(0).normal(size=(DIM_X + DIM_Y, DIM_X + DIM_Y))
    return laws.Gaussian((mixing @ mixing.T + 0.3 * np.eye(len(mixing))).tolist(), dim_x=DIM_X)


def informations(law, weight):
    """I(X; Z) and I(Z; Y) of z = W x + standard normal noise, by log-determinants."""
    covariance = law.covariance_matrix().numpy()
    of_x, cross, of_y = covariance[:DIM_X, :DIM_X], covariance[:DIM_X, DIM_X:], covariance[DIM_X:, DIM_X:]
    given_y = of_x - cross @ cho_solve(cho_factor(of_y), cross.T)
    total, conditional = (np.linalg.slogdet(weight @ c @ weight.T + np.eye(DIM_X))[1] / 2 for c in (of_x, given_y))
    return total, total - conditional


def optimum(law, beta):
    """The best of several runs of BFGS over all matrices W."""
    rng = np.random.default_rng(1)

    def cost(flat):
        rate, relevance = informations(law, flat.reshape(DIM_X, DIM_X))
        return beta * rate - relevance

    runs = [minimize(cost, rng.normal(size=DIM_X**2), method="BFGS", options={"gtol": 1e-9}) for _ in range(4)]
    return informations(law, min(runs, key=lambda run: run.fun).x.reshape(DIM_X, DIM_X))


@pytest.mark.parametrize("beta", BETAS)
def test_point_of_a_weight_is_the_numerical_optimum(law, beta):
    assert laws.gaussian_bottleneck(law, beta) == pytest.approx(optimum(law, beta), abs=1e-4)


@pytest.mark.parametrize("beta", BETAS)
def test_point_at_a_rate_is_the_point_of_its_weight(law, beta):
    point = laws.gaussian_bottleneck(law, beta)
    assert laws.gaussian_bottleneck_at(law, point.rate) == pytest.approx(point, abs=1e-12)


def test_no_representation_is_above_the_curve(law):
    rng = np.random.default_rng(2)
    for size in (0.1, 0.5, 2.0):
        for _ in range(20):
            rate, relevance = informations(law, size * rng.normal(size=(DIM_X, DIM_X)))
            assert relevance <= laws.gaussian_bottleneck_at(law, rate).relevance + 1e-12


def test_curve_runs_from_zero_to_the_mutual_information(law):
    strongest = float(laws.canonical_correlations(law)[0]) ** 2
    assert laws.gaussian_bottleneck(law, strongest + 1e-6) == (0.0, 0.0)
    assert laws.gaussian_bottleneck_at(law, 0.0) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert laws.gaussian_bottleneck_at(law, 50.0).relevance == pytest.approx(law.true_mi, abs=1e-12)
    # The slope at 0 is the largest squared canonical correlation.
    assert laws.gaussian_bottleneck_at(law, 1e-6).relevance == pytest.approx(strongest * 1e-6, rel=1e-4)


def test_canonical_correlations_give_the_mutual_information(law):
    correlations = laws.canonical_correlations(law).numpy()
    assert -0.5 * np.log1p(-(correlations**2)).sum() == pytest.approx(law.true_mi, abs=1e-12)


@pytest.mark.parametrize("beta", [0.0, 1.0, -1.0])
def test_weight_out_of_range_is_an_error(law, beta):
    with pytest.raises(ValueError, match=f"Got beta={beta}: it is between 0 and 1"):
        laws.gaussian_bottleneck(law, beta)


def test_negative_rate_and_independent_law_are_errors(law):
    with pytest.raises(ValueError, match=r"Got rate=-1\.0: "):
        laws.gaussian_bottleneck_at(law, -1.0)
    with pytest.raises(ValueError, match="x and y are independent"):
        laws.gaussian_bottleneck_at(laws.GaussianPairs(dim=2, rho=0.0), 1.0)
