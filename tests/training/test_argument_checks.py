"""Wrong arguments are typed errors with what was received and what to write."""

from collections.abc import Callable
from functools import partial

import lightning.pytorch as L
import pytest
import torch
from torch import nn

from lightning_mi import (
    MIEnsemble,
    MIEstimationModule,
    bounds,
    callbacks,
    critics,
    metrics,
    pairs,
    regularizers,
)
from lightning_mi.data import GaussianDataModule, ImageDataModule, OneHotDataModule
from tests.helpers.small_module import DIM, make


def adam():
    return torch.optim.Adam([nn.Parameter(torch.zeros(1))])


BOUND = r"Write bound=bounds\.DV\(\)"
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "bound class": (partial(make, bounds.DV), TypeError, "Got bound=DV, a class.*" + BOUND),
    "bound name": (partial(make, "DV"), TypeError, "Got bound='DV', a str.*" + BOUND),
    "critic": (
        partial(make, critic=nn.Bilinear(2, 2, 1)),
        TypeError,
        "Got critic of type Bilinear.*Write critic=critics",
    ),
    "pairs": (partial(make, pairs="all"), TypeError, r"pairs='all'.*pairs=pairs\.AllPairs\(\)"),
    "weight": (
        partial(make, regularizer=0.1),
        TypeError,
        r"=0\.1, a float.*regularizer=regularizers\.Squared\(weight=0\.1\)",
    ),
    "encoder": (
        partial(make, encoder="resnet18"),
        TypeError,
        "Got encoder='resnet18', a str: an encoder is a torch module",
    ),
    "encoders": (partial(make, encoder=[nn.Flatten(), None]), TypeError, "Got encoder=None"),
    "probe": (partial(make, probe=10), TypeError, r"probe=10, an int.*probe=OnlineLinearProbe\("),
    "optimizer": (
        lambda: make(optimizer=adam()),
        TypeError,
        "optimizer of type Adam.*Write optimizer=lambda parameters",
    ),
    "scheduler": (
        lambda: make(scheduler=torch.optim.lr_scheduler.ConstantLR(adam())),
        TypeError,
        "Got scheduler of type ConstantLR.*scheduler=lambda optimizer",
    ),
    "positional": (
        lambda: MIEstimationModule(make().critic, bounds.DV(), pairs.AllPairs()),  # type: ignore[call-arg]  # the error
        TypeError,
        "positional",
    ),
    "interval": (partial(make, scheduler_interval="batch"), ValueError, "='batch': it is one of 'epoch', 'step'"),
    "chunk": (partial(make, encoder_chunk_size=2.5), TypeError, "Got encoder_chunk_size=2.5, a float"),
    "scores": (lambda: bounds.DV()(torch.eye(4)), TypeError, r"scores of type Tensor.*Scores\.from_matrix\(matrix\)"),
    "terms": (
        lambda: regularizers.Squared()(0.5),
        TypeError,
        r"Got terms=0\.5, a float.*Write terms=bound\(scores\)",
    ),
    "regularizer weight": (lambda: regularizers.Squared("0.1"), TypeError, "Got weight='0.1', a str: .* a number"),
    "target": (lambda: regularizers.Squared(target="2"), TypeError, "Got target='2', a str"),
    "members": (lambda: MIEnsemble([make()]), TypeError, "Got members of type list: .* Mapping"),
    "member": (
        lambda: MIEnsemble({"a": bounds.DV()}),  # type: ignore[dict-item]  # the error
        TypeError,
        r"member 'a'.*Write \{'a': MIEstimationModule",
    ),
    "monitored": (lambda: callbacks.StabilityMonitor("DV"), TypeError, BOUND),
    "window": (lambda: callbacks.StabilityMonitor(window="all"), TypeError, "Got window='all'"),
    "adapted": (lambda: callbacks.AdaptiveRegularizer(bound="DV"), TypeError, BOUND),
    "band": (lambda: callbacks.AdaptiveRegularizer(band=0.5), TypeError, r"Got band=0\.5, a float.*band=\(low, high\)"),
    "rate": (lambda: callbacks.StabilityMonitor(min_rate="0.1"), TypeError, "Got min_rate='0.1', a str"),
    "cap": (lambda: bounds.NWJ(cap="1"), TypeError, "Got cap='1', a str"),
    "temperature": (lambda: critics.InnerProductCritic(temperature="1"), TypeError, "Got temperature='1', a str"),
    "metric": (lambda: metrics.MutualInformation("DV"), TypeError, BOUND),
    "standard error": (lambda: metrics.StandardError("DV"), TypeError, BOUND),
    "calibrated": (
        lambda: critics.CalibratedCritic(nn.Linear(2, 2)),
        TypeError,
        "Got critic of type Linear.*AbstractCritic",
    ),
    "width": (lambda: critics.SeparableCritic("3", 3), TypeError, "Got x_dim='3', a str: .* whole number"),
    "no width": (lambda: critics.BilinearCritic(3, 0), ValueError, "Got y_dim=0: it must be at least 1"),
    "monitor": (lambda: callbacks.HeldOutCheckpoint(monitor=3), TypeError, 'Got monitor=3, an int.*monitor="val/mi"'),
    "z": (lambda: callbacks.HeldOutEarlyStopping(z="1"), TypeError, "Got z='1', a str"),
    "mi": (lambda: GaussianDataModule(mi="2"), TypeError, "Got mi='2', a str: it must be a number"),
    "dim": (lambda: GaussianDataModule(dim=-1), ValueError, "Got dim=-1: it must be at least 1"),
    "batch": (lambda: OneHotDataModule(batch_size=0), ValueError, "Got batch_size=0: it must be at least 2"),
    "batch type": (lambda: ImageDataModule("digits", batch_size="64"), TypeError, "Got batch_size='64', a str"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_argument_is_a_typed_error(wrong):
    create, error, words = WRONG[wrong]
    with pytest.raises(error, match=words):
        create()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of dynamo
def test_compiled_parts_are_parts():
    compiled = torch.compile(critics.InnerProductCritic(), backend="eager")
    module = MIEstimationModule(critics.CalibratedCritic(compiled), torch.compile(bounds.DV(), backend="eager"))
    x = torch.randn(8, DIM)
    assert torch.isfinite(module.step((x, x)).loss)


def test_a_compiled_bound_can_be_monitored():
    compiled = torch.compile(bounds.DV(), backend="eager")
    callbacks.StabilityMonitor(bound=compiled).setup(None, L.LightningModule(), "fit")
    assert metrics.MutualInformation(compiled).higher_is_better


def test_encoders_may_be_a_tuple():
    assert len(make(pairs=pairs.TwoViews(), encoder=(nn.Identity(), nn.Identity())).encoders) == 2
