"""Parts, a training and an estimate on a device: LIGHTNING_MI_DEVICE=cuda pytest tests/device (a CPU by default)."""

import copy
import os

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mi import MIEstimationModule, MILoss, Scores, bounds, critics, estimate, losses, pairs, regularizers
from lightning_mi.data import BatchedContrastiveTransform, GaussianDataModule
from lightning_mi.data.images.batch_transform import NUM_DRAWS
from lightning_mi.metrics import LinearProbeAccuracy, MutualInformation, NearestNeighborAccuracy
from tests.helpers.critic_specs import CRITICS, CriticSpec
from tests.helpers.reference import Sheet
from tests.helpers.specs import BOUNDS, BoundSpec

DEVICE = torch.device(os.environ.get("LIGHTNING_MI_DEVICE", "cpu"))
ACCELERATOR = "gpu" if DEVICE.type == "cuda" else "cpu"
DIM, N = 6, 33

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


def views(n=N, dim=DIM):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, dim, generator=generator)
    return x, x + 0.5 * torch.randn(n, dim, generator=generator)


def on_device(*tensors):
    return [tensor.to(DEVICE) for tensor in tensors]


@pytest.mark.parametrize("spec", BOUNDS, ids=lambda spec: spec.name)
def test_bound_equals_the_float64_reference(spec: BoundSpec):
    t = torch.randn(N, N, generator=torch.Generator().manual_seed(1))
    joint = np.eye(N, dtype=bool)
    y = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
    expected = spec.reference(Sheet(t.numpy().astype(np.float64), joint, ~joint, np.broadcast_to(y, (N, N, 2))))
    scored = t.to(DEVICE).requires_grad_()
    terms = spec.make().float().to(DEVICE)(Scores.from_matrix(scored, y=torch.from_numpy(y).to(DEVICE)))
    for name in ("value", "objective", "joint_term", "marginal_term", "log_normalizer"):
        assert getattr(terms, name).item() == pytest.approx(getattr(expected, name), rel=2e-5, abs=2e-5)
    (gradient,) = torch.autograd.grad(terms.objective, scored)
    np.testing.assert_allclose(gradient.cpu().numpy(), expected.d_objective, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("spec", CRITICS, ids=lambda spec: spec.name)
def test_critic_equals_its_definition(spec: CriticSpec):
    torch.manual_seed(0)
    critic, (x, y) = spec.make(DIM), views()
    expected = spec.reference(copy.deepcopy(critic).double(), x.double().numpy(), y.double().numpy())
    scores = critic.to(DEVICE).pairwise(*on_device(x, y))
    np.testing.assert_allclose(scores.detach().cpu().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [critics.SeparableCritic, critics.JointCritic])
def test_tiles_equal_all_scores(make):
    torch.manual_seed(0)
    x, y = on_device(*views(200))
    made = make(DIM, DIM, hidden=(16,)).to(DEVICE)
    gradients = []
    for tile_bytes in (4096, float("inf")):
        loss = MILoss(made, bounds.DV(), pairs.AllPairs(tile_bytes=tile_bytes), regularizers.Squared(0.1))
        gradients.append(torch.autograd.grad(loss(x, y), list(made.parameters()), allow_unused=True))
    for tiled, dense in zip(*gradients, strict=True):
        assert (tiled is None) == (dense is None)
        if tiled is not None:
            torch.testing.assert_close(tiled, dense, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [losses.ntxent, losses.clip])
def test_contrastive_loss_equals_the_cpu(make):
    x, y = views()
    with torch.no_grad():
        torch.testing.assert_close(make().to(DEVICE)(*on_device(x, y)).cpu(), make()(x, y), rtol=1e-5, atol=1e-5)


def test_autocast_scores_leave_half_precision():
    torch.manual_seed(0)
    critic = critics.SeparableCritic(DIM, DIM).to(DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        output = MILoss(critic, bounds.DV()).compute(*on_device(*views()))
    assert output.terms.value.dtype == torch.float32
    exact = MILoss(critic, bounds.DV()).compute(*on_device(*views()))
    assert output.terms.value.item() == pytest.approx(exact.terms.value.item(), abs=0.05)


def test_queue_and_label_pairs_run_on_the_device():
    x, y = on_device(*views(16))
    queue = pairs.Queue(pairs.AllPairs(), size=40, dim=DIM).to(DEVICE)
    counts = [queue(critics.InnerProductCritic(), x, y).num_candidates for _ in range(3)]
    assert counts == [16, 32, 48]
    labels = (torch.arange(16) % 4).to(DEVICE)
    assert pairs.SameLabel()(critics.InnerProductCritic(), x, labels).num_joint == 16 * 3


def test_views_of_a_batch_equal_the_cpu():
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    transform = BatchedContrastiveTransform(24)
    draws = torch.rand(8, NUM_DRAWS, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(transform(images.to(DEVICE), draws).cpu(), transform(images, draws), atol=2e-3, rtol=0)


def test_metrics_of_features_equal_the_cpu():
    x, _ = views(60)
    labels = (x[:, 0] > 0).long()
    for make in (NearestNeighborAccuracy, LinearProbeAccuracy):
        values = []
        for device in (torch.device("cpu"), DEVICE):
            metric = make().to(device)
            metric.update(x[:40].to(device), labels[:40].to(device), reference=True)
            metric.update(x[40:].to(device), labels[40:].to(device))
            values.append(metric.compute().item())
        assert values[0] == pytest.approx(values[1], abs=0.051)  # one sample may lie on the boundary


def trainer(**options):
    return L.Trainer(
        accelerator=ACCELERATOR,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_reaches_the_known_mutual_information(precision):
    L.seed_everything(0)
    module = MIEstimationModule(
        critics.SeparableCritic(2, 2, hidden=(64,)), bounds.DV(), regularizer=regularizers.Squared(0.1)
    )
    data = GaussianDataModule(dim=2, mi=1.0, steps_per_mi=400, batch_size=256, val_batches=20)
    fit = trainer(max_epochs=1, precision=precision)
    fit.fit(module, data)
    assert fit.callback_metrics["val/mi"].item() == pytest.approx(1.0, abs=0.15)


def test_compiled_networks_train():
    x, y = views(64)
    module = MIEstimationModule(critics.SeparableCritic(8, 8), bounds.InfoNCE(), encoder=nn.Linear(DIM, 8))
    module.encoders[0].compile()
    fit = trainer(max_epochs=2)
    fit.fit(module, DataLoader(TensorDataset(x, y), 32))
    assert fit.callback_metrics["train/mi"].isfinite()


def test_metric_pools_batches_on_the_device():
    metric = MutualInformation(bounds.DV()).to(DEVICE)
    bound = bounds.DV()
    for _ in range(2):
        scores = Scores.from_matrix(torch.eye(5, device=DEVICE))
        metric.update(terms=bound(scores), scores=scores)
    assert metric.compute().item() == pytest.approx(1.0)


def test_estimate_of_arrays_on_the_device():
    x, y = views(400, 1)
    result = estimate(x.numpy(), y.numpy(), budget="quick", accelerator=ACCELERATOR)
    assert result.lower < 0.5 * np.log(1 + 1 / 0.25) < result.mi + 0.3
