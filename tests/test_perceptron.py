"""Perceptrons that go forward and backward by hand, as a critic's networks do on a CPU."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from lightning_mi import MIEstimationModule, bounds, critics
from lightning_mi.perceptron import MLP

K, H, OUT = 512, 64, 3  # large enough to be worth it


def make(*, rectified: bool = False, bias: bool = True, out: int = OUT) -> MLP:
    torch.manual_seed(0)
    first = [nn.ReLU()] if rectified else []
    return MLP(
        *first, nn.Linear(H, H, bias), nn.ReLU(), nn.Linear(H, H), nn.ReLU(inplace=True), nn.Linear(H, out, bias)
    )


def inputs(rows: int = K) -> torch.Tensor:
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(1))


def by_hand(output: torch.Tensor) -> bool:
    return type(output.grad_fn).__name__ in ("_PassBackward", "_PairsBackward")


def numpy_pass(network: MLP, x: np.ndarray, upstream: np.ndarray) -> list[np.ndarray]:
    """Outputs, the gradient of x, and those of the parameters, in float64."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().double().numpy() for layer in layers]
    rectified = [isinstance(network[0], nn.ReLU), *[True] * (len(layers) - 1)]
    raw, taken = [x], []
    for layer, weight, is_rectified in zip(layers, weights, rectified, strict=True):
        taken.append(np.maximum(raw[-1], 0) if is_rectified else raw[-1])
        shift = 0 if layer.bias is None else layer.bias.detach().double().numpy()
        raw.append(np.einsum("ki,oi->ko", taken[-1], weight) + shift)
    found, gradient = [], upstream
    for i in reversed(range(len(layers))):
        if layers[i].bias is not None:
            found.append(gradient.sum(axis=0))
        found.append(np.einsum("ko,ki->oi", gradient, taken[i]))
        gradient = np.einsum("ko,oi->ki", gradient, weights[i]) * ((raw[i] > 0) if rectified[i] else 1)
    return [raw[-1], gradient, *reversed(found)]


@pytest.mark.parametrize("out", [1, OUT])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rectified", [True, False])
def test_outputs_and_gradients_equal_numpy(rectified, bias, out) -> None:
    network, x = make(rectified=rectified, bias=bias, out=out), inputs().requires_grad_()
    upstream = torch.randn(K, out, generator=torch.Generator().manual_seed(2))
    before = x.detach().clone()
    output = network(x)
    assert by_hand(output)
    found = [output, *torch.autograd.grad(output, [x, *network.parameters()], upstream)]
    assert torch.equal(x, before)
    for one, expected in zip(
        found, numpy_pass(network, before.double().numpy(), upstream.double().numpy()), strict=True
    ):
        np.testing.assert_allclose(one.detach().numpy(), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_all_pairs_of_a_joint_critic_and_their_gradients_equal_numpy(wanted) -> None:
    torch.manual_seed(0)
    critic = critics.JointCritic(H, H, hidden=(H, H))
    critic.first.requires_grad_(False)  # else both of its halves want a gradient, whatever x and y do
    x, y = inputs(40).requires_grad_(wanted[0]), inputs(30).flip(1).requires_grad_(wanted[1])
    upstream = torch.randn(40, 30, generator=torch.Generator().manual_seed(2))
    scores = critic.pairwise(x, y)
    assert by_hand(scores)
    leaves = [one for one in (x, y) if one.requires_grad] + list(critic.rest.parameters())
    found = [scores, *torch.autograd.grad(scores, leaves, upstream)]
    weight, bias = (one.detach().double().numpy() for one in (critic.first.weight, critic.first.bias))
    hx = np.einsum("ni,oi->no", x.detach().double().numpy(), weight[:, :H]) + bias
    hy = np.einsum("ni,oi->no", y.detach().double().numpy(), weight[:, H:])
    sums = (hx[:, None] + hy).reshape(-1, H)
    output, of_sums, *others = numpy_pass(critic.rest, sums, upstream.double().numpy().reshape(-1, 1))
    of_pairs = of_sums.reshape(40, 30, H)
    of_x = np.einsum("no,oi->ni", of_pairs.sum(axis=1), weight[:, :H])
    of_y = np.einsum("mo,oi->mi", of_pairs.sum(axis=0), weight[:, H:])
    expected = [output.reshape(40, 30), *([of_x] if wanted[0] else []), *([of_y] if wanted[1] else []), *others]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), other, rtol=0, atol=3e-6 * np.abs(other).max())


def test_all_pairs_of_a_joint_critic_whose_halves_are_fixed() -> None:
    critic = critics.JointCritic(H, H, hidden=(H, H))
    critic.first.requires_grad_(False)
    scores = critic.pairwise(inputs(40), inputs(30))
    assert by_hand(scores)
    scores.sum().backward()
    assert [name for name, one in critic.named_parameters() if one.grad is not None] == [
        name for name, _ in critic.named_parameters() if name.startswith("rest")
    ]


def test_gradients_of_gradients_equal_those_of_torch_in_float64() -> None:
    def penalty_gradient(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.requires_grad_()
        output = network(x)
        (slope,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        penalty = (slope.norm(dim=1) - 1).square().mean() + output.mean()
        return list(torch.autograd.grad(penalty, [x, *network.parameters()]))

    network = make()
    found = penalty_gradient(network, inputs())
    expected = penalty_gradient(nn.Sequential(*copy.deepcopy(network).double()), inputs().double())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5 * float(other.abs().max().clamp(min=1e-3)))


def test_what_needs_no_gradient_gets_none() -> None:
    network = make()
    network[0].weight.requires_grad_(False)
    network[2].bias.requires_grad_(False)
    output = network(inputs())
    assert by_hand(output)
    output.sum().backward()
    had = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert had == ["0.bias", "2.weight", "4.weight", "4.bias"]
    plain = nn.Sequential(*copy.deepcopy(network))
    plain.zero_grad()
    plain(inputs()).sum().backward()
    for name in had:
        torch.testing.assert_close(
            network.get_parameter(name).grad, plain.get_parameter(name).grad, rtol=1e-4, atol=1e-4
        )


def test_a_weight_that_changes_before_the_backward_pass_is_an_error() -> None:
    network = make()
    output = network(inputs()).sum()
    with torch.no_grad():
        network[2].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # of torch itself, in its forward mode
def test_torch_sees_each_operation_where_it_must() -> None:
    network, x = make(), inputs()
    assert by_hand(network(x))
    assert not by_hand(network(x[:8]))  # too small
    assert not by_hand(network(x.view(8, K // 8, H)))
    assert not by_hand(copy.deepcopy(network).double()(x.double()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(x).dtype == torch.bfloat16
    parameters = dict(network.named_parameters())

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, parameters, (x,)).sum()

    of_all = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x.view(2, K // 2, H))
    network(x).sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(of_all[name].sum(0), parameter.grad, rtol=1e-4, atol=1e-3)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    expected = torch.func.jvp(network, (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(tangent, expected)
    handle = nn.modules.module.register_module_forward_hook(lambda module, inputs, output: None)
    assert not by_hand(network(x))
    handle.remove()
    assert by_hand(network(x))
    network[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    assert not by_hand(network(x))


def test_a_compiled_critic_gives_the_same() -> None:
    network, x = make(), inputs()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "critic", [critics.SeparableCritic(H, H, hidden=(H, H)), critics.JointCritic(H, H, hidden=(H, H))]
)
def test_a_critic_has_a_gradient_penalty_without_being_asked(critic) -> None:
    """As Wasserstein-like bounds have it; joint critics of this size are below the first tile."""
    x = inputs(40).requires_grad_()
    scores = MIEstimationModule(critic, bounds.DV()).step((x, inputs(40).flip(0))).terms.value
    (slope,) = torch.autograd.grad(scores, x, create_graph=True)
    slope.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in critic.parameters() if p.grad is not None)


def test_adam_is_fused_by_default_unless_gradients_are_scaled() -> None:
    module = MIEstimationModule(critics.SeparableCritic(2, 2), bounds.DV())
    assert module.configure_optimizers().param_groups[0]["fused"]
    assert not module._optimizers.make(list(module.parameters()), scaled=True).param_groups[0]["fused"]
    whole = [nn.Parameter(torch.zeros(2, device="meta"))]
    assert not module._optimizers.make(whole).param_groups[0]["fused"]
