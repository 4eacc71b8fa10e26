"""The facts about torch in `_compat.torch_names`."""

import pytest
import torch
from torch import nn

from lightning_mi._compat import torch_names


def test_settings_have_no_tensors_and_no_submodules():
    settings = torch_names.module_settings(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not any(isinstance(value, torch.Tensor | nn.Module) for value in settings.values())
    assert {"training", "_forward_hooks"} <= settings.keys()


class Averages(torch_names.KeepsPrecision):
    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.tensor(1 / 3))
        self.register_buffer("count", torch.tensor(7))


@pytest.mark.parametrize("convert", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16()])
def test_conversions_never_narrow_buffers_of_a_child(convert):
    module = convert(nn.Sequential(Averages(), nn.Linear(2, 2)))[0]
    assert torch.equal(module.average, torch.tensor(1 / 3))
    assert torch.equal(module.count, torch.tensor(7))


def test_conversions_widen_and_move_buffers():
    assert Averages().double().average.dtype == torch.float64
    assert Averages().to("meta", torch.bfloat16).average.device.type == "meta"


def test_fused_optimizers_skip_by_the_flag_of_a_scaler():
    found = [
        torch_names.supports_amp_scaling(torch.optim.Adam([torch.zeros(1)], fused=fused)) for fused in (True, False)
    ]
    assert found == [True, False]


def test_torch_still_has_the_private_names():
    assert callable(torch._C._are_functorch_transforms_active)
    assert torch.autograd.forward_ad._current_level == -1
    assert torch.zeros(1)._version == 0


def test_torch_states_that_need_plain_autograd_are_detected():
    states = []

    def record(x):
        states.append(
            (torch_names.is_functorch_active(), torch_names.is_forward_mode_active(), torch_names.is_tracing())
        )
        return x

    x = torch.ones(2)
    record(x)
    torch.func.vmap(record)(x)
    with torch.autograd.forward_ad.dual_level():
        record(x)
    with pytest.warns(FutureWarning, match="torch.jit.trace"):
        torch.jit.trace(record, x, check_trace=False)
    assert states == [(False, False, False), (True, False, False), (False, True, False), (False, False, True)]


def test_a_compiled_module_gives_the_original():
    linear = torch.nn.Linear(2, 2)
    assert torch_names.unwrap_compiled(torch.compile(linear, backend="eager")) is linear
    assert torch_names.unwrap_compiled(linear) is linear
