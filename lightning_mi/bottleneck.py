"""Variational information bottleneck: a stochastic encoder with the rate of its representation, and its module."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, final

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lightning_mi.bounds import AbstractBound
from lightning_mi.critics import AbstractCritic, DiagonalGaussian, GaussianConditional
from lightning_mi.module import MIEstimationModule
from lightning_mi.pairs import AbstractPairing
from lightning_mi.training.non_finite import Policy
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.training.prediction import Prediction
from lightning_mi.training.step import StepOutput, log_training_step
from lightning_mi.utilities.checks import check_finite, check_instance

__all__ = ["BottleneckModule", "Encoded", "GaussianBottleneck"]


class Encoded(NamedTuple):
    """The output of :class:`GaussianBottleneck`.

    Attributes:
        z: (N, D) a sample of the representation of each x, differentiable.
        rate: (N,) the rate of each x, nats, at least 0.
    """

    z: Tensor
    rate: Tensor


@final
class GaussianBottleneck(nn.Module):
    r"""A stochastic encoder e(z | x) and the rate of its representation z, in closed form.

    - VIB, without a backward encoder: :math:`KL(e(z | x) \| N(0, 1))`. Its mean is the variational upper bound (VUB) of
      I(X; Z), exact if z is standard normal.
    - CEB, with a backward encoder b(z | y): :math:`KL(e(z | x) \| b(z | y))`, the expectation over z of
      :math:`\log e(z | x) - \log b(z | y)`. Its mean is an upper bound of I(X; Z | Y) = I(X; Z) - I(Y; Z), exact if b
      is the density of z given y.

    With a decoder d(y | z) the loss is the mean of :math:`-\log d(y | z) + \beta \cdot \mathrm{rate}`; for labels the
    first term is the cross-entropy.

    Source: Alemi et al. 2017 (VIB); Fischer 2020 (CEB).

    Args:
        encoder: e(z | x), such as ``GaussianConditional(MLP(784, (256,), out_dim=2 * 32))``.
        backward_encoder: b(z | y), such as ``GaussianConditional(nn.Embedding(10, 2 * 32))`` for ten labels; none by
            default.

    Raises:
        TypeError: An encoder is not a GaussianConditional.
        ValueError: In use, there is a backward encoder but no y, or the encoders differ in width.

    Example:
        >>> import torch
        >>> from torch.nn.functional import cross_entropy
        >>> bottleneck = GaussianBottleneck(GaussianConditional(nn.Linear(20, 2 * 4)))
        >>> decoder, x, labels = nn.Linear(4, 3), torch.randn(8, 20), torch.arange(8) % 3
        >>> z, rate = bottleneck(x)
        >>> loss = cross_entropy(decoder(z), labels) + 0.01 * rate.mean()
        >>> z.shape, rate.shape
        (torch.Size([8, 4]), torch.Size([8]))
    """

    def __init__(self, encoder: GaussianConditional, backward_encoder: GaussianConditional | None = None) -> None:
        super().__init__()
        example = "critics.GaussianConditional(network)"
        check_instance("encoder", encoder, GaussianConditional, example)
        if backward_encoder is not None:
            check_instance("backward_encoder", backward_encoder, GaussianConditional, example)
        self.encoder = encoder
        self.backward_encoder = backward_encoder

    def forward(self, x: Tensor, y: Tensor | None = None) -> Encoded:
        """Encode x (N, ...); y (N, ...) is needed by a backward encoder only."""
        density = self.encoder.given(x)
        return Encoded(density.sample(), self.rate(density, y))

    def rate(self, density: DiagonalGaussian, y: Tensor | None = None) -> Tensor:
        """(N,) the divergence of e(z | x) from b(z | y), or from N(0, 1) without a backward encoder; nats.

        Args:
            density: e(z | x), as ``encoder.given(x)`` returns it.
            y: (N, ...) as :meth:`forward`.
        """
        if self.backward_encoder is None:
            zero = density.mean.new_zeros(1, 1)
            return density.kl(DiagonalGaussian(zero, zero))
        if y is None:
            raise ValueError("Got a backward encoder b(z | y) but no y. Call the bottleneck with x and y.")
        backward = self.backward_encoder.given(y)
        if backward.mean.shape != density.mean.shape:
            raise ValueError(
                f"Got e(z | x) of shape {tuple(density.mean.shape)} and b(z | y) of shape "
                f"{tuple(backward.mean.shape)}: both are densities of z, one for each sample. Set the networks of both "
                "to the same width."
            )
        return density.kl(backward)


class BottleneckModule(MIEstimationModule):
    r"""Trains a representation z of x that keeps I(Z; Y) and drops other information on x.

    .. math:: L = -O + \beta \cdot \mathrm{rate}

    with the objective O of a bound of I(Z; Y). VIB and CEB of labels: ``bounds.InfoNCE`` with
    ``pairs.EnumeratedLabels`` and ``critics.LabelCritic(decoder)`` gives the cross-entropy of the decoder. Of
    continuous y: ``bounds.BA`` with ``critics.GaussianConditional(decoder)``. The first view of a batch is x; y is the
    label, or the second view.

    It is for subclassing, as its base is. It logs what :class:`MIEstimationModule` logs, with the estimate of I(Z; Y)
    as ``<stage>/mi``, and ``<stage>/rate``, the upper bound of I(X; Z) (VIB) or of I(X; Z | Y) (CEB), nats. Each step
    samples z, in evaluation too.

    Args:
        bottleneck: The encoder and the rate.
        critic: T(z, y), the decoder.
        bound: A bound of I(Z; Y).
        beta: The weight of the rate, at least 0, or a function that returns it for a training step, such as
            ``regularizers.LinearWarmup``. For CEB, :math:`\beta` corresponds to VIB's :math:`\beta / (1 + \beta)`.
        pairs: As in :class:`MIEstimationModule`; each sample has one joint pair.
        optimizer: As in :class:`MIEstimationModule`.
        scheduler: As in :class:`MIEstimationModule`.
        scheduler_interval: As in :class:`MIEstimationModule`.
        probe: As in :class:`MIEstimationModule`, of z.
        on_non_finite: As in :class:`MIEstimationModule`.
        prediction: As in :class:`MIEstimationModule`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``beta`` is negative or not finite; in use, the pairing has not one joint pair for each sample, or
            an error of :class:`GaussianBottleneck`.

    Source: Alemi et al. 2017; Fischer 2020.

    Example:
        >>> import torch
        >>> from lightning_mi import bounds, critics, pairs
        >>> module = BottleneckModule(
        ...     GaussianBottleneck(critics.GaussianConditional(nn.Linear(20, 2 * 4))),
        ...     critics.LabelCritic(nn.Linear(4, 3)),
        ...     bounds.InfoNCE(),
        ...     beta=0.01,
        ...     pairs=pairs.EnumeratedLabels(3),
        ... )
        >>> module.step((torch.randn(8, 20), torch.arange(8) % 3)).loss.shape
        torch.Size([])
    """

    def __init__(
        self,
        bottleneck: GaussianBottleneck,
        critic: AbstractCritic,
        bound: AbstractBound,
        *,
        beta: float | Callable[[int], float] = 1e-3,
        pairs: AbstractPairing | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        probe: OnlineLinearProbe | None = None,
        on_non_finite: Policy = "raise",
        prediction: Prediction | None = None,
    ) -> None:
        super().__init__(
            critic,
            bound,
            pairs=pairs,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
            probe=probe,
            on_non_finite=on_non_finite,
            prediction=prediction,
        )
        check_instance("bottleneck", bottleneck, GaussianBottleneck, "GaussianBottleneck(encoder)")
        self.bottleneck = bottleneck
        self.beta = beta if callable(beta) else _check_beta(beta)
        self._densities: list[DiagonalGaussian] | None = None  # of the step in progress
        self._rate: Tensor | None = None  # of the last step, detached

    def encode(self, *views: Any) -> Sequence[Tensor]:
        """A sample z of e(z | x), and the other views unchanged."""
        density = self.bottleneck.encoder.given(views[0])
        if self._densities is not None:
            self._densities.append(density)
        return [density.sample(), *views[1:]]

    def step(self, batch: Any) -> StepOutput:
        """As of :class:`MIEstimationModule`, with the weighted rate in the loss."""
        densities: list[DiagonalGaussian] = []
        self._densities = densities
        try:
            output = super().step(batch)
        finally:
            self._densities = None
        y = output.labels if self.pairs.takes_labels else self.unpack_batch(batch)[1]
        rates = self.bottleneck.rate(densities[0], y)
        if len(rates) != len(output.scores.joint):
            raise ValueError(
                f"Got {len(output.scores.joint)} joint pairs of {type(self.pairs).__name__} for {len(rates)} samples: "
                "the rate is a mean over samples. Use AllPairs, EnumeratedLabels or Derangement."
            )
        rate = output.scores.mean_over_joint(rates)  # over all ranks, as the terms of the bound
        self._rate = rate.detach()
        beta = _check_beta(self.beta(self.mi_loss.num_batches)) if callable(self.beta) else self.beta
        return output._replace(loss=output.loss + beta * rate)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """As of :class:`MIEstimationModule`; also logs ``train/rate``."""
        outputs = super().training_step(batch, batch_idx)
        log_training_step(self, {"rate": self._rate})
        return outputs

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """As of :class:`MIEstimationModule`; also logs ``val/rate``."""
        outputs = super().validation_step(batch, batch_idx, dataloader_idx)
        self._log_rate("val", outputs)
        return outputs

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """As of :class:`MIEstimationModule`; also logs ``test/rate``."""
        outputs = super().test_step(batch, batch_idx, dataloader_idx)
        self._log_rate("test", outputs)
        return outputs

    def _log_rate(self, stage: str, outputs: dict[str, Any]) -> None:
        """Log the rate, averaged over samples, batches and ranks."""
        rate, num_samples = self._rate, outputs["scores"].num_joint
        self.log(f"{stage}/rate", rate, on_epoch=True, sync_dist=True, batch_size=num_samples)  # type: ignore[arg-type]


def _check_beta(beta: float) -> float:
    check_finite("beta", beta, "the weight of the rate")
    if beta < 0 or math.isnan(beta):
        raise ValueError(f"Got beta={beta}: the weight of the rate is at least 0.")
    return float(beta)
