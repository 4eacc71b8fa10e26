"""Scores: every reduction against a loop over pairs in NumPy."""

import math

import numpy as np
import pytest
import torch

from lightning_mi import Scores
from tests.helpers.specs import LAYOUTS, Layout, by_name

MATRICES = [layout for layout in LAYOUTS if layout.has_rows]
OFFSETS = np.array([0.3, -2.0, 1.1, 0.0, 4.0, -0.7, 2.2, 0.9, -1.3])


def pairs(layout: Layout, kind: str) -> list[tuple[int, ...]]:
    """Positions of the joint or marginal pairs, row by row."""
    return [tuple(index) for index in np.argwhere(getattr(layout, kind))]


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_pairs_are_those_of_the_masks(layout: Layout) -> None:
    t = layout.draw()
    scores = layout.scores(torch.tensor(t))
    joint, marginal = pairs(layout, "joint"), pairs(layout, "marginal")
    assert scores.joint.tolist() == [t[index] for index in joint]
    assert scores.marginal_values().tolist() == [t[index] for index in marginal]
    assert scores.joint_columns.tolist() == [layout.columns[index] for index in joint]
    assert (scores.num_joint, scores.num_marginal) == (len(joint), len(marginal))
    assert torch.equal(scores.y, torch.tensor(layout.y))


@pytest.mark.parametrize("power", [1.0, 2.0, -0.5])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("with_offset", [False, True], ids=["no offset", "offset"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_log_mean_exp_equals_a_loop(layout: Layout, with_offset: bool, clip: float | None, power: float) -> None:
    t = layout.draw(std=2.0)
    offsets = OFFSETS[: layout.columns.max() + 1] * with_offset
    terms = []
    for index in pairs(layout, "marginal"):
        clipped = t[index] if clip is None else min(max(t[index], -clip), clip)
        terms.append(math.exp(power * (clipped - offsets[layout.columns[index]])))
    offset = torch.tensor(offsets) if with_offset else None
    observed = layout.scores(torch.tensor(t)).log_mean_exp(offset=offset, clip=clip, power=power)
    assert observed.item() == pytest.approx(math.log(mean(terms)), abs=1e-12)


@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_mean_softplus_equals_a_loop(layout: Layout) -> None:
    t = layout.draw(std=3.0)
    scores = layout.scores(torch.tensor(t))
    marginal = mean([math.log1p(math.exp(t[index])) for index in pairs(layout, "marginal")])
    joint = mean([math.log1p(math.exp(-t[index])) for index in pairs(layout, "joint")])
    # PyTorch's softplus is the identity above 20; nothing is that large here.
    assert scores.mean_softplus().item() == pytest.approx(marginal, abs=1e-12)
    assert scores.joint_mean_softplus().item() == pytest.approx(joint, abs=1e-12)


@pytest.mark.parametrize("layout", MATRICES, ids=by_name)
def test_rows_hold_their_joint_and_marginal_pairs(layout: Layout) -> None:
    t = layout.draw()
    scores = layout.scores(torch.tensor(t))
    used = layout.joint | layout.marginal
    assert scores.joint_rows.tolist() == [i for i, _ in pairs(layout, "joint")]
    assert scores.num_candidates == max(row.sum() for row in used)
    observed = scores.row_log_mean_exp()
    assert observed.shape == (len(t),)
    for i, row in enumerate(used):
        if row.any():
            expected = math.log(mean([math.exp(x) for x in t[i, row]]))
            assert observed[i].item() == pytest.approx(expected, abs=1e-12)


def test_row_holds_the_diagonal_by_default() -> None:
    scores = Scores.from_matrix(torch.tensor([[5.0, 1.0], [2.0, -3.0]], dtype=torch.float64))
    expected = [math.log((math.exp(5) + math.exp(1)) / 2), math.log((math.exp(2) + math.exp(-3)) / 2)]
    assert scores.row_log_mean_exp().tolist() == pytest.approx(expected)
    assert scores.num_candidates == 2


@pytest.mark.parametrize("given", ["joint", "marginal"])
def test_mask_that_is_left_out_is_the_diagonal_or_the_rest(given: str) -> None:
    t, mask = torch.randn(3, 5), torch.rand(3, 5) < 0.5
    mask[0, 0], mask[1, 1] = True, False  # so that the diagonal and the mask differ
    eye = torch.eye(3, 5, dtype=torch.bool)
    masks = {"joint": mask, "marginal": ~mask} if given == "joint" else {"joint": eye, "marginal": mask}
    observed, expected = Scores.from_matrix(t, **{given: mask}), Scores.from_matrix(t, **masks)
    assert torch.equal(observed.joint, expected.joint)
    assert torch.equal(observed.marginal_values(), expected.marginal_values())
    assert torch.equal(observed.joint, t[masks["joint"]])
    assert torch.equal(observed.marginal_values(), t[masks["marginal"]])


def test_masks_written_out_equal_the_default() -> None:
    t, eye = torch.randn(5, 5), torch.eye(5, dtype=torch.bool)
    default, masked = Scores.from_matrix(t), Scores.from_matrix(t, joint=eye, marginal=~eye)
    assert torch.equal(default.joint, masked.joint)
    for reduction in ("log_mean_exp", "row_log_mean_exp", "mean_softplus", "joint_mean_softplus"):
        torch.testing.assert_close(getattr(default, reduction)(), getattr(masked, reduction)())


def test_samples_use_rows_of_y_in_order_by_default() -> None:
    scores = Scores.from_samples(torch.zeros(2), torch.zeros(3), y=torch.zeros(5, 1))
    assert scores.joint_columns.tolist() == [0, 1]
    offset = torch.tensor([9.0, 9.0, 1.0, 2.0, 3.0])  # the marginal pairs' are the last three
    expected = math.log((math.exp(-1) + math.exp(-2) + math.exp(-3)) / 3)
    assert scores.log_mean_exp(offset=offset).item() == pytest.approx(expected, rel=1e-6)


def test_samples_have_no_rows() -> None:
    scores = Scores.from_samples(torch.zeros(2), torch.zeros(3))
    assert scores.num_candidates is None
    for read in (scores.row_log_mean_exp, lambda: scores.joint_rows):
        with pytest.raises(ValueError, match="two lists of pairs"):
            read()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_scores_are_float32_or_wider(layout: Layout, dtype: torch.dtype) -> None:
    scores = layout.scores(torch.tensor(layout.draw(), dtype=dtype))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    results = [scores.joint, scores.marginal_values(), scores.log_mean_exp(clip=1.0), scores.mean_softplus()]
    assert {result.dtype for result in [*results, scores.joint_mean_softplus()]} == {expected}


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (1, 1)])
def test_matrix_without_masks_must_be_square_and_of_two_or_more(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"square matrix of at least 2 x 2.*pass `joint` and `marginal`"):
        Scores.from_matrix(torch.zeros(shape))


@pytest.mark.parametrize("bad", [torch.zeros(4), torch.zeros(2, 2, 2), torch.zeros(0, 0), torch.zeros(3, 3).long()])
def test_matrix_that_is_none_is_an_error(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"Got `matrix` of shape .*floating-point numbers in 2 dimensions"):
        Scores.from_matrix(bad)


@pytest.mark.parametrize("name", ["joint", "marginal"])
@pytest.mark.parametrize("bad", [torch.zeros(2, 2), torch.zeros(0), torch.zeros(3).long(), torch.zeros(())])
def test_list_that_is_none_is_an_error(name: str, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=f"Got `{name}` of shape .*in 1 dimension,"):
        Scores.from_samples(**{"joint": torch.zeros(3), "marginal": torch.zeros(3), name: bad})


@pytest.mark.parametrize("name", ["joint", "marginal"])
def test_mask_of_another_type_or_shape_is_an_error(name: str) -> None:
    for bad in (torch.ones(3, 3), torch.ones(3, 4, dtype=torch.bool), torch.ones(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=f"Got a `{name}` mask of shape .*boolean and of the same shape"):
            Scores.from_matrix(torch.zeros(3, 3), **{name: bad})


@pytest.mark.parametrize("name", ["joint", "marginal"])
def test_mask_without_pairs_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"Got a `{name}` mask without a single True"):
        Scores.from_matrix(torch.zeros(3, 3), **{name: torch.zeros(3, 3, dtype=torch.bool)})


def test_candidates_and_columns_that_do_not_fit_the_scores_are_refused():
    with pytest.raises(ValueError, match="3 candidates `y` for 4 columns"):
        Scores.from_matrix(torch.zeros(4, 4), y=torch.zeros(3, 2))
    for name in ("joint", "marginal"):
        columns = {f"{name}_columns": torch.zeros(1, dtype=torch.long)}
        with pytest.raises(ValueError, match=rf"{name}_columns of shape \(1,\) for {name} scores of shape \([23],\)"):
            Scores.from_samples(torch.zeros(2), torch.zeros(3), **columns)


LAW = np.array([0.4, 0.05, 0.0, 0.3, 0.25])


def weighted(t: np.ndarray, dtype: torch.dtype = torch.float64) -> Scores:
    joint = torch.eye(3, 5, dtype=torch.bool)
    return Scores.from_matrix(torch.tensor(t, dtype=dtype), joint=joint, log_weights=torch.tensor(LAW).log())


@pytest.mark.parametrize("power", [1.0, 2.0, -0.5])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("with_offset", [False, True], ids=["no offset", "offset"])
def test_weighted_log_mean_exp_equals_a_loop(with_offset: bool, clip: float | None, power: float) -> None:
    t, total = np.random.default_rng(0).normal(0, 2, (3, 5)), 0.0
    for i in range(3):
        for j in range(5):
            clipped = t[i, j] if clip is None else min(max(t[i, j], -clip), clip)
            total += LAW[j] * math.exp(power * (clipped - OFFSETS[j] * with_offset)) / 3
    offset = torch.tensor(OFFSETS[:5]) if with_offset else None
    observed = weighted(t).log_mean_exp(offset=offset, clip=clip, power=power)
    assert observed.item() == pytest.approx(math.log(total), abs=1e-12)


def test_weighted_rows_and_softplus_equal_a_loop() -> None:
    t = np.random.default_rng(1).normal(0, 2, (3, 5))
    scores = weighted(t)
    rows = [math.log(math.fsum(LAW[j] * math.exp(t[i, j]) for j in range(5))) for i in range(3)]
    assert scores.row_log_mean_exp().tolist() == pytest.approx(rows, abs=1e-12)
    softplus = math.fsum(LAW[j] * math.log1p(math.exp(t[i, j])) / 3 for i in range(3) for j in range(5))
    assert scores.mean_softplus().item() == pytest.approx(softplus, abs=1e-12)
    assert (scores.num_joint, scores.num_marginal, scores.num_candidates) == (3, 15, None)


def test_weights_keep_large_scores_finite_and_give_no_gradient_where_they_are_zero() -> None:
    t = torch.full((3, 5), 1e4).requires_grad_()
    scores = Scores.from_matrix(t, joint=torch.eye(3, 5, dtype=torch.bool), log_weights=torch.tensor(LAW).log())
    assert scores.log_mean_exp().item() == 1e4
    (scores.log_mean_exp() + scores.row_log_mean_exp().sum() + scores.mean_softplus()).backward()
    np.testing.assert_allclose(t.grad.numpy(), np.tile(LAW * (1 / 3 + 1 + 1 / 3), (3, 1)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_weights_follow_the_type_of_the_scores(dtype: torch.dtype) -> None:
    scores = weighted(np.zeros((3, 5)), dtype)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    results = [scores.log_mean_exp(), scores.row_log_mean_exp(), scores.mean_softplus()]
    assert {result.dtype for result in results} == {expected}


def test_equal_weights_are_bitwise_no_weights() -> None:
    t, joint, every = torch.randn(3, 5), torch.eye(3, 5, dtype=torch.bool), torch.ones(3, 5, dtype=torch.bool)
    plain = Scores.from_matrix(t, joint=joint, marginal=every)
    equal = Scores.from_matrix(t, joint=joint, log_weights=torch.full((5,), 0.2).log())
    for reduction in ("log_mean_exp", "row_log_mean_exp", "mean_softplus"):
        assert torch.equal(getattr(plain, reduction)(), getattr(equal, reduction)())
    assert equal.num_candidates == plain.num_candidates == 5


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            torch.full((3,), 1 / 3),
            r"log_weights of shape \(3,\) .* one floating-point number for each candidate, \(5,\)",
        ),
        (torch.ones(5, dtype=torch.long), "type torch.int64"),
        (torch.full((5,), 0.3), "weights sum to 1.5: they are a law of the candidates"),
        (torch.tensor([0.5, 0.5, 0.0, 0.0, math.nan]), "weights sum to nan"),
    ],
    ids=str,
)
def test_weights_that_are_no_law_of_the_candidates_are_an_error(weights: torch.Tensor, message: str) -> None:
    log_weights = weights.log() if weights.is_floating_point() else weights
    with pytest.raises(ValueError, match=message):
        Scores.from_matrix(torch.zeros(3, 5), log_weights=log_weights)


def test_weights_with_a_mask_that_leaves_out_marginal_pairs_are_an_error() -> None:
    marginal = ~torch.eye(3, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match="the weights sum to 1 over every row's pairs"):
        Scores.from_matrix(torch.zeros(3, 5), marginal=marginal, log_weights=torch.tensor(LAW).log())


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("offset", ["none", "one for all", "of candidates"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=by_name)
def test_joint_mean_equals_a_loop(layout: Layout, offset: str, clip: float | None) -> None:
    t = layout.draw(std=2.0)
    offsets = {"none": 0 * OFFSETS, "one for all": 0 * OFFSETS + 0.7, "of candidates": OFFSETS}[offset]
    values = []
    for index in pairs(layout, "joint"):
        clipped = t[index] if clip is None else min(max(t[index], -clip), clip)
        values.append(clipped - offsets[layout.columns[index]])
    given = {"none": None, "one for all": 0.7, "of candidates": torch.tensor(OFFSETS)}[offset]
    observed = layout.scores(torch.tensor(t)).joint_mean(offset=given, clip=clip)
    assert observed.item() == pytest.approx(mean(values), abs=1e-12)


def test_means_over_no_joint_pair_are_zero_with_a_zero_gradient() -> None:
    t = torch.randn(3, 4, requires_grad=True)
    none = torch.zeros(3, 4, dtype=torch.bool)
    scores = Scores.from_matrix(t, joint=none, marginal=~none, allow_no_joint=True)
    means = [scores.joint_mean(), scores.joint_mean(offset=torch.ones(4), clip=1.0), scores.joint_mean(offset=2.0)]
    for value in [*means, scores.joint_mean_softplus()]:
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, t, retain_graph=True)
        assert (gradient == 0).all()
    assert (scores.num_joint, scores.joint.shape) == (0, (0,))


def test_no_marginal_pair_is_an_error_even_where_no_joint_pair_is_allowed() -> None:
    none = torch.zeros(3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="Got a `marginal` mask without a single True"):
        Scores.from_matrix(torch.zeros(3, 3), joint=none, marginal=none, allow_no_joint=True)
