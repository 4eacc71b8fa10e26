"""Between steps a module holds no autograd graph: it can be copied, pickled and averaged at any time."""

import copy
import gc
import io
import math
import pickle

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from lightning_mi import bounds, critics, pairs, regularizers
from tests.helpers.small_module import DIM, draw, equal, fit, make, trainer, weights

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

TILED = {"pairs": pairs.AllPairs(tile_bytes=64)}
JOINT_TILED = TILED | {"critic": critics.JointCritic(DIM, DIM, hidden=(8,))}
CASES = {  # options and accumulated batches: a pairwise cover
    "dense": ({"regularizer": regularizers.Squared(0.1)}, 2),
    "tiled": (TILED, 1),
    "joint critic in tiles": (JOINT_TILED | {"on_non_finite": "skip"}, 2),
    "calibrated": ({"critic": critics.CalibratedCritic(critics.BilinearCritic(DIM, DIM)), "on_non_finite": "skip"}, 1),
}


def size(module) -> int:
    buffer = io.BytesIO()
    torch.save(module, buffer)
    return buffer.tell()


def tensors_with_graph(module) -> list[torch.Tensor]:
    """Tensors with a ``grad_fn`` that are reachable from the module, except through its trainer."""
    module = copy.copy(module)
    module.__dict__["_trainer"] = None
    found, visited, pending = [], set(), [module]
    while pending:
        item = pending.pop()
        if id(item) in visited or isinstance(item, type | L.Trainer):
            continue
        visited.add(id(item))
        if isinstance(item, torch.Tensor):
            found += [item] if item.grad_fn is not None else []
        else:
            pending += [
                other
                for other in gc.get_referents(item)
                if isinstance(other, torch.Tensor | list | dict | tuple | set) or hasattr(other, "__dict__")
            ]
    return found


class Copies(L.Callback):
    """Copies and pickles the module after every batch."""

    def __init__(self):
        self.copies, self.with_graph = [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx:
            self.copies.append(pickle.loads(pickle.dumps(copy.deepcopy(pl_module))))
        self.with_graph += len(tensors_with_graph(pl_module._guard))


@pytest.mark.parametrize("case", CASES)
def test_a_module_can_be_copied_after_every_batch(case):
    options, accumulate = CASES[case]
    module, copies = make(**copy.deepcopy(options)), Copies()
    before = size(module)
    fitted = fit(module, draw(*[8] * 5), draw(8, 8), callbacks=copies, accumulate_grad_batches=accumulate)
    assert len(copies.copies) == 4
    assert copies.with_graph == 0
    again = copy.deepcopy(module)
    assert equal(weights(again), weights(module))
    assert fitted.validate(again, draw(8, 8), verbose=False) == fitted.validate(module, draw(8, 8), verbose=False)
    module.trainer = again.trainer = None
    assert size(again) == size(module)
    assert size(module) < before + 2000  # and not the samples of a batch, or a random state


def test_a_batch_of_any_size_leaves_nothing_on_the_module():
    sizes = []
    for rows in (8, 2048):
        module = make()
        fit(module, draw(rows, rows), draw(rows, rows))
        module.trainer = None
        sizes.append(size(module))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("average", [StochasticWeightAveraging, WeightAveraging])
def test_averaged_weights_can_be_tested_after_the_fit(average):
    callback = average(swa_lrs=1e-2, swa_epoch_start=1) if average is StochasticWeightAveraging else average()
    module = make()
    fitted = fit(module, draw(8, 8, 8), draw(8, 8), callbacks=callback, max_epochs=3)
    (found,) = fitted.test(module, draw(8, 8), verbose=False)
    assert math.isfinite(found["test/mi"])


def test_outputs_of_a_step_hold_no_graph_but_their_loss():
    tensors = []

    class Record(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            tensors.extend([outputs["scores"].joint, outputs["scores"].marginal_values(), *outputs["terms"]])

    for options in ({}, TILED, JOINT_TILED):
        fit(make(**copy.deepcopy(options)), draw(8), callbacks=Record())
    assert not any(tensor.requires_grad for tensor in tensors)
    assert len(tensors) == 3 * 7


def test_a_fitted_module_goes_to_another_process():
    module = make(bounds.NWJ())
    fit(module, draw(8, 8))
    module.trainer = None
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found = pool.apply(_test_mi, (module,))
    assert found == trainer().test(module, draw(8, 8), verbose=False)[0]["test/mi"]


def _test_mi(module):
    return trainer().test(module, draw(8, 8), verbose=False)[0]["test/mi"]
