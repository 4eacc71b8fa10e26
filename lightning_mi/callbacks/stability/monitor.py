"""StabilityMonitor: tells drifting and explosion while they happen, and acts on them."""

import math
from typing import Any, Literal, final

import lightning.pytorch as L
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_mi._compat import batches_done
from lightning_mi.bounds import AbstractBound
from lightning_mi.callbacks._direct_logs import log_now
from lightning_mi.callbacks._step_outputs import bound_of, observed
from lightning_mi.callbacks.stability.criteria import MIN_BLOCKS, RECENT, push_above, read_drift, read_explosion
from lightning_mi.callbacks.stability.rollback import (
    Snapshots,
    check_can_roll_back,
    held,
    install,
    is_literal,
    regularizer_of,
    strengthen,
)
from lightning_mi.callbacks.stability.window import Block, BlockReader
from lightning_mi.exceptions import StabilityWarning
from lightning_mi.regularizers import held_target
from lightning_mi.training.step import max_value
from lightning_mi.utilities.checks import check_instance, check_number, check_whole

_NAME = "StabilityMonitor"
SNAPSHOT_EVERY = RECENT // 2  # blocks
_ACTIONS = ("warn", "stop", "roll_back")


@final
class StabilityMonitor(L.Callback):
    """Watches the terms and scores of any module that returns them, and says when training drifts or explodes.

    Every ``every_n_steps`` steps, what the steps since the last time read is summed up as a block, the same on all
    processes. *Drifting*: over the blocks of the window, the joint term and the log-normalizer have trends of the same
    sign (Mann-Kendall, both significant) at ``min_rate`` or more (Theil-Sen), while the value's is not half as fast;
    of a bound that is capped at log N, the rate is only logged. *Explosion*: a term is not finite; the values' mean is
    above ``max_mi`` or InfoNCE's ceiling; or, of a bound without that cap, three batches push with five times the force
    of the optimum, the scores span more than float32's exponentials, or the marginal term rests on single pairs.
    ``docs/monitoring.md`` has the rules, their rates of false alarms, and what they do on known cases.

    Logs ``stability/drift_rate`` (nats per 1000 steps, of the log-normalizer over the window, or over what there is of
    it), ``stability/log_normalizer``, ``stability/effective_sample_fraction`` (the share of the marginal pairs that carry
    the marginal term) and ``stability/score_range``. Warns once of each kind, with a remedy.

    The module's ``training_step`` returns ``{"loss": ..., "terms": BoundTerms, "scores": Scores}``, as
    :class:`~lightning_mi.MIEstimationModule` does. Verdicts, window and strengthened weights are in the checkpoint; the
    states to roll back to are not, and are taken anew after a resume.

    Args:
        bound: What is trained; the module's attribute ``bound`` by default.
        window: Steps over which drift is judged; a fast one in a part of them, 20 blocks at least.
        action: ``"warn"`` only warns. ``"stop"`` ends the training. ``"roll_back"`` puts module, optimizers and
            schedulers back to a healthy state, multiplies the regularizer's weight by ``raise_by`` or installs
            ``Squared(weight)`` where there is none, gives NWJ and TUBA the robust exponential, and goes on with the
            data and the step at hand; after ``max_roll_backs`` it stops.
        every_n_steps: Steps of a block.
        min_rate: The least drift that counts, nats per 1000 steps.
        alpha: The level of each trend test.
        max_mi: What the estimate cannot exceed, nats, such as H(Y); by default, for lower bounds, what data module and
            pairing know of it (:meth:`AbstractPairing.max_value`).
        max_roll_backs: How often to roll back at most.
        raise_by: What the weight is multiplied with at a roll-back.
        weight: Of the regularizer that is installed where there is none.

    Attributes:
        drifting_at: The global step at which drift was first told; None if it was not.
        exploded_at: The same of explosion.
        rolled_back: For each roll-back, the step it happened at and the step it went back to.

    Raises:
        ValueError: An argument is out of range; at the start of fit, the training cannot be rolled back.
        TypeError: At the start of fit, the bound is unknown or ``"roll_back"`` would find no regularizer; at the first
            step, the module gave no terms and scores.

    Source: Mann 1945; Sen 1968; Choi and Lee 2022 (drifting and explosion).

    Example:
        >>> trainer = L.Trainer(logger=False, accelerator="cpu", callbacks=StabilityMonitor(action="stop"))
    """

    def __init__(
        self,
        bound: AbstractBound | None = None,
        window: int = 2000,
        action: Literal["warn", "stop", "roll_back"] = "warn",
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
        check_whole("every_n_steps", every_n_steps, 1)
        check_whole("window", window, 1)
        _check(
            window >= MIN_BLOCKS * every_n_steps,
            "window",
            window,
            f"a trend test takes {MIN_BLOCKS} blocks of every_n_steps={every_n_steps} steps or more, so at least "
            f"{MIN_BLOCKS * every_n_steps}",
        )
        for name, number, meaning in (
            ("min_rate", min_rate, "nats per 1000 steps"),
            ("alpha", alpha, "the level of each trend test"),
            ("max_mi", math.inf if max_mi is None else max_mi, "nats"),
            ("raise_by", raise_by, "a factor"),
            ("weight", weight, "lambda"),
        ):
            check_number(name, number, meaning)
        check_whole("max_roll_backs", max_roll_backs, 1)
        _check(action in _ACTIONS, "action", action, f"it is one of {', '.join(map(repr, _ACTIONS))}")
        _check(0 <= min_rate < math.inf, "min_rate", min_rate, "a least rate is 0 or more nats per 1000 steps")
        _check(0 < alpha < 1, "alpha", alpha, "the level of a test lies between 0 and 1")
        _check(max_mi is None or max_mi > 0, "max_mi", max_mi, "mutual information is limited to a positive number")
        _check(1 < raise_by < math.inf, "raise_by", raise_by, "a weight is raised by a factor above 1")
        _check(0 < weight < math.inf, "weight", weight, "the weight of a regularizer is positive")
        self.action = action
        self.handles_non_finite = action != "warn"  # instead of the module's own policy
        self.max_mi = max_mi
        self.drifting_at: int | None = None
        self.exploded_at: int | None = None
        self.rolled_back: list[tuple[int, int]] = []
        self._bound = bound
        self._every_n_steps = every_n_steps
        self._num_blocks = window // every_n_steps
        self._min_rate, self._alpha = min_rate, alpha
        self._max_roll_backs, self._raise_by, self._weight = max_roll_backs, raise_by, weight
        self._strengthened: dict[str, Any] | None = None
        self._begin()

    def _begin(self) -> None:
        self.drifting_at, self.exploded_at, self.rolled_back = None, None, []
        self._reader = BlockReader(self._every_n_steps)
        self._blocks: list[Block] = []
        self._healthy_blocks = 0
        self._snapshots = Snapshots()
        self._strengthened = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin anew, unless a checkpoint is loaded after this; reject what cannot be watched or rolled back."""
        if stage != "fit":
            return
        self._begin()
        bound_of(pl_module, self._bound, _NAME)
        if self.action == "roll_back":
            check_can_roll_back(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with what a checkpoint held."""
        if self._strengthened is not None:
            install(self._strengthened, pl_module, bound_of(pl_module, self._bound, _NAME))
        if self.action == "roll_back":
            self._snapshots.append(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep this step's terms, and look at them when a block is full."""
        terms, scores = observed(outputs, pl_module, _NAME)
        self._reader.add(terms, scores, outputs.get("loss"))
        if not self._reader.full:
            return
        bound = bound_of(pl_module, self._bound, _NAME)
        block = self._reader.close(scores, batches_done(trainer), push_above(bound))
        if block is not None:
            if self._strengthened is not None:
                self._strengthened = held(pl_module, bound)  # another callback may have changed it since
            limit = max_value(trainer, pl_module, bound) if self.max_mi is None else self.max_mi
            block = block._replace(limit=limit)
            self._blocks = [*self._blocks, block][-self._num_blocks :]
            self._look(trainer, pl_module, bound)

    def state_dict(self) -> dict[str, Any]:
        """What has been seen and said."""
        return {
            "blocks": [list(block) for block in self._blocks],
            **self._reader.state_dict(),
            "healthy_blocks": self._healthy_blocks,
            "drifting_at": self.drifting_at,
            "exploded_at": self.exploded_at,
            "rolled_back": [list(steps) for steps in self.rolled_back],
            "strengthened": self._strengthened,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._blocks = [Block(*block) for block in state_dict["blocks"]][-self._num_blocks :]
        self._reader.load_state_dict(state_dict)
        self._healthy_blocks = state_dict["healthy_blocks"]
        self.drifting_at = state_dict["drifting_at"]
        self.exploded_at = state_dict["exploded_at"]
        self.rolled_back = [(at, to) for at, to in state_dict["rolled_back"]]
        self._strengthened = state_dict["strengthened"]

    def _look(self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound) -> None:
        """Judge the blocks; every process comes to the same verdict, since it has the same blocks."""
        last, verdicts = self._blocks[-1], {}
        logs = {
            "log_normalizer": last.log_normalizer,
            "effective_sample_fraction": last.effective_share,
            "score_range": last.score_range,
        }
        if (exploding := read_explosion(self._blocks, bound)) is not None:
            verdicts["exploded_at"] = f"{type(bound).__name__} explodes: {exploding}"
        if len(self._blocks) >= RECENT and all(block.finite for block in self._blocks):
            drift = read_drift(self._blocks, self._num_blocks, self._min_rate, self._alpha, _target(pl_module, bound))
            logs["drift_rate"] = drift.rate
            if drift.together and not bound.capped_at_log_n:
                verdicts["drifting_at"] = (
                    f"the two terms of {type(bound).__name__} drift by {drift.rate:.2g} nats per 1000 steps while the "
                    f"value is steady (it moves by {drift.value_rate:.2g})"
                )
        log_now(trainer, {f"stability/{name}": value for name, value in logs.items()})
        if verdicts:
            self._healthy_blocks = 0
            self._respond(trainer, pl_module, bound, verdicts)
            return
        self._healthy_blocks += 1
        # Often enough for little to be lost, so seldom that what is noticed late is not in the older one.
        if self.action == "roll_back" and self._healthy_blocks % SNAPSHOT_EVERY == 0:
            self._snapshots.append(trainer, pl_module)

    def _respond(
        self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound, verdicts: dict[str, str]
    ) -> None:
        """Keep the first step of each kind, act as told, and say what is new."""
        step, remedy = trainer.global_step, f"To cure it, {_remedy(pl_module, bound)}."
        news = [kind for kind in verdicts if getattr(self, kind) is None]
        for kind in news:
            setattr(self, kind, step)
        done = self._act(trainer, pl_module, bound)
        for kind in list(verdicts) if done else news:
            rank_zero_warn(f"Step {step}: {verdicts[kind]}. {done or remedy}", category=StabilityWarning)

    def _act(self, trainer: L.Trainer, pl_module: L.LightningModule, bound: AbstractBound) -> str | None:
        """Do as told; return what was done, in words."""
        if self.action == "warn":
            return None
        if self.action == "stop" or len(self.rolled_back) == self._max_roll_backs:
            if trainer.should_stop:  # said already, and Lightning has min_steps to train yet
                return None
            trainer.should_stop = True
            if self.action == "stop":
                return f"Training stops here. To cure it, {_remedy(pl_module, bound)}."
            return f"Training stops here: it has been rolled back max_roll_backs={self._max_roll_backs} times already."
        restored = self._snapshots.restore(trainer, pl_module)
        done, self._strengthened = strengthen(pl_module, bound, self._weight, self._raise_by)
        self.rolled_back.append((trainer.global_step, restored))
        self._blocks = []
        return (
            f"Rolled back to the state of step {restored} (time {len(self.rolled_back)} of at most "
            f"{self._max_roll_backs}): {done}."
        )


def _target(pl_module: L.LightningModule, bound: AbstractBound) -> float | None:
    """Where something holds the log-normalizer, nats; a regularizer of weight 0 does not."""
    regularizer = regularizer_of(pl_module)
    holds = regularizer is not None and regularizer.current_weight() > 0
    return held_target(bound, regularizer if holds else None)


def _remedy(pl_module: L.LightningModule, bound: AbstractBound) -> str:
    regularizer = regularizer_of(pl_module)
    robust = f" and leave {type(bound).__name__} its robust exponential (cap=1)" if is_literal(bound) else ""
    if regularizer is None:
        return f"add `regularizers.Squared(weight=0.1)`{robust}"
    weight = regularizer.current_weight()
    return f"raise the weight of {type(regularizer).__name__}, now {weight:g}{robust}, or take larger batches"


def _check(fits: bool, name: str, value: Any, wanted: str) -> None:
    if not fits:
        raise ValueError(f"Got {name}={value!r}: {wanted}.")
