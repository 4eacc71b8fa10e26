"""Critics against NumPy and against plain forms of the same functions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_mi.critics import (
    AbstractCritic,
    BilinearCritic,
    CalibratedCritic,
    InnerProductCritic,
    JointCritic,
    LabelCritic,
    SeparableCritic,
)
from tests.helpers import critic_formulas
from tests.helpers.critic_specs import CRITICS, CriticSpec
from tests.helpers.specs import by_name

N, M, DX, DY = 6, 4, 3, 5


over_critics = pytest.mark.parametrize("spec", CRITICS, ids=by_name)


def views(n: int = N, m: int = N, y_dim: int = DY) -> tuple[Tensor, Tensor]:
    return torch.randn(n, DX).double(), torch.randn(m, y_dim).double()


@over_critics
def test_scores_equal_the_formula(spec: CriticSpec) -> None:
    critic, (x, y) = spec.make(DX).double(), views(m=M, y_dim=DX)
    observed = critic.pairwise(x, y).detach().numpy()
    np.testing.assert_allclose(observed, spec.reference(critic, x.numpy(), y.numpy()), rtol=1e-12, atol=1e-13)


@over_critics
def test_scores_under_autocast_equal_the_formula_but_for_rounding(spec: CriticSpec) -> None:
    # Views far from 0 and close to each other: a difference of their products in bfloat16 is mostly rounding.
    critic, (x, y) = spec.make(DX), (view.float() + 8 for view in views(y_dim=DX))
    expected = spec.reference(critic, x.double().numpy(), y.double().numpy())
    tolerance = 8 * torch.finfo(torch.bfloat16).eps * np.abs(expected).max()
    with torch.autocast("cpu", torch.bfloat16):
        found = critic.pairwise(x, y), critic.paired(x, y)
    for observed, exact in zip(found, (expected, np.diagonal(expected)), strict=True):
        np.testing.assert_allclose(observed.detach().double().numpy(), exact, rtol=0, atol=tolerance)


@over_critics
def test_pairwise_scores_every_row_against_every_row(spec: CriticSpec) -> None:
    critic, (x, y) = spec.make(DX).double(), views(m=M, y_dim=DX)
    before = x.clone(), y.clone()
    scores = critic.pairwise(x, y)
    assert scores.shape == (N, M)
    for i in range(N):
        torch.testing.assert_close(scores[i], critic.paired(x[i].expand(M, -1), y), rtol=0, atol=1e-14)
    assert torch.equal(x, before[0]), "views are not overwritten"
    assert torch.equal(y, before[1])


@over_critics
def test_gradients_pass_gradcheck(spec: CriticSpec) -> None:
    critic = spec.make(DX).double()
    x, y = (view.requires_grad_() for view in views(n=3, m=3, y_dim=DX))
    assert torch.autograd.gradcheck(critic.pairwise, (x, y))
    assert torch.autograd.gradcheck(critic.paired, (x, y))


@pytest.mark.parametrize(("hidden", "output_bias"), [((8,), True), ((8, 7, 6), False)])
def test_joint_critic_is_an_mlp_of_the_concatenation(hidden: tuple[int, ...], output_bias: bool) -> None:
    critic = JointCritic(DX, DY, hidden=hidden, output_bias=output_bias).double()
    layers: list[nn.Module] = []
    for width, next_width in zip((DX + DY, *hidden), hidden, strict=False):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    plain = nn.Sequential(*layers, nn.Linear(hidden[-1], 1, bias=output_bias)).double()
    for parameter, other in zip(critic.parameters(), plain.parameters(), strict=True):
        other.data.copy_(parameter)
    x, y = views(m=M)
    observed = critic.pairwise(x.requires_grad_(), y.requires_grad_())
    x2, y2 = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    pairs = torch.cat([x2.repeat_interleave(M, dim=0), y2.repeat(N, 1)], dim=1)
    expected = plain(pairs).view(N, M)
    torch.testing.assert_close(observed, expected, rtol=0, atol=1e-14)

    weights = torch.randn(N, M, dtype=torch.float64)
    (weights * observed).sum().backward()
    (weights * expected).sum().backward()
    for leaf, other_leaf in zip([x, y, *critic.parameters()], [x2, y2, *plain.parameters()], strict=True):
        torch.testing.assert_close(leaf.grad, other_leaf.grad, rtol=1e-12, atol=1e-13)


def test_joint_critic_is_initialized_like_one_layer() -> None:
    torch.manual_seed(3)
    critic = JointCritic(DX, DY, hidden=(64,))
    torch.manual_seed(3)
    layer = nn.Linear(DX + DY, 64)
    assert torch.equal(critic.first.weight, layer.weight)
    assert torch.equal(critic.first.bias, layer.bias)


def test_views_may_differ_in_width() -> None:
    x, y = views(m=M)
    separable, bilinear = SeparableCritic(DX, DY, hidden=(8, 7), embed_dim=2).double(), BilinearCritic(DX, DY).double()
    for critic, formula in ((separable, critic_formulas.separable), (bilinear, critic_formulas.bilinear)):
        expected = formula(critic, x.numpy(), y.numpy())
        np.testing.assert_allclose(critic.pairwise(x, y).detach().numpy(), expected, atol=1e-14)


def test_bilinear_critic_starts_with_unit_variance() -> None:
    scores = torch.stack([BilinearCritic(40, 30).paired(torch.randn(50, 40), torch.randn(50, 30)) for _ in range(100)])
    assert scores.std().item() == pytest.approx(1.0, abs=0.06)  # 4 standard errors of 5000 values with heavier tails


def test_zero_vectors_have_cosine_zero() -> None:
    assert (InnerProductCritic(normalize=True).pairwise(torch.zeros(2, 3), torch.randn(2, 3)) == 0).all()


@pytest.mark.parametrize(
    ("x", "y"), [((N, DX + 1), (N, DY)), ((N, DX), (N, DY - 1)), ((DX,), (N, DY)), ((N, DX), (N, 1, DY))]
)
@pytest.mark.parametrize("make", [JointCritic, SeparableCritic, BilinearCritic])
def test_views_of_another_shape_are_an_error(make: type, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    critic = make(DX, DY)
    for score in (critic.paired, critic.pairwise):
        with pytest.raises(ValueError, match=rf"takes \(N, {DX}\) and \(M, {DY}\)") as raised:
            score(torch.zeros(x), torch.zeros(y))
        assert f"Got x of shape {x} and y of shape {y}" in str(raised.value)


@pytest.mark.parametrize(("x", "y"), [((N, 3), (N, 4)), ((3,), (3,)), ((N, 2, 3), (N, 2, 3))])
def test_inner_product_of_other_shapes_is_an_error(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    for score in (InnerProductCritic().paired, InnerProductCritic().pairwise):
        with pytest.raises(ValueError, match="Got x of shape"):
            score(torch.zeros(x), torch.zeros(y))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JointCritic(DX, DY, hidden=()), r"Got hidden=\(\): .*Pass hidden="),
        (lambda: SeparableCritic(DX, DY, hidden=(0,)), "at least 1"),
        (lambda: SeparableCritic(DX, DY, embed_dim=0), "Got embed_dim=0"),
        (lambda: InnerProductCritic(temperature=0.0), "Got temperature=0.0"),
        (lambda: InnerProductCritic(temperature=math.inf), "Got temperature=inf"),
        (lambda: InnerProductCritic(temperature=math.nan), "Got temperature=nan"),
    ],
)
def test_invalid_arguments_are_an_error(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("critic", [JointCritic, SeparableCritic, InnerProductCritic, CalibratedCritic])
def test_options_are_keyword_only(critic: type) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        critic(InnerProductCritic(), True, (8,))


def test_abstract_critic_cannot_be_created() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AbstractCritic()  # type: ignore[abstract]  # the error under test


def test_label_critic_gives_the_output_of_each_label() -> None:
    x, labels = torch.randn(4, 3), torch.tensor([2, 0, 2, 1])
    assert LabelCritic().paired(x, labels).tolist() == [x[i, labels[i]].item() for i in range(4)]
    matrix = LabelCritic().pairwise(x, labels[:3].to(torch.int32))
    assert matrix.tolist() == [[x[i, labels[j]].item() for j in range(3)] for i in range(4)]
    assert list(LabelCritic().parameters()) == []


@pytest.mark.parametrize("method", ["paired", "pairwise"])
@pytest.mark.parametrize("bad", [3, -1])
def test_label_without_an_output_is_an_error(method: str, bad: int) -> None:
    with pytest.raises(ValueError, match=f"Got label {bad} for x of shape .*: the encoder has 3 outputs, for labels"):
        getattr(LabelCritic(), method)(torch.zeros(2, 3), torch.tensor([0, bad]))


@pytest.mark.parametrize("method", ["paired", "pairwise"])
def test_other_types_than_labels_are_an_error(method: str) -> None:
    score = getattr(LabelCritic(), method)
    for dtype in (torch.float32, torch.bool, torch.complex64):
        with pytest.raises(TypeError, match=rf"Got y of type {dtype}: LabelCritic takes labels"):
            score(torch.zeros(2, 3), torch.zeros(2, dtype=dtype))
    with pytest.raises(ValueError, match=r"x of shape \(2, 3\) and y of shape \(2, 3\): LabelCritic takes"):
        score(torch.zeros(2, 3), torch.zeros(2, 3))


def test_another_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="Got 2 x and 3 labels"):
        LabelCritic().paired(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
