"""Scores: every reduction against a loop over pairs in NumPy."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import Scores
from lightning_mi.scores.dense import DenseMarginals, stride
from lightning_mi.scores.pair_functions import SquaredSigmoid
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.specs import by_name

MATRICES = [layout for layout in LAYOUTS if layout.has_rows]
OFFSETS = np.array([0.3, -2.0, 1.1, 0.0, 4.0, -0.7, 2.2, 0.9, -1.3])
LAW = np.array([0.4, 0.05, 0.0, 0.3, 0.25])
EXPONENTS = [  # a pairwise cover of offset, clip and power
    (False, None, 1.0),
    (True, None, 2.0),
    (False, 1.0, 2.0),
    (True, 1.0, 1.0),
    (False, None, -0.5),
    (True, 1.0, -0.5),
]
over_exponents = pytest.mark.parametrize(("with_offset", "clip", "power"), EXPONENTS)
over_layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)


def pairs(layout: Layout, kind: str) -> list[tuple[int, ...]]:
    """Positions of the joint or marginal pairs, row by row."""
    return [tuple(index) for index in np.argwhere(getattr(layout, kind))]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def clipped(t: float, clip: float | None) -> float:
    return t if clip is None else min(max(t, -clip), clip)


def weighted(t: torch.Tensor) -> Scores:
    return Scores.from_matrix(t, joint=torch.eye(3, 5, dtype=torch.bool), log_weights=torch.tensor(LAW).log())


@over_layouts
def test_pairs_are_those_of_the_masks(layout: Layout) -> None:
    t = layout.draw()
    scores = layout.scores(torch.tensor(t))
    joint, marginal = pairs(layout, "joint"), pairs(layout, "marginal")
    assert scores.joint.tolist() == [t[index] for index in joint]
    assert scores.marginal_values().tolist() == [t[index] for index in marginal]
    assert scores.joint_columns.tolist() == [layout.columns[index] for index in joint]
    assert (scores.num_joint, scores.num_marginal) == (len(joint), len(marginal))
    assert torch.equal(scores.y, torch.tensor(layout.y))


@over_exponents
@over_layouts
def test_log_mean_exp_equals_a_loop(layout: Layout, with_offset: bool, clip: float | None, power: float) -> None:
    t = layout.draw(std=2.0)
    offsets = OFFSETS[: layout.columns.max() + 1] * with_offset
    terms = [
        math.exp(power * (clipped(t[index], clip) - offsets[layout.columns[index]]))
        for index in pairs(layout, "marginal")
    ]
    offset = torch.tensor(offsets) if with_offset else None
    observed = layout.scores(torch.tensor(t)).log_mean_exp(offset=offset, clip=clip, power=power)
    assert observed.item() == pytest.approx(math.log(mean(terms)), abs=1e-12)


@pytest.mark.parametrize(("offset", "clip"), [("none", 1.0), ("one for all", None), ("of candidates", 1.0)])
@over_layouts
def test_joint_mean_equals_a_loop(layout: Layout, offset: str, clip: float | None) -> None:
    t = layout.draw(std=2.0)
    offsets = {"none": 0 * OFFSETS, "one for all": 0 * OFFSETS + 0.7, "of candidates": OFFSETS}[offset]
    values = [clipped(t[index], clip) - offsets[layout.columns[index]] for index in pairs(layout, "joint")]
    given = {"none": None, "one for all": 0.7, "of candidates": torch.tensor(OFFSETS)}[offset]
    observed = layout.scores(torch.tensor(t)).joint_mean(offset=given, clip=clip)
    assert observed.item() == pytest.approx(mean(values), abs=1e-12)


@over_layouts
def test_mean_softplus_equals_a_loop(layout: Layout) -> None:
    t = layout.draw(std=3.0)
    scores = layout.scores(torch.tensor(t))
    for shift in (0.0, 1.4):
        marginal = mean([math.log1p(math.exp(t[index] - shift)) for index in pairs(layout, "marginal")])
        joint = mean([math.log1p(math.exp(shift - t[index])) for index in pairs(layout, "joint")])
        # PyTorch's softplus is the identity above 20; nothing is that large here.
        assert scores.mean_softplus(shift).item() == pytest.approx(marginal, abs=1e-12)
        assert scores.joint_mean_softplus(shift).item() == pytest.approx(joint, abs=1e-12)


@over_layouts
def test_log_mean_exp_of_joint_pairs_equals_a_loop(layout: Layout) -> None:
    t = layout.draw(std=3.0)
    for power in (-0.5, 2.0):
        expected = math.log(mean([math.exp(power * t[index]) for index in pairs(layout, "joint")]))
        observed = layout.scores(torch.tensor(t)).joint_log_mean_exp(power)
        assert observed.item() == pytest.approx(expected, abs=1e-12)


@over_layouts
def test_brier_score_equals_a_loop(layout: Layout) -> None:
    t = layout.draw(std=3.0)
    expected = mean([1 / (1 + math.exp(0.6 - t[index])) ** 2 for index in pairs(layout, "marginal")])
    observed = layout.scores(torch.tensor(t)).mean_over_marginal(SquaredSigmoid(0.6))
    assert observed.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("layout", MATRICES, ids=by_name)
def test_rows_hold_their_joint_and_marginal_pairs(layout: Layout) -> None:
    t = layout.draw()
    scores = layout.scores(torch.tensor(t))
    used = layout.joint | layout.marginal
    assert scores.joint_rows.tolist() == [i for i, _ in pairs(layout, "joint")]
    assert scores.num_candidates == max(row.sum() for row in used)
    alone = np.where(layout.marginal.any(axis=1, keepdims=True), layout.marginal, layout.joint)
    for observed, members in ((scores.row_log_mean_exp(), used), (scores.row_log_mean_exp(joint=False), alone)):
        assert observed.shape == (len(t),)
        for i, row in enumerate(members):
            if row.any():
                expected = math.log(mean([math.exp(x) for x in t[i, row]]))
                assert observed[i].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("given", ["joint", "marginal"])
def test_missing_mask_is_the_diagonal_or_the_rest(given: str) -> None:
    t, mask = torch.randn(3, 5), torch.rand(3, 5) < 0.5
    mask[0, 0], mask[1, 1] = True, False  # so that the diagonal and the mask differ
    eye = torch.eye(3, 5, dtype=torch.bool)
    masks = {"joint": mask, "marginal": ~mask} if given == "joint" else {"joint": eye, "marginal": mask}
    observed = Scores.from_matrix(t, **{given: mask})
    assert torch.equal(observed.joint, t[masks["joint"]])
    assert torch.equal(observed.marginal_values(), t[masks["marginal"]])


def test_explicit_diagonal_masks_equal_the_default() -> None:
    t, eye = torch.randn(5, 5), torch.eye(5, dtype=torch.bool)
    default, masked = Scores.from_matrix(t), Scores.from_matrix(t, joint=eye, marginal=~eye)
    assert torch.equal(default.joint, masked.joint)
    for reduction in ("log_mean_exp", "row_log_mean_exp", "mean_softplus", "joint_mean_softplus"):
        torch.testing.assert_close(getattr(default, reduction)(), getattr(masked, reduction)())


def test_samples_use_rows_of_y_in_order_by_default() -> None:
    scores = Scores.from_samples(torch.zeros(2), torch.zeros(3), y=torch.zeros(5, 1))
    assert scores.joint_columns.tolist() == [0, 1]
    offset = torch.tensor([9.0, 9.0, 1.0, 2.0, 3.0])  # the last three belong to the marginal pairs
    expected = math.log((math.exp(-1) + math.exp(-2) + math.exp(-3)) / 3)
    assert scores.log_mean_exp(offset=offset).item() == pytest.approx(expected, rel=1e-6)


def test_samples_have_no_rows() -> None:
    scores = Scores.from_samples(torch.zeros(2), torch.zeros(3))
    assert scores.num_candidates is None
    assert not scores.has_rows
    for read in (scores.row_log_mean_exp, scores.row_means, scores.row_ceiling, lambda: scores.joint_rows):
        with pytest.raises(ValueError, match="two lists of pairs"):
            read()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_scores_are_float32_or_wider(dtype: torch.dtype) -> None:
    results = []
    for layout in LAYOUTS:
        scores = layout.scores(torch.tensor(layout.draw(), dtype=dtype))
        results += [scores.joint, scores.marginal_values(), scores.log_mean_exp(clip=1.0), scores.mean_softplus()]
    scores = weighted(torch.zeros(3, 5, dtype=dtype))
    results += [scores.log_mean_exp(), scores.row_log_mean_exp(), scores.mean_softplus(), scores.joint_mean_softplus()]
    assert {result.dtype for result in results} == {torch.float64 if dtype == torch.float64 else torch.float32}


@over_exponents
def test_weighted_log_mean_exp_equals_a_loop(with_offset: bool, clip: float | None, power: float) -> None:
    t = np.random.default_rng(0).normal(0, 2, (3, 5))
    total = sum(
        LAW[j] * math.exp(power * (clipped(t[i, j], clip) - OFFSETS[j] * with_offset)) / 3
        for i in range(3)
        for j in range(5)
    )
    offset = torch.tensor(OFFSETS[:5]) if with_offset else None
    observed = weighted(torch.tensor(t)).log_mean_exp(offset=offset, clip=clip, power=power)
    assert observed.item() == pytest.approx(math.log(total), abs=1e-12)


def test_weighted_rows_and_softplus_equal_a_loop() -> None:
    t = np.random.default_rng(1).normal(0, 2, (3, 5))
    scores = weighted(torch.tensor(t))
    rows = [math.log(math.fsum(LAW[j] * math.exp(t[i, j]) for j in range(5))) for i in range(3)]
    assert scores.row_log_mean_exp().tolist() == pytest.approx(rows, abs=1e-12)
    softplus = math.fsum(LAW[j] * math.log1p(math.exp(t[i, j])) / 3 for i in range(3) for j in range(5))
    assert scores.mean_softplus().item() == pytest.approx(softplus, abs=1e-12)
    assert (scores.num_joint, scores.num_marginal, scores.num_candidates) == (3, 15, None)


def test_large_weighted_scores_have_finite_gradients() -> None:
    t = torch.full((3, 5), 1e4).requires_grad_()
    scores = weighted(t)
    assert scores.log_mean_exp().item() == 1e4
    (scores.log_mean_exp() + scores.row_log_mean_exp().sum() + scores.mean_softplus()).backward()
    np.testing.assert_allclose(t.grad.numpy(), np.tile(LAW * (1 / 3 + 1 + 1 / 3), (3, 1)), rtol=1e-6)


def test_equal_weights_are_bitwise_no_weights() -> None:
    t, joint, every = torch.randn(3, 5), torch.eye(3, 5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    plain = Scores.from_matrix(t, joint=joint, marginal=every)
    equal = Scores.from_matrix(t, joint=joint, log_weights=torch.full((5,), 0.2).log())
    for reduction in ("log_mean_exp", "row_log_mean_exp", "mean_softplus"):
        assert torch.equal(getattr(plain, reduction)(), getattr(equal, reduction)())
    assert equal.num_candidates == plain.num_candidates == 5


def test_single_candidate_has_all_the_weight() -> None:
    t = np.random.default_rng(0).normal(size=(3, 1))
    joint = torch.ones(3, 1, dtype=torch.bool)
    scores = Scores.from_matrix(torch.tensor(t), joint=joint, log_weights=torch.zeros(1, dtype=torch.float64))
    assert scores.log_mean_exp().item() == pytest.approx(math.log(np.exp(t).mean()), abs=1e-14)


def test_means_without_joint_pairs_are_zero_with_zero_gradient() -> None:
    t = torch.randn(3, 4, requires_grad=True)
    none = torch.zeros(3, 4, dtype=torch.bool)
    scores = Scores.from_matrix(t, joint=none, marginal=~none, allow_no_joint=True)
    means = [scores.joint_mean(), scores.joint_mean(offset=torch.ones(4), clip=1.0), scores.joint_mean(offset=2.0)]
    for value in [*means, scores.joint_mean_softplus()]:
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, t, retain_graph=True)
        assert (gradient == 0).all()
    assert (scores.num_joint, scores.joint.shape) == (0, (0,))


@pytest.mark.parametrize("num_joint", [0, 2])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extremes_cover_joint_and_marginal_pairs(num_joint: int, sign: float) -> None:
    t = torch.randn(3, 4, requires_grad=True)
    joint = torch.zeros(3, 4, dtype=torch.bool)
    joint[0, :num_joint] = True
    marginal = ~joint
    marginal[2, 3] = False  # no pair, so no extreme
    with torch.no_grad():
        t[joint] += 100 * sign
        t[2, 3] = 1e3
    low, high = Scores.from_matrix(t, joint=joint, marginal=marginal, allow_no_joint=True).extremes()
    used = t[joint | marginal]
    assert (low, high) == (used.min(), used.max())
    assert not low.requires_grad
    assert not high.requires_grad


def test_extremes_without_pairs_are_infinite() -> None:
    low, high = DenseMarginals(torch.zeros(0, 3, dtype=torch.float64)).extremes()
    assert (low.item(), high.item(), low.dtype) == (math.inf, -math.inf, torch.float64)


def test_values_are_subsampled_evenly() -> None:
    t = torch.randn(4, 4)
    everything = t[~torch.eye(4, dtype=torch.bool)]
    for at_most in (1, 2, 5, 11, 12, 100):
        values = Scores.from_matrix(t).marginal_values(at_most)
        assert torch.equal(values, everything[:: math.ceil(12 / at_most)])
        assert len(values) <= at_most
    assert [stride(length, 3) for length in (0, 1, 3, 4, 6, 7)] == [1, 1, 1, 2, 2, 3]


def test_results_are_on_the_device_of_the_scores() -> None:
    t = torch.zeros(4, 4, device="meta")
    for scores in (Scores.from_matrix(t), Scores.from_samples(t[0], t[1], y=torch.cat([t, t]))):
        made = [scores.joint, scores.joint_columns, scores.log_mean_exp(), scores.mean_softplus()]
        assert {tensor.device.type for tensor in made} == {"meta"}
    rows = Scores.from_matrix(t)
    assert rows.joint_rows.device.type == rows.row_log_mean_exp().device.type == "meta"
