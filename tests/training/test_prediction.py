"""``predict_step``: representations and pointwise mutual information."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import bounds, critics, pairs
from tests.helpers.small_module import DIM, Batches, draw, make, trainer


def split(*sizes):
    """The same samples in batches of these sizes."""
    (x, y), *_ = draw(sum(sizes)).batches
    return Batches(zip(x.split(sizes), y.split(sizes), strict=True))


def predict_pmi(module, batches):
    return [predicted["pmi"] for predicted in trainer().predict(module, batches)]


@pytest.mark.parametrize(
    ("encoder", "prediction", "names"),
    [
        (False, None, {"pmi"}),
        (True, None, {"x", "y"}),
        (True, "pmi", {"pmi"}),
        (True, "both", {"x", "y", "pmi"}),
        (False, "features", {"x", "y"}),
    ],
)
def test_the_switch_selects_what_is_predicted(encoder, prediction, names):
    network = nn.Linear(DIM, DIM) if encoder else None
    module, ((x, y),) = make(encoder=network, prediction=prediction), draw(8)
    (predicted,) = trainer().predict(module, draw(8))
    assert predicted.keys() == names
    for name, view in (("x", x), ("y", y)):
        if name in names:
            torch.testing.assert_close(predicted[name], module(view))
    assert not any(value.requires_grad for value in predicted.values())


def test_an_unknown_switch_is_an_error():
    with pytest.raises(ValueError, match="Got prediction='mi': it is one of 'features', 'pmi', 'both'"):
        make(prediction="mi")


def test_labels_are_predicted_along_and_features_need_none():
    module = make(encoder=nn.Linear(DIM, DIM), pairs=pairs.SameLabel())
    x, labels = torch.randn(4, DIM), torch.tensor([0, 0, 1, 1])
    assert torch.equal(module.predict_step((x, labels))["labels"], labels)
    assert module.predict_step((x,)).keys() == {"x"}


@pytest.mark.parametrize("bound", [bounds.DV(), bounds.TUBA(3.0)])
def test_density_ratios_average_to_one_over_marginal_pairs(bound):
    module, batches = make(bound), draw(8, 5)
    with torch.no_grad():
        module.critic.x_net[-1].weight.mul_(10)
    for (x, y), predicted in zip(batches, predict_pmi(module, batches), strict=True):
        t = module.critic.pairwise(x, y).detach().numpy().astype(np.float64)
        shift = t.diagonal() - predicted.numpy()
        np.testing.assert_allclose(shift, shift[0], rtol=1e-4)
        assert np.exp(t[~np.eye(len(t), dtype=bool)] - shift[0]).mean() == pytest.approx(1, rel=1e-5)


def test_density_ratios_of_infonce_average_to_one_per_row():
    module, batches = make(bounds.InfoNCE()), draw(8)
    [predicted] = predict_pmi(module, batches)
    t = module.critic.pairwise(*batches.batches[0]).detach().numpy().astype(np.float64)
    shift = t.diagonal() - predicted.numpy()
    np.testing.assert_allclose(np.exp(t - shift[:, None]).mean(axis=1), 1, rtol=1e-5)


PAIRINGS = {"all pairs": pairs.AllPairs, "derangement": pairs.Derangement, "two views": pairs.TwoViews}


@pytest.mark.parametrize("name", PAIRINGS)
def test_a_last_batch_of_one_sample_is_predicted(name):
    predicted = predict_pmi(make(pairs=PAIRINGS[name]()), split(8, 8, 1))
    per_sample = 2 if name == "two views" else 1
    assert [len(batch) for batch in predicted] == [8 * per_sample, 8 * per_sample, per_sample]
    assert all(bool(batch.isfinite().all()) for batch in predicted)


@pytest.mark.parametrize(
    ("name", "bound"), [("all pairs", bounds.DV), ("two views", bounds.InfoNCE), ("two views", bounds.DV)]
)
def test_it_is_predicted_as_part_of_the_previous_batch(name, bound):
    module = make(bound(), pairs=PAIRINGS[name]())
    *_, last = predict_pmi(module, split(8, 5, 1))
    *_, joined = predict_pmi(module, split(8, 6))
    torch.testing.assert_close(last, joined[-1:] if name == "all pairs" else joined[[5, 11]])
    assert module._pointwise._previous == []


def test_a_single_sample_alone_cannot_be_predicted():
    for loaders in (split(1), [split(8), split(1)]):
        with pytest.raises(ValueError, match=r"without marginal pairs to predict.*Raise the batch size"):
            trainer().predict(make(), loaders)


def test_data_loaders_are_predicted_apart():
    predicted = trainer().predict(make(), [draw(16, 16), draw(8, 8, seed=1)])
    assert [len(batch["pmi"]) for batches in predicted for batch in batches] == [16, 16, 8, 8]


def test_a_critic_without_parameters_predicts_its_inner_products():
    module, ((x, y),) = make(critic=critics.InnerProductCritic()), draw(8)
    ratios = module.predict_step((x, y))["pmi"]
    t = (x @ y.T).numpy().astype(np.float64)
    expected = t.diagonal() - np.log(np.exp(t[~np.eye(8, dtype=bool)]).mean())
    np.testing.assert_allclose(ratios.numpy(), expected, rtol=1e-4)
