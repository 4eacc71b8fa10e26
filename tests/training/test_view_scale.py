"""Views far from unit scale warn; ordinary data does not."""

import warnings

import pytest
import torch
from torch import nn

from lightning_mi import MIEnsemble, ViewScaleWarning, bounds, critics, encoders
from lightning_mi.data import GaussianDataModule, ImageDataModule, OneHotDataModule
from lightning_mi.training.view_scale import warn_of_scale
from tests.helpers.small_module import DIM, Batches, draw, fit, make

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def normal(n=128, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def warned(view, critic=None):
    width = view.flatten(1).shape[1] if view.ndim > 1 else 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scale(critic or critics.SeparableCritic(width, 4, hidden=(4,)), [view, normal(len(view))])
    return [str(warning.message) for warning in caught if warning.category is ViewScaleWarning]


FAR = {
    "thousands": (1000 * normal(), r"View x has a mean of .* standard deviation of 1\.01e\+03"),
    "one column of thousands": (torch.cat([normal(), 1000 * normal(d=1)], 1), "far above unit scale"),
    "bytes": (torch.randint(256, (64, 48)).float(), "far above unit scale"),
    "micro": (1e-6 * normal(), "far below unit scale"),
    "years": (2000 + 5 * normal(), "has a mean of 2e.03 and a standard deviation of .*samples differ little"),
    "constant": (torch.full((16, 4), 3.0), "is the same in all rows"),
    "zeros": (torch.zeros(16, 4), "is the same in all rows"),
}


@pytest.mark.parametrize("far", FAR)
def test_views_far_from_unit_scale_warn(far):
    view, words = FAR[far]
    with pytest.warns(ViewScaleWarning, match=words):
        warn_of_scale(critics.SeparableCritic(view.shape[1], 4), [view, normal(len(view))])


ORDINARY = {
    "normal": lambda seed: normal(seed=seed),
    "few samples": lambda seed: normal(8, 1, seed=seed),
    "cubic": lambda seed: normal(64, 20, seed=seed) ** 3,
    "uniform": lambda seed: torch.rand(64, 3),
    "exponential": lambda seed: torch.rand(64, 3).log().neg(),
    "relu": lambda seed: torch.relu(normal(64, 256, seed=seed)),
    "sparse": lambda seed: torch.relu(normal(64, 256, seed=seed) - 2),
    "one-hot of 2": lambda seed: nn.functional.one_hot(torch.randint(2, (64,)), 2).float(),
    "one-hot of 10000": lambda seed: nn.functional.one_hot(torch.randint(10000, (64,)), 10000).float(),
    "image": lambda seed: torch.rand(16, 3, 8, 8),
    "cosine": lambda seed: nn.functional.normalize(normal(64, 2048, seed=seed)),
    "half units": lambda seed: 5 * normal(seed=seed) + 10,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_data_does_not_warn(name):
    torch.manual_seed(0)
    assert not [message for seed in range(50) for message in warned(ORDINARY[name](seed))]


@pytest.mark.parametrize("transform", ["identity", "cubic", "asinh", "half_cube", "normal_cdf"])
def test_gaussian_data_does_not_warn(transform):
    data = GaussianDataModule(transform=transform, mi=10.0, steps_per_mi=50)
    assert not [message for batch in data.train_dataloader() for view in batch for message in warned(view)]


@pytest.mark.parametrize("size", [16, 1000])
def test_one_hot_data_does_not_warn(size):
    data = OneHotDataModule(num_symbols=size, batch_size=32, steps=50)
    encode = encoders.OneHot(size)
    assert not [message for batch in data.train_dataloader() for view in batch for message in warned(encode(view))]


def test_digits_do_not_warn():
    data = ImageDataModule("digits", normalize=False, batch_size=32)
    assert not [message for x, _ in data.train_dataloader() for message in warned(x.flatten(1))]


@pytest.mark.parametrize(
    "critic",
    [critics.CalibratedCritic(critics.InnerProductCritic()), critics.LabelCritic()],
)
def test_critics_without_weights_do_not_warn(critic):
    assert not warned(1000 * normal(), critic)


def test_a_critic_with_normalization_does_not_warn():
    critic = critics.SeparableCritic(4, 4)
    critic.x_net = nn.Sequential(nn.BatchNorm1d(4), critic.x_net)
    assert not warned(1000 * normal(), critic)


def test_learned_representations_may_be_small():
    assert not warned((1e-4 * normal()).requires_grad_())


def test_large_learned_representations_warn():
    messages = warned((1000 * normal()).requires_grad_())
    assert len(messages) == 1
    assert "nn.LayerNorm" in messages[0]


def scaled(factor):
    return Batches((factor * x, factor * y) for x, y in draw(8, 8, 8))


def test_a_fit_warns_once():
    module = make()
    for _ in range(2):
        with pytest.warns(ViewScaleWarning) as caught:
            fit(module, scaled(1000.0), max_epochs=2)
        assert len([warning for warning in caught if warning.category is ViewScaleWarning]) == 1
    module.step(next(iter(scaled(1000.0))))


def test_only_the_first_batch_is_checked(monkeypatch):
    calls = []
    monkeypatch.setattr("lightning_mi.training.first_step.warn_of_scale", lambda *given: calls.append(given))
    fit(make(), draw(8, 8, 8), max_epochs=2)
    assert len(calls) == 1


def test_an_ensemble_warns_once():
    ensemble = MIEnsemble({"a": make(), "b": make(bounds.InfoNCE())})
    with pytest.warns(ViewScaleWarning) as caught:
        fit(ensemble, scaled(20.0))
    assert len([warning for warning in caught if warning.category is ViewScaleWarning]) == 1


def test_the_check_does_not_change_the_views():
    x = normal(64, DIM)
    before = x.clone()
    warn_of_scale(make().critic, [x, x])
    assert torch.equal(x, before)
