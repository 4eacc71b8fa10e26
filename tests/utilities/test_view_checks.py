"""Views that a critic does not accept: a typed error with the name of the view and the remedy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MIEstimationModule, bounds, critics, encoders, pairs
from tests.helpers.critic_specs import CRITICS
from tests.helpers.small_module import DIM, Batches, draw, fit, make, weights
from tests.helpers.specs import by_name

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

X = torch.randn(8, DIM, generator=torch.Generator().manual_seed(0))
ODD = {
    "float64": (X.double(), TypeError, r"x of type float64 .*float32.*x\.float\(\), or module\.double\(\)"),
    "bfloat16": (X.bfloat16(), TypeError, r"x of type bfloat16 .*x\.float\(\)"),
    "one-hot": (X.long(), TypeError, r"x of type int64 and shape \(8, 3\).*Write x\.float\(\)"),
    "indices": (X[:, 0].long(), TypeError, r"one_hot\(x, num_classes\)\.float\(\).*nn\.Embedding"),
    "bool": (X > 0, TypeError, r"x of type bool.*Write x\.float\(\)"),
    "complex": (X.to(torch.complex64), TypeError, r"x of type complex64.*torch\.view_as_real\(x\)\.flatten\(1\)"),
    "numpy": (X.numpy(), TypeError, r"x of type ndarray.*Write torch\.from_numpy\(x\)\.float\(\)"),
    "list": (X.tolist(), TypeError, r"x of type list.*torch\.as_tensor\(x, dtype=torch\.float32\)"),
    "number": (1.0, TypeError, "x of type float"),
    "scalar": (torch.tensor(1.0), ValueError, r"x of shape \(\)"),
    "one feature": (X[:, 0], ValueError, r"x\.unsqueeze\(1\) or x\[:, None\]"),
    "image": (X[:, None], ValueError, r"x\.flatten\(1\), or give an encoder"),
    "width": (X[:, :2], ValueError, "widths"),
}


@pytest.mark.parametrize("odd", ODD)
def test_invalid_view_is_an_error_in_critics_and_modules(odd):
    view, error, words = ODD[odd]
    for critic in (critics.SeparableCritic(DIM, DIM), critics.JointCritic(DIM, DIM), critics.BilinearCritic(DIM, DIM)):
        for score in (critic.paired, critic.pairwise):
            with pytest.raises(error, match=words):
                score(view, X)
    with pytest.raises(error, match=words):
        make().step((view, X))


@pytest.mark.parametrize("odd", ["float64", "one-hot", "bool", "complex", "numpy", "list", "number", "scalar"])
def test_error_names_the_second_view(odd):
    view, error, words = ODD[odd]
    with pytest.raises(error, match=words.replace("x ", "y ").split(".*")[0]):
        make().step((X, view))


@pytest.mark.parametrize("y", [X.double(), X.long(), X.half()])
def test_inner_product_of_two_dtypes_is_an_error(y):
    with pytest.raises(TypeError, match="y of type"):
        critics.InnerProductCritic().pairwise(X, y)


@pytest.mark.parametrize("marginal", [X.double(), X[:, :2]])
def test_marginal_views_of_another_kind_are_an_error(marginal):
    with pytest.raises((TypeError, ValueError), match="x_marginal of"):
        make(pairs=pairs.IndependentMarginal()).step((X, X, marginal, X))


@pytest.mark.parametrize("spec", [spec for spec in CRITICS if spec.make(DIM).state_dict()], ids=by_name)
def test_critic_with_weights_fixes_device_and_dtype(spec):
    with pytest.raises(ValueError, match=r"Got x on meta and the critic on cpu. Write x\.to\('cpu'\)"):
        spec.make(DIM).pairwise(X.to("meta"), X)
    module = MIEstimationModule(spec.make(DIM), bounds.DV()).double()
    assert module.step((X.double(), X.double())).terms.value.dtype == torch.float64
    with pytest.raises(TypeError, match=r"Write x\.double\(\), or module\.float\(\)"):
        module.step((X, X))


@pytest.mark.parametrize("view", [X, X.bfloat16()])
def test_autocast_mixes_all_dtypes_but_float64(view):
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(make().step((view, X)).loss)
        with pytest.raises(TypeError, match="y of type float64"):
            make().step((view, X.double()))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_every_precision_of_the_trainer_is_accepted(precision):
    module = make()
    before = weights(module)
    fit(module, draw(8, 8), precision=precision)
    assert any(not torch.equal(before[name], value.float()) for name, value in weights(module).items())


def test_tokens_reach_an_embedding():
    encoder = nn.Sequential(nn.Embedding(10, DIM), nn.Flatten(), nn.Linear(4 * DIM, DIM))
    tokens = torch.randint(10, (8, 4))
    assert torch.isfinite(make(encoder=encoder).step((tokens, tokens)).loss)
    symbols = torch.arange(8)
    critic = critics.SeparableCritic(8, 8)
    assert torch.isfinite(make(critic=critic, encoder=encoders.OneHot(8)).step((symbols, symbols)).loss)


class Tuples(nn.Module):
    def forward(self, x):
        return x, x


def test_encoder_that_returns_a_tuple_is_an_error():
    with pytest.raises(TypeError, match=r"x of type tuple.*override `encode`"):
        make(encoder=Tuples()).step((X, X))


def crops():
    images = torch.randn(2, 8, 3, 2, 2)
    return [images[0], images[1]], torch.arange(8)


def image_module(cls=MIEstimationModule):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, DIM))
    return cls(critics.InnerProductCritic(normalize=True), bounds.InfoNCE(), pairs=pairs.TwoViews(), encoder=encoder)


def test_error_for_two_crops_in_one_entry_gives_working_code():
    with pytest.raises(TypeError, match=r"\(\(view 1, view 2\), labels\)") as raised:
        image_module().step(crops())
    namespace: dict[str, Any] = {}
    exec("class Cured(MIEstimationModule):\n" + str(raised.value).split("\n\n")[1], globals(), namespace)
    assert torch.isfinite(image_module(namespace["Cured"]).step(crops()).loss)


class Lists(nn.Module):
    def forward(self, parts):
        return parts[0] + parts[1]


def test_encoder_may_take_a_list():
    module = make(encoder=[Lists(), nn.Embedding(8, DIM)])
    assert torch.isfinite(module.step(([X, X], torch.arange(8))).loss)


class Keyed(MIEstimationModule):
    def unpack_batch(self, batch):
        return batch


@pytest.mark.parametrize(
    ("cls", "batch", "words"),
    [
        (
            MIEstimationModule,
            {"image": X, "text": X},
            r"keys 'image', 'text'.*return batch\['image'\], batch\['text'\]",
        ),
        (MIEstimationModule, X, r"of type Tensor and shape \(8, 3\).*Override `unpack_batch`"),
        (MIEstimationModule, (X, None), "Got None as entry 1 of the batch"),
        (Keyed, {"image": X}, "Got a dict from `unpack_batch` of Keyed"),
    ],
)
def test_batch_of_another_structure_is_an_error(cls, batch, words):
    with pytest.raises(TypeError, match=words):
        make(cls=cls).step(batch)


def test_views_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="Got 8 x and 7 y"):
        make().step((X, X[:7]))


def test_numpy_batches_in_a_fit_are_an_error():
    with pytest.raises(TypeError, match=r"torch\.from_numpy\(x\)\.float\(\)"):
        fit(make(), Batches([(np.ones((8, DIM)), np.ones((8, DIM)))]))
