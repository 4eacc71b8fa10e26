"""StabilityMonitor: detect drift and explosion during training; warn, stop or roll back."""

import math
from typing import Any, Literal, final, get_args

import lightning.pytorch as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_mi._compat.lightning_loops import batches_done
from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks._step_outputs import find_bound, find_regularizer, log_metrics, read_step
from lightning_mi.callbacks.stability.criteria import MIN_BLOCKS, RECENT, detect_drift, detect_explosion, push_above
from lightning_mi.callbacks.stability.rollback import (
    Snapshots,
    check_can_roll_back,
    has_literal_exponential,
    hold_state,
    restore_hold,
    strengthen,
)
from lightning_mi.callbacks.stability.window import Block, BlockReader
from lightning_mi.exceptions import StabilityWarning
from lightning_mi.regularizers import log_normalizer_target
from lightning_mi.training.step import max_value
from lightning_mi.utilities.checks import check_choice, check_instance, check_number, check_whole

_NAME = "StabilityMonitor"
_SNAPSHOT_EVERY = RECENT // 2  # healthy blocks; after a detection this late, an older snapshot still exists

Action = Literal["warn", "stop", "roll_back"]


@final
class StabilityMonitor(L.Callback):
    """Detects drift and explosion during training, from the terms and scores that a module's steps return.

    Every ``every_n_steps`` steps it summarizes the terms and scores as a block, equal on all ranks.

    *Drift*: over the blocks of the window, the joint term and the log-normalizer have trends of the same sign
    (Mann-Kendall, both significant) of at least ``min_rate`` (Theil-Sen), while the value's trend is less than half as
    fast.
    For a bound that is normalized by rows, or of log-densities, the rate is only logged.

    *Explosion*: a term is not finite, or the mean value is above ``max_mi`` or InfoNCE's ceiling; for other bounds than
    these also: three batches have five times the gradient weight of the optimum, the scores span more than float32's
    exponentials, or the marginal term rests on single pairs. ``docs/monitoring.md`` gives the criteria, their
    false-alarm rates and their results on known cases.

    Logs ``stability/drift_rate`` (nats per 1000 steps: trend of the log-normalizer over the window, or over the blocks
    so far), ``stability/log_normalizer``, ``stability/effective_sample_fraction`` (fraction of the marginal pairs that
    carry the marginal term) and ``stability/score_range``. Warns once of drift and once of explosion, with a remedy.

    The module's ``training_step`` returns ``{"loss": ..., "terms": BoundTerms, "scores": Scores}``, as that of
    :class:`~lightning_mi.MIEstimationModule` does. Detections, window and strengthened weights are in the checkpoint.
    The snapshots for rollback are not: a resumed training takes new ones.

    Args:
        bound: The bound that is trained; the module's attribute ``bound`` by default.
        window: Steps over which drift is tested; a fast drift is detected in a part of it, 20 blocks at least.
        action: ``"warn"`` only warns. ``"stop"`` ends the training. ``"roll_back"`` restores module, optimizers and
            schedulers of a healthy snapshot, multiplies the regularizer's weight by ``raise_by`` or installs
            ``Squared(weight)`` if there is none, caps the exponential of NWJ and TUBA, and continues with the next
            batch; after ``max_roll_backs`` it stops.
        every_n_steps: Steps of a block.
        min_rate: The minimum rate of a drift, nats per 1000 steps.
        alpha: Level of each trend test.
        max_mi: Upper limit of the estimate, nats, such as H(Y); by default, for lower bounds, the limit that the
            pairing derives from the data module (:meth:`AbstractPairing.max_value`).
        max_roll_backs: Maximum number of rollbacks.
        raise_by: Factor of the weight at a rollback.
        weight: Weight of the regularizer that is installed if there is none.

    Attributes:
        drifting_at: The global step at which drift was first detected, or None.
        exploded_at: The same for explosion.
        rolled_back: For each rollback, its step and the step of the snapshot.

    Raises:
        ValueError: An argument is out of range; at the start of fit, the training cannot be rolled back.
        TypeError: At the start of fit, the bound is unknown, or rollback would find no regularizer; at the first step,
            the module returned no terms and scores.

    Source: Mann 1945; Sen 1968; Choi and Lee 2022 (drifting and explosion).

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=StabilityMonitor(action="stop"))
    """

    def __init__(
        self,
        bound: AbstractBound | None = None,
        window: int = 2000,
        *,
        action: Action = "warn",
        every_n_steps: int = 50,
        min_rate: float = 0.05,
        alpha: float = 0.001,
        max_mi: float | None = None,
        max_roll_backs: int = 3,
        raise_by: float = 10.0,
        weight: float = 0.1,
    ) -> None:
        if bound is not None:
            check_instance("bound", bound, AbstractBound, "bounds.DV()")
        check_choice("action", action, get_args(Action))
        _check_window(window, every_n_steps)
        check_whole("max_roll_backs", max_roll_backs, 1)
        _check_between(
            "min_rate", min_rate, 0, math.inf, "the minimum rate is at least 0 nats per 1000 steps", closed=True
        )
        _check_between("alpha", alpha, 0, 1, "the level of a test is between 0 and 1")
        _check_between("raise_by", raise_by, 1, math.inf, "the weight is multiplied with a factor above 1")
        _check_between("weight", weight, 0, math.inf, "the weight of a regularizer is positive")
        if max_mi is not None:
            check_number("max_mi", max_mi, "nats")
            if not max_mi > 0:
                raise ValueError(f"Got max_mi={max_mi!r}: the upper limit of mutual information is positive, in nats.")
        self.action = action
        self.handles_non_finite = action != "warn"  # in place of the module's policy
        self.max_mi = max_mi
        self._bound = bound
        self._every_n_steps = every_n_steps
        self._num_blocks = window // every_n_steps
        self._min_rate, self._alpha = min_rate, alpha
        self._max_roll_backs, self._raise_by, self._weight = max_roll_backs, raise_by, weight
        self._reset()

    def _reset(self) -> None:
        self.drifting_at: int | None = None
        self.exploded_at: int | None = None
        self.rolled_back: list[tuple[int, int]] = []
        self._reader = BlockReader(self._every_n_steps)
        self._blocks: list[Block] = []  # at most a window
        self._healthy_blocks = 0
        self._snapshots = Snapshots()
        self._hold: dict[str, Any] | None = None  # hold_state since the first rollback

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Reset the state, before Lightning loads a checkpoint; check the module."""
        if stage != "fit":
            return
        self._reset()
        bound = find_bound(pl_module, self._bound, _NAME)
        if self.action == "roll_back":
            if bound.needs_log_density:
                raise ValueError(
                    f"Got action='roll_back' for {type(bound).__name__}: log-densities are normalized, so there is no "
                    "regularizer to strengthen. Use action='stop' or 'warn'."
                )
            check_can_roll_back(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the strengthened regularizer of a checkpoint; take the first snapshot."""
        if self._hold is not None:
            restore_hold(self._hold, pl_module, find_bound(pl_module, self._bound, _NAME))
        if self.action == "roll_back":
            self._snapshots.append(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step's terms; check the blocks when one is complete."""
        terms, scores = read_step(outputs, pl_module, _NAME)
        self._reader.add(terms, scores, outputs.get("loss"))
        if not self._reader.full:
            return
        bound = find_bound(pl_module, self._bound, _NAME)
        block = self._reader.close(scores, batches_done(trainer), push_above(bound))
        if block is None:
            return
        if self._hold is not None:
            self._hold = hold_state(pl_module, bound)  # another callback may have changed it
        limit = max_value(trainer, pl_module, bound) if self.max_mi is None else self.max_mi
        self._blocks = [*self._blocks, block._replace(limit=limit)][-self._num_blocks :]
        self._check_blocks(trainer, pl_module, bound)

    def state_dict(self) -> dict[str, Any]:
        """The blocks of the window, the current block, the detections and the changed settings."""
        return {
            "blocks": [list(block) for block in self._blocks],
            **self._reader.state_dict(),
            "healthy_blocks": self._healthy_blocks,
            "drifting_at": self.drifting_at,
            "exploded_at": self.exploded_at,
            "rolled_back": [list(steps) for steps in self.rolled_back],
            "hold": self._hold,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._blocks = [Block(*block) for block in state_dict["blocks"]][-self._num_blocks :]
        self._reader.load_state_dict(state_dict)
        self._healthy_blocks = state_dict["healthy_blocks"]
        self.drifting_at = state_dict["drifting_at"]
        self.exploded_at = state_dict["exploded_at"]
        self.rolled_back = [(at, to) for at, to in state_dict["rolled_back"]]
        self._hold = state_dict["hold"]

    def _check_blocks(self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound) -> None:
        """Detect, log and respond. Every rank does the same, since the blocks are equal on all ranks."""
        last, detected = self._blocks[-1], {}
        logs = {
            "log_normalizer": last.log_normalizer,
            "effective_sample_fraction": last.effective_fraction,
            "score_range": last.score_range,
        }
        if (evidence := detect_explosion(self._blocks, bound)) is not None:
            detected["exploded_at"] = f"{type(bound).__name__} explodes: {evidence}"
        if len(self._blocks) >= RECENT and all(block.finite for block in self._blocks):
            target = _active_target(pl_module, bound)
            drift = detect_drift(self._blocks, self._num_blocks, self._min_rate, self._alpha, target)
            logs["drift_rate"] = drift.rate
            if drift.detected and not (bound.normalized_by_row or bound.needs_log_density):
                detected["drifting_at"] = (
                    f"the two terms of {type(bound).__name__} drift by {drift.rate:.2g} nats per 1000 steps while the "
                    f"value is steady (it moves by {drift.value_rate:.2g})"
                )
        log_metrics(trainer, {f"stability/{name}": value for name, value in logs.items()})
        if detected:
            self._healthy_blocks = 0
            self._respond(trainer, pl_module, bound, detected)
            return
        self._healthy_blocks += 1
        if self.action == "roll_back" and self._healthy_blocks % _SNAPSHOT_EVERY == 0:
            self._snapshots.append(trainer, pl_module)

    def _respond(
        self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound, detected: dict[str, str]
    ) -> None:
        """Record the first step of each kind, take the action, and warn of new detections."""
        step, remedy = trainer.global_step, f"To fix it, {_remedy(pl_module, bound)}."
        new = [kind for kind in detected if getattr(self, kind) is None]
        for kind in new:
            setattr(self, kind, step)
        response = self._act(trainer, pl_module, bound)
        for kind in list(detected) if response else new:
            rank_zero_warn(f"Step {step}: {detected[kind]}. {response or remedy}", category=StabilityWarning)

    def _act(self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound) -> str | None:
        """Stop or roll back; return a description, or None if nothing was done."""
        if self.action == "warn":
            return None
        if self.action == "stop" or len(self.rolled_back) == self._max_roll_backs:
            if trainer.should_stop:  # since an earlier block; Lightning trains on until min_steps
                return None
            trainer.should_stop = True
            if self.action == "stop":
                return f"Training stops here. To fix it, {_remedy(pl_module, bound)}."
            return f"Training stops here: it has been rolled back max_roll_backs={self._max_roll_backs} times already."
        restored = self._snapshots.restore(trainer, pl_module)
        description, self._hold = strengthen(pl_module, bound, self._weight, self._raise_by)
        self.rolled_back.append((trainer.global_step, restored))
        self._blocks = []
        return (
            f"Rolled back to the state of step {restored} (time {len(self.rolled_back)} of at most "
            f"{self._max_roll_backs}): {description}."
        )


def _active_target(pl_module: L.LightningModule, bound: AbstractBound) -> float | None:
    """The target of the log-normalizer, nats; None if no bound or regularizer (of positive weight) sets one."""
    regularizer = find_regularizer(pl_module)
    holds = regularizer is not None and regularizer.current_weight() > 0
    return log_normalizer_target(bound, regularizer if holds else None)


def _remedy(pl_module: L.LightningModule, bound: AbstractBound) -> str:
    if bound.needs_log_density:
        return "lower the learning rate, or raise the lowest log-variance of the density"
    regularizer = find_regularizer(pl_module)
    robust = (
        f" and use the robust exponential of {type(bound).__name__} (cap=1)" if has_literal_exponential(bound) else ""
    )
    if regularizer is None:
        return f"add `regularizers.Squared(weight=0.1)`{robust}"
    weight = regularizer.current_weight()
    return f"raise the weight of {type(regularizer).__name__}, now {weight:g}{robust}, or use larger batches"


def _check_window(window: int, every_n_steps: int) -> None:
    check_whole("every_n_steps", every_n_steps, 1)
    check_whole("window", window, 1)
    if window < MIN_BLOCKS * every_n_steps:
        raise ValueError(
            f"Got window={window}: a trend test needs at least {MIN_BLOCKS} blocks of every_n_steps={every_n_steps} "
            f"steps, so a window of at least {MIN_BLOCKS * every_n_steps}."
        )


def _check_between(name: str, value: float, low: float, high: float, meaning: str, *, closed: bool = False) -> None:
    """Check that low < value < high; with ``closed``, low <= value < high."""
    check_number(name, value, meaning)
    if not (low < value < high or (closed and value == low)):
        raise ValueError(f"Got {name}={value!r}: {meaning}.")
