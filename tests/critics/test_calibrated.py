"""Calibration: what the first batch sets, once, and what training then moves."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mi import Scores, bounds
from lightning_mi.critics import CalibratedCritic, InnerProductCritic, LabelCritic


def calibrate(critic: CalibratedCritic, bound: bounds.AbstractBound, x: Tensor, target: float) -> None:
    critic.calibrate(
        lambda: Scores.from_matrix(critic.pairwise(x, x)).marginal_values(),
        lambda: bound(Scores.from_matrix(critic.pairwise(x, x))).log_normalizer,
        target,
    )


@pytest.mark.parametrize(
    ("bound", "target", "scale"),
    [
        (bounds.DV(), -5.0, False),
        (bounds.InfoNCE(), 2.0, True),
        (bounds.NWJ(), 0.0, True),
        (bounds.SMILE(1.0), 2.0, False),
    ],
)
def test_log_normalizer_starts_at_its_target(bound: bounds.AbstractBound, target: float, scale: bool) -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), scale=scale), torch.randn(16, 8, dtype=torch.float64) * 3
    calibrate(critic.double(), bound, x, target)
    scores = Scores.from_matrix(critic.pairwise(x, x))
    assert bound(scores).log_normalizer.item() == pytest.approx(target, abs=1e-12)
    plain = Scores.from_matrix(InnerProductCritic().pairwise(x, x)).marginal_values()
    expected = 1.0 if scale else np.std(plain.numpy(), ddof=1)
    assert np.std(scores.marginal_values().detach().numpy(), ddof=1) == pytest.approx(expected, rel=1e-12)


def test_scale_alone_adds_no_offset() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), offset=False, scale=True).double(), torch.randn(16, 8).double()
    before = critic.pairwise(x, x).detach()
    calibrate(critic, bounds.DV(), x, target=0.0)
    assert {name for name, _ in critic.named_parameters()} == {"log_scale"}
    torch.testing.assert_close(critic.pairwise(x, x).detach(), before / before[~torch.eye(16, dtype=torch.bool)].std())


def test_equal_scores_keep_their_scale() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), scale=True), torch.ones(4, 2)
    calibrate(critic, bounds.DV(), x, target=1.0)
    assert critic.log_scale == 0
    torch.testing.assert_close(critic.pairwise(x, x).detach(), torch.ones(4, 4))


def test_non_finite_calibration_is_skipped() -> None:
    critic = CalibratedCritic(InnerProductCritic(), scale=True)
    critic.calibrate(lambda: torch.tensor([1.0, 3.0]), lambda: torch.tensor(math.nan))
    assert critic.needs_calibration
    assert (critic.log_scale.item(), critic.offset.item()) == (0.0, 0.0)


def test_calibration_runs_once_also_after_loading(tmp_path) -> None:
    critic, resumed = (CalibratedCritic(InnerProductCritic(), scale=True) for _ in range(2))
    assert critic.needs_calibration
    calibrate(critic, bounds.DV(), torch.randn(8, 4), target=0.5)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    assert set(before) == {"offset", "log_scale", "calibrated"}
    torch.save(critic.state_dict(), tmp_path / "critic.pt")
    resumed.load_state_dict(torch.load(tmp_path / "critic.pt", weights_only=True))
    for calibrated in (critic, resumed):
        assert not calibrated.needs_calibration
        calibrate(calibrated, bounds.DV(), 10 + torch.randn(8, 4), target=3.0)
        assert calibrated.state_dict() == before


def test_calibration_flag_does_not_need_a_version_counter(monkeypatch) -> None:
    monkeypatch.setattr("lightning_mi.critics.calibrated.tensor_version", lambda tensor: None)
    critic = CalibratedCritic(InnerProductCritic())
    assert critic.needs_calibration
    critic.calibrated.fill_(True)
    assert not critic.needs_calibration


def test_offset_and_scale_have_gradients() -> None:
    critic, (x, y) = CalibratedCritic(InnerProductCritic(), scale=True, offset_unit=7.0), torch.randn(2, 6, 3)
    with torch.no_grad():
        critic.log_scale.fill_(0.4)
    plain = InnerProductCritic().paired(x, y)
    critic.paired(x, y).sum().backward()
    assert critic.offset.grad.item() == pytest.approx(7 * 6)
    assert critic.log_scale.grad.item() == pytest.approx(math.exp(0.4) * plain.sum().item(), rel=1e-5, abs=1e-6)


def test_adam_moves_scores_by_rate_times_offset_unit() -> None:
    critic, x = CalibratedCritic(InnerProductCritic(), offset_unit=50.0), torch.randn(4, 3)
    calibrate(critic, bounds.DV(), x, target=0.0)
    before = critic.pairwise(x, x).detach()
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    critic.pairwise(x, x).sum().backward()
    optimizer.step()
    torch.testing.assert_close(critic.pairwise(x, x).detach(), before - 0.05)


@pytest.mark.parametrize("unit", [0.0, -1.0, math.nan, math.inf])
def test_invalid_offset_unit_is_an_error(unit: float) -> None:
    with pytest.raises(ValueError, match=f"offset_unit={unit}: it is a positive number"):
        CalibratedCritic(InnerProductCritic(), offset_unit=unit)


def test_nothing_to_calibrate_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to calibrate"):
        CalibratedCritic(InnerProductCritic(), offset=False)


def test_label_critic_can_be_calibrated() -> None:
    critic, x, labels = CalibratedCritic(LabelCritic(), scale=True), 4 * torch.randn(50, 3), torch.arange(3)
    scores = lambda: critic.pairwise(x, labels).flatten()  # noqa: E731
    critic.calibrate(scores, lambda: bounds.DV()(Scores.from_samples(scores(), scores())).log_normalizer, target=1.0)
    assert scores().std().item() == pytest.approx(1, rel=1e-5)
    assert critic.offset is not None
    torch.testing.assert_close(critic.pairwise(x, labels), critic.log_scale.exp() * x + 30 * critic.offset)
    torch.testing.assert_close(critic.paired(x[:3], labels), critic.pairwise(x[:3], labels).diagonal())
