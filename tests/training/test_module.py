"""MIEstimationModule in trainings of a few steps."""

import inspect
import math
import textwrap

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn

from lightning_mi import MIEstimationModule, Scores, bounds, critics, pairs, regularizers
from lightning_mi.exceptions import NonFiniteBatchError
from tests.helpers.small_module import (
    DIM,
    Batches,
    RecordingLogger,
    draw,
    equal,
    fit,
    make,
    trainer,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


# Regularizers.


def test_zero_weight_is_bit_equal_to_none():
    trained = []
    for regularizer in (None, regularizers.Squared(weight=0.0), regularizers.Huber(weight=lambda step: 0.0)):
        module = make(bounds.MINE(), regularizer=regularizer)
        start = weights(module)
        fit(module, draw(*[8] * 20))
        assert not equal(weights(module), start)
        trained.append(weights(module))
    assert equal(trained[0], trained[1])
    assert equal(trained[0], trained[2])
    regularized = make(bounds.MINE(), regularizer=regularizers.Squared(weight=1.0))
    fit(regularized, draw(*[8] * 20))
    assert not equal(trained[0], weights(regularized))


def test_bound_terms_do_not_contain_the_penalty():
    (batch,) = draw(8)
    plain, regularized = (
        make(regularizer=regularizer).step(batch) for regularizer in (None, regularizers.Squared(weight=3.0))
    )
    assert regularized.penalty > 0
    for name, term in regularized.terms._asdict().items():
        assert torch.equal(term, getattr(plain.terms, name)), name
    torch.testing.assert_close(regularized.loss, plain.loss + regularized.penalty)


def test_a_scheduled_weight_follows_the_training_step():
    logger = RecordingLogger()
    module = make(regularizer=regularizers.Squared(weight=regularizers.LinearWarmup(weight=2.0, steps=4)))
    fit(module, draw(*[8] * 3), logger=logger, max_epochs=2)
    ell, penalty = np.array(logger.curve("train/log_normalizer")), np.array(logger.curve("train/penalty"))
    np.testing.assert_allclose(penalty / ell**2, [0.0, 0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-4)


def test_a_target_that_moves_the_optimum_is_an_error():
    with pytest.raises(ValueError, match=r"target=1\.0 for NWJ"):
        make(bounds.NWJ(), regularizer=regularizers.Squared(target=1.0))


def test_one_encoder_is_shared_and_two_alternate():
    first, second = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
    x, y = draw(8).batches[0]
    for encoder, expected in (
        (None, (x, y)),
        (first, (first(x), first(y))),
        ([first], (first(x), first(y))),
        ([first, second], (first(x), second(y))),
    ):
        encoded = make(encoder=encoder).encode(x, y)
        assert all(torch.equal(*pair) for pair in zip(encoded, expected, strict=True))
    assert len(list(make(encoder=first).encoders.parameters())) == 2


def test_encoders_train():
    first, second = nn.Linear(DIM, 2), nn.Linear(DIM, 2)
    before = first.weight.clone(), second.weight.clone()
    fit(make(critic=critics.InnerProductCritic(), encoder=[first, second]))
    assert not torch.equal(first.weight, before[0])
    assert not torch.equal(second.weight, before[1])


@pytest.mark.parametrize("count", [0, 3])
def test_another_number_of_encoders_is_an_error(count):
    with pytest.raises(ValueError, match=f"Got {count} encoders"):
        make(encoder=[nn.Linear(DIM, DIM) for _ in range(count)])


class PairCounts(L.Callback):
    def __init__(self):
        self.counts = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.counts.append((outputs["scores"].num_joint, outputs["scores"].num_marginal))


def test_deranged_and_independent_pairs_train():
    independent = Batches((x, y, u[:5], v[:5]) for (x, y), (u, v) in zip(draw(8, 8), draw(8, 8, seed=1), strict=True))
    for pairing, data, expected in (
        (pairs.Derangement(), draw(8, 8), (8, 8)),
        (pairs.IndependentMarginal(), independent, (8, 5)),
        (pairs.AllPairs(), draw(8, 8), (8, 56)),
    ):
        module, counts = make(pairs=pairing, encoder=[nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]), PairCounts()
        start = weights(module)
        fit(module, data, callbacks=counts)
        assert counts.counts == [expected] * 2
        assert all(not torch.equal(start[name], p) for name, p in module.named_parameters() if name.endswith("weight"))


def example_of(hook):
    """The class that a hook's docstring shows."""
    lines = inspect.getdoc(getattr(MIEstimationModule, hook)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    class "))
    code = [line for line in lines[start:] if line.startswith("    ") or not line]
    code = code[: next((i for i, line in enumerate(code) if i and line and line[4] != " "), None)]
    names = {"MIEstimationModule": MIEstimationModule, "Scores": Scores, "torch": torch}
    exec(textwrap.dedent("\n".join(code)), names)
    return next(value for name, value in names.items() if name.endswith("MI"))


def test_the_unpack_batch_example_reads_a_dictionary():
    captions = Batches({"image": x, "caption": y} for x, y in draw(8, 8))
    by_key, by_position = make(cls=example_of("unpack_batch")), make()
    fit(by_key, captions)
    fit(by_position, draw(8, 8))
    assert equal(weights(by_key), weights(by_position))


def test_the_encode_example_averages_tokens():
    tokens = Batches((x[:, None].expand(-1, 4, -1), y) for x, y in draw(8, 8))
    encoders = [nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]
    module = make(cls=example_of("encode"), encoder=encoders)
    x, y = draw(8).batches[0]
    output = module.step((x[:, None].expand(-1, 4, -1), y))
    torch.testing.assert_close(output.scores.joint, module.critic.paired(encoders[0](x), encoders[1](y)))
    fit(module, tokens)


def test_the_scores_example_adds_candidates_from_a_bank():
    module, logger = make(bounds.InfoNCE(), cls=example_of("scores")), RecordingLogger()
    module.bank = torch.randn(5, DIM)
    fit(module, draw(8), logger=logger)
    np.testing.assert_allclose(logger.curve("train/log_n"), math.log(8 + 5), rtol=1e-6)


def test_the_loss_example_adds_a_task():
    module, logger = make(cls=example_of("loss")), RecordingLogger()
    module.task_loss = torch.tensor(7.0)
    fit(module, draw(8), logger=logger)
    np.testing.assert_allclose(logger.curve("train/loss"), 7 - 0.1 * np.array(logger.curve("train/mi")), rtol=1e-6)


# Batches that cannot be used.


@pytest.mark.parametrize(("view", "value"), [(0, math.nan), (1, -math.inf)])
def test_a_non_finite_view_is_an_error_before_any_update(view, value):
    batches, good = draw(8, 8, 8, 8), make()
    fit(good, Batches(batches.batches[:2]))
    batches.batches[2][view][3, 1] = value
    bad = make()
    place = rf"View {'xy'[view]} .* holds 1 values .* {value}, at index \(3, 1\), at training step 2 "
    with pytest.raises(NonFiniteBatchError, match=place):
        fit(bad, batches)
    assert equal(weights(bad), weights(good))
    with pytest.raises(NonFiniteBatchError):
        trainer().predict(bad, batches)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((torch.ones(1, DIM), torch.ones(1, DIM)), ValueError, "Got a batch of 1"),
        ((torch.ones(4, DIM), torch.ones(3, DIM)), ValueError, "Got 4 x and 3 y"),
        ((torch.ones(4, DIM),), ValueError, "Got 1 view of the batch"),
        ((torch.ones(4, DIM),) * 3, ValueError, "Got 3 views of the batch"),
        (torch.ones(4, DIM), TypeError, "Got a batch of type Tensor"),
        ({"x": torch.ones(4, DIM)}, TypeError, "batch of type dict.*Override `unpack_batch`"),
    ],
)
def test_an_unsuitable_batch_is_a_typed_error(batch, error, message):
    with pytest.raises(error, match=message):
        fit(make(), Batches([batch]))


def test_infonce_needs_a_pairing_with_rows():
    with pytest.raises(ValueError, match=r"pairs\.AllPairs\(\)"):
        fit(make(bounds.InfoNCE(), pairs=pairs.Derangement()))


# Parts of the loss.


def test_an_assigned_part_replaces_that_of_the_loss():
    module = make()
    module.critic, module.bound = critics.BilinearCritic(DIM, DIM), bounds.NWJ()
    module.pairs, module.regularizer = pairs.Derangement(), regularizers.Squared(weight=0.5)
    module.extra = nn.Linear(2, 2)
    assert "extra.weight" in module.state_dict()
    assert not {"critic", "bound", "pairs", "regularizer"} & set(module._modules)
    output = module.step(draw(8).batches[0])
    assert (output.scores.num_joint, output.scores.num_marginal) == (8, 8)
    fit(module)
    assert module.critic is module.mi_loss.critic
    assert module.critic.weight.grad is not None
    module.regularizer = None
    assert module.step(draw(8).batches[0]).penalty is None
