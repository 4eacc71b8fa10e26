"""Every pairing against loops over pairs: terms and gradients."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi.critics import AbstractCritic, BilinearCritic, CalibratedCritic, InnerProductCritic, LabelCritic
from lightning_mi.pairs import AbstractPairing, EnumeratedLabels, SameLabel, TwoViews
from tests.helpers.loops import BATCHES, PRIOR, Batch, read, slopes
from tests.helpers.specs import BOUND_KINDS, REDUCTIONS, BoundSpec

CASES = [(spec, batch) for spec in REDUCTIONS for batch in BATCHES if batch.rows or not spec.needs_rows]
every_batch = pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: batch.name)


@pytest.mark.parametrize(("spec", "batch"), CASES, ids=[f"{spec.name}-{batch.name}" for spec, batch in CASES])
def test_terms_and_gradients_equal_a_loop_over_pairs(spec: BoundSpec, batch: Batch) -> None:
    t = torch.tensor(batch.draw(seed=1), requires_grad=True)
    at = t.detach().numpy()
    terms, expected = batch.bound(spec)(batch.scores(t)), read(spec, batch, at)

    def term_of(name: str, t: np.ndarray) -> float:
        return getattr(read(spec, batch, t), name)

    for name, term in terms._asdict().items():
        assert term.item() == pytest.approx(getattr(expected, name), rel=1e-11, abs=1e-11), name
    for name in ("objective", "value", "log_normalizer"):
        (gradient,) = torch.autograd.grad(getattr(terms, name), t, retain_graph=True)
        numerical = slopes(partial(term_of, name), at)
        np.testing.assert_allclose(gradient.numpy(), numerical, rtol=1e-6, atol=1e-8, err_msg=name)


@every_batch
def test_pairs_equal_the_loop(batch: Batch) -> None:
    t = torch.arange(batch.draw().size, dtype=torch.float64).view(batch.draw().shape)
    scores = batch.scores(t)
    assert scores.joint.tolist() == [t[i, j] for i, j in batch.joint]
    assert scores.joint_columns.tolist() == [j for _, j in batch.joint]
    assert sorted(scores.marginal_values().tolist()) == sorted(t[i, j].item() for _, i, j in batch.marginal)
    assert (scores.num_joint, scores.num_marginal) == (len(batch.joint), len(batch.marginal))
    assert scores.has_rows == bool(batch.rows)
    if not scores.has_rows:
        assert scores.num_candidates is None
        return
    assert scores.joint_rows.tolist() == [i for i, _ in batch.joint]
    weights = {weight for weight, _ in batch.rows[0]}
    assert scores.num_candidates == (len(batch.rows[0]) if len(weights) == 1 else None)


@pytest.mark.parametrize(
    ("pairing", "critic", "labels"),
    [
        (EnumeratedLabels(4), LabelCritic(), [3, 0, 3]),
        (EnumeratedLabels(4, PRIOR), CalibratedCritic(LabelCritic(), scale=True), [3, 0, 3]),
        (SameLabel(), BilinearCritic(4, 4), [1, 0, 1]),
        (SameLabel(), InnerProductCritic(normalize=True, temperature=0.5), [2, 0, 1]),
        (SameLabel(exclude_same_label=True), BilinearCritic(4, 4), [1, 0, 1]),
        (TwoViews(), BilinearCritic(4, 4), None),
    ],
    ids=lambda value: str(value).split("(")[0],
)
def test_derivatives_in_representations_equal_numerical_ones(
    pairing: AbstractPairing, critic: AbstractCritic, labels: list[int] | None
) -> None:
    critic = critic.double()
    rest = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True)] if labels is None else [torch.tensor(labels)]
    for spec in BOUND_KINDS:
        bound = spec.make()

        def terms_of(x: Tensor, y: Tensor, bound=bound) -> tuple[Tensor, ...]:
            return tuple(bound(pairing(critic, x, y)))

        x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(terms_of, (x, *rest), fast_mode=True)
