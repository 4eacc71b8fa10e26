"""EnumeratedLabels' default prior: the frequencies of training labels, from the data module or counted."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi import MIEstimationModule, bounds, critics, pairs
from lightning_mi.critics import CalibratedCritic, LabelCritic
from tests.helpers.small_module import trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]

COUNTS = [70, 20, 10]
LABELS = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
X = torch.eye(3)[LABELS]
ENTROPY = -sum(n / 100 * math.log(n / 100) for n in COUNTS)


def perfect(law) -> torch.Tensor:
    """log p(y | x) / q(y), where x determines its label."""
    return torch.where(X > 0, -torch.tensor(law).log(), torch.tensor(-1000.0)).double()


def read(pairing: pairs.EnumeratedLabels, scores: torch.Tensor) -> float:
    return bounds.DV()(pairing(LabelCritic(), scores, LABELS)).value.item()


def test_unbalanced_labels_give_their_entropy() -> None:
    law = [n / 100 for n in COUNTS]
    assert read(pairs.EnumeratedLabels(3), perfect(law)) == pytest.approx(ENTROPY, abs=1e-6)
    assert read(pairs.EnumeratedLabels(3, "uniform"), perfect([1 / 3] * 3)) == pytest.approx(math.log(3), abs=1e-6)


def test_log_ratio_is_normalized_by_the_frequencies() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).double()
    scores = pairs.EnumeratedLabels(3)(LabelCritic(), x, LABELS)
    normalizer = (scores.joint - bounds.DV().log_ratio(scores))[:1]
    ratios = (x - normalizer).exp().numpy()
    assert (ratios @ (np.array(COUNTS) / 100)).mean() == pytest.approx(1.0, abs=1e-6)


def test_training_counts_a_batch_before_scoring_it() -> None:
    pairing = pairs.EnumeratedLabels(3)
    for labels, counts in (([2, 0], [1, 0, 1]), ([0, 0, 1], [3, 1, 1])):
        x = torch.randn(len(labels), 3, dtype=torch.float64)
        scores = pairing(LabelCritic(), x, torch.tensor(labels))
        assert pairing.label_counts.tolist() == counts
        expected = math.log((x.exp() @ (torch.tensor(counts).double() / sum(counts))).mean())
        assert scores.log_mean_exp().item() == pytest.approx(expected, rel=1e-12)


def test_evaluation_does_not_count() -> None:
    pairing = pairs.EnumeratedLabels(3)
    pairing(LabelCritic(), X, LABELS)
    pairing.eval()(LabelCritic(), X[:1], LABELS[:1])
    assert pairing.label_counts.tolist() == COUNTS


@pytest.mark.parametrize("method", ["score", "predict", "predict in training"])
def test_evaluation_before_any_training_is_an_error(method: str) -> None:
    pairing = pairs.EnumeratedLabels(3).train("training" in method)
    with pytest.raises(ValueError, match=r"no training label was counted\. Train first"):
        pairing(LabelCritic(), X, LABELS) if method == "score" else pairing.predict(LabelCritic(), X)


def test_label_without_training_samples_is_an_error() -> None:
    pairing = pairs.EnumeratedLabels(3)
    pairing(LabelCritic(), X[:90], LABELS[:90])
    with pytest.raises(ValueError, match=r"Got label 2 at position 90, .* no training label was in its class"):
        pairing.eval()(LabelCritic(), X, LABELS)


@pytest.mark.parametrize("critic", [LabelCritic(), CalibratedCritic(LabelCritic())], ids=["label", "calibrated"])
@pytest.mark.parametrize("given", [True, False])
def test_prediction_is_the_most_probable_label(critic, given: bool) -> None:
    """The argmax of log p(y | x) / q(y) is not the most probable label."""
    law, posterior = np.array([0.7, 0.2, 0.1]), np.random.default_rng(0).dirichlet(np.ones(3), 50)
    pairing = pairs.EnumeratedLabels(3, law.tolist() if given else None)
    if not given:
        pairing(LabelCritic(), X, LABELS)
    ratio = np.log(posterior / law)
    observed = pairing.predict(critic, torch.tensor(ratio) + 3.0)
    np.testing.assert_array_equal(observed, posterior.argmax(1))
    assert (ratio.argmax(1) != posterior.argmax(1)).any()


def test_state_dict_restores_the_prior() -> None:
    trained = pairs.EnumeratedLabels(3)
    trained(LabelCritic(), X, LABELS)
    fresh = pairs.EnumeratedLabels(3).eval()
    fresh.load_state_dict(trained.state_dict())
    expected = trained.eval()(LabelCritic(), X, LABELS).log_mean_exp()
    for other in (fresh, copy.deepcopy(trained), copy.deepcopy(trained).to(torch.bfloat16)):
        assert torch.equal(other(LabelCritic(), X, LABELS).log_mean_exp(), expected)
    assert {value.dtype for value in trained.to(torch.float16).state_dict().values()} == {torch.int64, torch.bool}


def test_given_prior_is_not_counted() -> None:
    pairing = pairs.EnumeratedLabels(3, [0.2, 0.3, 0.5])
    pairing(LabelCritic(), X, LABELS)
    assert pairing.label_counts is None
    assert pairing.state_dict() == {}


# In a fit.


def known(counts: list[int]) -> SimpleNamespace:
    return SimpleNamespace(class_counts=lambda split=None: torch.tensor(counts if split == "train" else [1, 1, 1]))


def test_counts_of_the_data_module_stay() -> None:
    pairing = pairs.EnumeratedLabels(3)
    pairing(LabelCritic(), X, LABELS)
    pairing.prepare(known([5, 3, 2]))
    pairing(LabelCritic(), X, LABELS)
    assert pairing.label_counts.tolist() == [5, 3, 2]
    fresh = pairs.EnumeratedLabels(3)
    fresh.load_state_dict(pairing.state_dict())
    fresh(LabelCritic(), X, LABELS)
    assert fresh.label_counts.tolist() == [5, 3, 2]


def test_new_fit_without_known_counts_starts_at_zero() -> None:
    pairing = pairs.EnumeratedLabels(3)
    pairing.prepare(known([5, 3, 2]))
    pairing.prepare(None)
    pairing(LabelCritic(), X, LABELS)
    assert pairing.label_counts.tolist() == COUNTS
    pairing.prepare(None)  # a resumed training
    assert pairing.label_counts.tolist() == COUNTS


def module(critic=None, **kwargs) -> MIEstimationModule:
    return MIEstimationModule(
        critic or LabelCritic(), bounds.DV(), pairs=pairs.EnumeratedLabels(3), encoder=nn.Linear(3, 3), **kwargs
    )


def loader(x=X, labels=LABELS, size=25) -> DataLoader:
    return DataLoader(TensorDataset(x, labels), batch_size=size)


def test_fit_counts_each_training_label_once() -> None:
    trained = module(CalibratedCritic(LabelCritic()))  # calibration scores the first batch several times
    fitted = trainer(max_epochs=1, num_sanity_val_steps=2)
    fitted.fit(trained, loader(), loader(size=100))
    assert trained.pairs.get_buffer("label_counts").tolist() == COUNTS
    [logged] = fitted.validate(trained, loader(size=100), verbose=False)
    assert math.isfinite(logged["val/mi"])


@pytest.mark.filterwarnings("ignore:DV gave value = nan")
def test_skipped_step_is_not_counted() -> None:
    x = X.clone()
    x[30] = math.nan
    trained = module(on_non_finite="skip")
    trainer(max_epochs=1).fit(trained, loader(x))
    assert trained.pairs.get_buffer("label_counts").tolist() == [45, 20, 10]  # without the second batch


def test_ensemble_members_count_each_label_once() -> None:
    from lightning_mi.ensemble.ensemble import MIEnsemble

    members = {name: module(CalibratedCritic(LabelCritic())) for name in ("a", "b")}
    trainer(max_epochs=1, log_every_n_steps=100).fit(MIEnsemble(members), loader())
    assert [member.pairs.get_buffer("label_counts").tolist() for member in members.values()] == [COUNTS, COUNTS]


def test_other_pairings_ignore_the_data() -> None:
    pairing = pairs.SameLabel()
    pairing.prepare(known(COUNTS))
    assert pairing.state_dict() == {}
    assert critics.LabelCritic().state_dict() == {}
