"""Critics against NumPy and against the plain forms that they are faster versions of."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_mi import Scores, bounds
from lightning_mi.critics import (
    AbstractCritic,
    BilinearCritic,
    CalibratedCritic,
    InnerProductCritic,
    JointCritic,
    LabelCritic,
    SeparableCritic,
)

N, M, DX, DY = 6, 4, 3, 5


def calibrated(make: Callable[[], AbstractCritic]) -> CalibratedCritic:
    critic = CalibratedCritic(make(), scale=True, offset_unit=1.0)
    with torch.no_grad():
        critic.offset.fill_(-1.5)
        critic.log_scale.fill_(0.4)
    return critic


CRITICS = {
    "joint": partial(JointCritic, DX, DY, hidden=(8, 7)),
    "joint, one layer": partial(JointCritic, DX, DY, hidden=(8,)),
    "joint, no output bias": partial(JointCritic, DX, DY, hidden=(8,), output_bias=False),
    "separable": partial(SeparableCritic, DX, DY, hidden=(8, 7), embed_dim=2),
    "bilinear": partial(BilinearCritic, DX, DY),
    "inner product": InnerProductCritic,
    "inner product, all options": partial(InnerProductCritic, normalize=True, temperature=0.2, scaled=True),
    "calibrated": partial(calibrated, partial(BilinearCritic, DX, DY)),
}


def views(name: str, n: int = N, m: int = N) -> tuple[Tensor, Tensor]:
    return torch.randn(n, DX).double(), torch.randn(m, DX if "inner product" in name else DY).double()


def numpy_mlp(network: nn.Module, x: np.ndarray) -> np.ndarray:
    for layer in network:
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.detach().numpy().T
            x = x if layer.bias is None else x + layer.bias.detach().numpy()
        else:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("name", CRITICS)
def test_paired_is_the_diagonal_of_pairwise(name: str) -> None:
    critic, (x, y) = CRITICS[name]().double(), views(name)
    torch.testing.assert_close(critic.paired(x, y), critic.pairwise(x, y).diagonal(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CRITICS)
def test_pairwise_scores_every_row_of_x_against_every_row_of_y(name: str) -> None:
    critic, (x, y) = CRITICS[name]().double(), views(name, m=M)
    scores = critic.pairwise(x, y)
    assert scores.shape == (N, M)
    for i in range(N):
        torch.testing.assert_close(scores[i], critic.paired(x[i].expand(M, -1), y), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CRITICS)
def test_gradients_are_numerically_right(name: str) -> None:
    critic = CRITICS[name]().double()
    x, y = (view.requires_grad_() for view in views(name, n=3, m=3))
    assert torch.autograd.gradcheck(critic.pairwise, (x, y))
    assert torch.autograd.gradcheck(critic.paired, (x, y))


@pytest.mark.parametrize("name", CRITICS)
def test_scoring_leaves_its_inputs_alone(name: str) -> None:
    critic, (x, y) = CRITICS[name]().double(), views(name)
    before = x.clone(), y.clone()
    critic.pairwise(x, y), critic.paired(x, y)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("output_bias", [True, False])
@pytest.mark.parametrize("hidden", [(8,), (8, 7), (8, 7, 6)])
def test_joint_critic_is_the_perceptron_of_the_tiled_concatenation(hidden: tuple[int, ...], output_bias: bool) -> None:
    critic = JointCritic(DX, DY, hidden=hidden, output_bias=output_bias).double()
    layers: list[nn.Module] = []
    for width, next_width in zip((DX + DY, *hidden), hidden, strict=False):
        layers += [nn.Linear(width, next_width), nn.ReLU()]
    plain = nn.Sequential(*layers, nn.Linear(hidden[-1], 1, bias=output_bias)).double()
    for own, other in zip(critic.parameters(), plain.parameters(), strict=True):
        other.data.copy_(own)
    x, y = views("joint", m=M)
    observed = critic.pairwise(x.requires_grad_(), y.requires_grad_())
    x2, y2 = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    tiled = torch.cat([x2.repeat_interleave(M, dim=0), y2.repeat(N, 1)], dim=1)
    expected = plain(tiled).view(N, M)
    torch.testing.assert_close(observed, expected, rtol=0, atol=1e-14)

    weights = torch.randn(N, M, dtype=torch.float64)
    (weights * observed).sum().backward()
    (weights * expected).sum().backward()
    for own, other in zip([x, y, *critic.parameters()], [x2, y2, *plain.parameters()], strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-12, atol=1e-13)


def test_joint_critic_starts_like_a_layer_over_the_concatenation() -> None:
    torch.manual_seed(3)
    critic = JointCritic(DX, DY, hidden=(64,))
    torch.manual_seed(3)
    layer = nn.Linear(DX + DY, 64)
    assert torch.equal(critic.first.weight, layer.weight)
    assert torch.equal(critic.first.bias, layer.bias)


def test_output_bias_shifts_every_score() -> None:
    critic, (x, y) = JointCritic(DX, DY, hidden=(8,)).double(), views("joint")
    before = critic.pairwise(x, y)
    critic.rest[-1].bias.data += 2.0
    torch.testing.assert_close(critic.pairwise(x, y), before + 2.0)
    assert JointCritic(DX, DY, hidden=(8,), output_bias=False).rest[-1].bias is None


def test_separable_critic_is_an_inner_product_of_two_perceptrons() -> None:
    critic, (x, y) = SeparableCritic(DX, DY, hidden=(8, 7), embed_dim=2).double(), views("separable", m=M)
    expected = numpy_mlp(critic.x_net, x.numpy()) @ numpy_mlp(critic.y_net, y.numpy()).T
    np.testing.assert_allclose(critic.pairwise(x, y).detach().numpy(), expected, atol=1e-14)


def test_bilinear_critic_is_its_formula() -> None:
    critic, (x, y) = BilinearCritic(DX, DY).double(), views("bilinear", m=M)
    expected = np.einsum("id,de,je->ij", x.numpy(), critic.weight.detach().numpy(), y.numpy())
    np.testing.assert_allclose(critic.pairwise(x, y).detach().numpy(), expected, atol=1e-14)


def test_bilinear_critic_starts_with_scores_of_unit_variance() -> None:
    scores = torch.stack([BilinearCritic(40, 30).paired(torch.randn(50, 40), torch.randn(50, 30)) for _ in range(100)])
    assert scores.std().item() == pytest.approx(1.0, abs=0.06)  # 4 standard errors of 5000 values with heavier tails


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("normalize", [False, True])
def test_inner_product_critic_is_its_formula(normalize: bool, temperature: float, scaled: bool) -> None:
    x, y = views("inner product", m=M)
    expected = x.numpy() @ y.numpy().T / temperature
    if normalize:
        expected /= np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(y, axis=1)
    if scaled:
        expected /= math.sqrt(DX)
    np.testing.assert_allclose(
        InnerProductCritic(normalize=normalize, temperature=temperature, scaled=scaled).pairwise(x, y),
        expected,
        atol=1e-14,
    )


def test_zero_vectors_have_cosine_zero() -> None:
    assert (InnerProductCritic(normalize=True).pairwise(torch.zeros(2, 3), torch.randn(2, 3)) == 0).all()


@pytest.mark.parametrize("name", [name for name in CRITICS if "inner product" not in name])
@pytest.mark.parametrize(
    ("x", "y"), [((N, DX + 1), (N, DY)), ((N, DX), (N, DY - 1)), ((DX,), (N, DY)), ((N, DX), (N, 1, DY))]
)
def test_representations_of_another_shape_are_an_error(name: str, x: tuple[int, ...], y: tuple[int, ...]) -> None:
    critic = CRITICS[name]()
    for score in (critic.paired, critic.pairwise):
        with pytest.raises(ValueError, match=rf"takes \(N, {DX}\) and \(M, {DY}\)") as raised:
            score(torch.zeros(x), torch.zeros(y))
        assert f"Got x of shape {x} and y of shape {y}" in str(raised.value)


@pytest.mark.parametrize(("x", "y"), [((N, 3), (N, 4)), ((3,), (3,)), ((N, 2, 3), (N, 2, 3))])
def test_inner_product_of_other_shapes_is_an_error(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    for score in (InnerProductCritic().paired, InnerProductCritic().pairwise):
        with pytest.raises(ValueError, match="Got x of shape"):
            score(torch.zeros(x), torch.zeros(y))


def test_joint_critic_without_a_hidden_layer_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a hidden layer"):
        JointCritic(DX, DY, hidden=())


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_temperature_that_is_not_positive_is_an_error(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"Got temperature={temperature}"):
        InnerProductCritic(temperature=temperature)


def test_abstract_critic_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AbstractCritic()


def calibrate(critic: CalibratedCritic, bound: bounds.AbstractBound, x: Tensor, target: float) -> None:
    critic.calibrate(
        lambda: Scores.from_matrix(critic.pairwise(x, x)).marginal_values(),
        lambda: bound(Scores.from_matrix(critic.pairwise(x, x))).log_normalizer,
        target,
    )


@pytest.mark.parametrize("target", [-5.0, 0.0, 2.0])
@pytest.mark.parametrize("bound", [bounds.DV(), bounds.InfoNCE(), bounds.NWJ(), bounds.SMILE(1.0)], ids=repr)
@pytest.mark.parametrize("scale", [False, True])
def test_calibration_puts_the_log_normalizer_at_its_target(
    bound: bounds.AbstractBound, target: float, scale: bool
) -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), scale=scale), torch.randn(16, 8, dtype=torch.float64) * 3
    calibrate(critic.double(), bound, x, target)
    scores = Scores.from_matrix(critic.pairwise(x, x))
    assert bound(scores).log_normalizer.item() == pytest.approx(target, abs=1e-12)
    plain = Scores.from_matrix(InnerProductCritic().pairwise(x, x)).marginal_values()
    expected = 1.0 if scale else np.std(plain.numpy(), ddof=1)
    assert np.std(scores.marginal_values().detach().numpy(), ddof=1) == pytest.approx(expected, rel=1e-12)


def test_calibration_of_the_scale_alone_leaves_the_scores_where_they_are() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), offset=False, scale=True).double(), torch.randn(16, 8).double()
    before = critic.pairwise(x, x).detach()
    calibrate(critic, bounds.DV(), x, target=0.0)
    assert {name for name, _ in critic.named_parameters()} == {"log_scale"}
    torch.testing.assert_close(critic.pairwise(x, x).detach(), before / before[~torch.eye(16, dtype=bool)].std())


def test_scores_that_are_all_alike_keep_their_scale() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), scale=True), torch.ones(4, 2)
    calibrate(critic, bounds.DV(), x, target=1.0)
    assert critic.log_scale == 0
    torch.testing.assert_close(critic.pairwise(x, x).detach(), torch.ones(4, 4))


def test_calibration_happens_once() -> None:
    critic = CalibratedCritic(InnerProductCritic(), scale=True)
    calibrate(critic, bounds.DV(), torch.randn(8, 4), target=0.0)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    calibrate(critic, bounds.DV(), 10 + torch.randn(8, 4), target=3.0)
    assert critic.state_dict() == before


def test_calibration_is_in_the_state_dict_and_is_not_repeated_after_loading(tmp_path) -> None:
    critic, resumed = (
        CalibratedCritic(InnerProductCritic(), scale=True),
        CalibratedCritic(InnerProductCritic(), scale=True),
    )
    assert not critic.calibrated
    calibrate(critic, bounds.DV(), torch.randn(8, 4), target=0.5)
    assert set(critic.state_dict()) == {"offset", "log_scale", "calibrated"}
    torch.save(critic.state_dict(), tmp_path / "critic.pt")
    resumed.load_state_dict(torch.load(tmp_path / "critic.pt", weights_only=True))
    assert resumed.calibrated
    calibrate(resumed, bounds.DV(), 5 + torch.randn(8, 4), target=0.0)
    assert resumed.state_dict() == critic.state_dict()


def test_offset_and_scale_can_be_trained() -> None:
    critic, (x, y) = calibrated(InnerProductCritic), views("inner product")
    plain = InnerProductCritic().paired(x, y)
    critic.offset_unit = 7.0
    critic.paired(x, y).sum().backward()
    assert critic.offset.grad.item() == pytest.approx(7 * N)
    assert critic.log_scale.grad.item() == pytest.approx(math.exp(0.4) * plain.sum().item(), rel=1e-6)


def test_one_step_of_adam_moves_the_scores_by_its_rate_times_the_offset_unit() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), offset_unit=50.0), torch.randn(4, 3)
    calibrate(critic, bounds.DV(), x, target=0.0)
    before = critic.pairwise(x, x).detach()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    critic.pairwise(x, x).sum().backward()
    optimizer.step()
    torch.testing.assert_close(critic.pairwise(x, x).detach(), before - 0.05)


@pytest.mark.parametrize("unit", [0.0, -1.0, math.nan, math.inf])
def test_an_offset_unit_that_is_no_positive_number_is_an_error(unit: float) -> None:
    with pytest.raises(ValueError, match=f"offset_unit={unit}: it is a positive number"):
        CalibratedCritic(InnerProductCritic(), offset_unit=unit)


def test_calibrated_critic_with_nothing_to_calibrate_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to calibrate"):
        CalibratedCritic(InnerProductCritic(), offset=False)


def test_label_critic_gives_the_output_of_each_label() -> None:
    x, labels = torch.randn(4, 3), torch.tensor([2, 0, 2, 1])
    assert LabelCritic().paired(x, labels).tolist() == [x[i, labels[i]].item() for i in range(4)]
    matrix = LabelCritic().pairwise(x, labels[:3].to(torch.int32))
    assert matrix.tolist() == [[x[i, labels[j]].item() for j in range(3)] for i in range(4)]
    assert list(LabelCritic().parameters()) == []


def test_label_critic_can_be_calibrated() -> None:
    critic, x, labels = CalibratedCritic(LabelCritic(), scale=True), 4 * torch.randn(50, 3), torch.arange(3)
    scores = lambda: critic.pairwise(x, labels).flatten()  # noqa: E731
    critic.calibrate(scores, lambda: bounds.DV()(Scores.from_samples(scores(), scores())).log_normalizer, target=1.0)
    assert scores().std().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(critic.pairwise(x, labels), critic.log_scale.exp() * x + 30 * critic.offset)
    torch.testing.assert_close(critic.paired(x[:3], labels), critic.pairwise(x[:3], labels).diagonal())


@pytest.mark.parametrize("method", ["paired", "pairwise"])
@pytest.mark.parametrize("bad", [3, -1])
def test_label_without_an_output_is_an_error(method: str, bad: int) -> None:
    with pytest.raises(ValueError, match=f"Got label {bad} for x of shape .*: the encoder has 3 outputs, for labels"):
        getattr(LabelCritic(), method)(torch.zeros(2, 3), torch.tensor([0, bad]))


@pytest.mark.parametrize("method", ["paired", "pairwise"])
def test_label_critic_refuses_what_is_no_label(method: str) -> None:
    score = getattr(LabelCritic(), method)
    with pytest.raises(TypeError, match=r"Got y of type torch\.float32: LabelCritic takes labels, which are integers"):
        score(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"x of shape \(2, 3\) and y of shape \(2, 3\): LabelCritic takes"):
        score(torch.zeros(2, 3), torch.zeros(2, 3))


def test_labels_of_another_number_of_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="Got 2 x and 3 labels"):
        LabelCritic().paired(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))
