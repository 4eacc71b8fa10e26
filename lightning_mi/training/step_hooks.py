"""StepHooks: the hooks of MIEstimationModule that turn a batch into scores and terms into a loss."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lightning_mi.bounds import BoundTerms
from lightning_mi.loss import regularized_loss
from lightning_mi.scores.scores import Scores
from lightning_mi.training.batch import check_entries, not_a_tuple, split_batch
from lightning_mi.training.loop_hooks import LoopHooks
from lightning_mi.training.networks import apply_by_view
from lightning_mi.training.online_probe import OnlineLinearProbe
from lightning_mi.utilities.labels import LabelledViews


class StepHooks(LoopHooks):
    """Base of MIEstimationModule: the hooks of a step, which a subclass overrides."""

    encoder_chunk_size: int | None

    def unpack_batch(self, batch: Any) -> Sequence[Any]:
        """Return the views of a batch, x and y first, then labels if there are any.

        Override it for batches that are not a tuple of views::

            class CaptionMI(MIEstimationModule):
                def unpack_batch(self, batch):
                    return batch["image"], batch["caption"]

        Raises:
            TypeError: The batch is neither a tuple nor a list.
        """
        if not isinstance(batch, tuple | list):
            raise not_a_tuple(batch)
        return batch

    def encode(self, *views: Any) -> Sequence[Tensor]:
        """Encode views: x with the first encoder and y with the second, if there are two.

        Further views alternate, as the independent pairs (x', y') do. Override it for views that need more than one
        call each::

            class TokenMI(MIEstimationModule):
                def encode(self, tokens, image):
                    return self.encoders[0](tokens).mean(dim=1), self.encoders[1](image)

        Returns:
            A representation for each view, usually of shape (N, D).
        """
        average = self.momentum_encoder
        encoders = self.encoders if average is None else [self.encoders[0], average.encoder]
        return apply_by_view(encoders, views, self.encoder_chunk_size)

    def project(self, *representations: Any) -> Sequence[Tensor]:
        """Map representations through the head, for the loss alone; by default as :meth:`encode` maps views."""
        average = self.momentum_encoder
        heads = self.heads if average is None or average.head is None else [self.heads[0], average.head]
        return apply_by_view(heads, representations, self.encoder_chunk_size)

    def scores(self, *representations: Tensor) -> Scores:
        """Score the joint and marginal pairs of representations; labels come last if the pairing takes them.

        Override it to score in another way, such as with a bank of earlier representations::

            class BankMI(MIEstimationModule):
                def scores(self, x, y):
                    matrix = self.critic.pairwise(x, torch.cat([y, self.bank]))
                    joint = torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)
                    return Scores.from_matrix(matrix, joint=joint, marginal=~joint)
        """
        return self.mi_loss.score(*representations)

    def loss(self, terms: BoundTerms, penalty: Tensor | None) -> Tensor:
        """The scalar to minimize: penalty - objective, nats.

        Override it to add another loss::

            class TaskAndMI(MIEstimationModule):
                def loss(self, terms, penalty):
                    return self.task_loss + 0.1 * super().loss(terms, penalty)
        """
        return regularized_loss(terms, penalty)

    @property
    def _encodes(self) -> bool:
        return bool(self.encoders) or type(self).encode is not StepHooks.encode

    def _encode_batch(self, batch: Any, probe: OnlineLinearProbe | None, labels_required: bool = True) -> LabelledViews:
        """The batch, with representations in place of the views."""
        entries = self.unpack_batch(batch)
        tensors = len(self.encoders) < 2 and type(self).encode is StepHooks.encode
        check_entries(entries, self.pairs, type(self).__name__, tensors)
        self._guard.check_views(self, entries)
        options: dict[str, Any] = {"training": self.training, "device": self.device, "labels_required": labels_required}
        views = split_batch(entries, self.pairs, probe, **options)
        return views._replace(views=list(self.encode(*views.views)))

    def _scored_entries(self, encoded: LabelledViews) -> list[Tensor]:
        """The outputs of the head, further entries, and the labels if the pairing takes them."""
        labels = [encoded.labels] if self.pairs.takes_labels and encoded.labels is not None else []
        return [*self.project(*encoded.views), *encoded.surplus, *labels]
