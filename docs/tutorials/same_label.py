# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tutorial: features from same-label pairs, without drift
#
# This tutorial trains features of images on pairs with the same label. The loss is a bound of mutual information (MI).
# It looks fine and drifts; you will see how to detect that, how to stop it, and what it changes. You need no knowledge
# of MI. The reference pages are [monitoring](../monitoring.html) and [contrastive learning](../contrastive.html). The
# code runs when the documentation is built, so every output on this page comes from this version of the package.
#
# ## Pairs and their MI
#
# Draw two images with the same label: a *joint pair* (a positive). Draw two images at random: a *marginal pair* (a
# negative). A *critic* T scores pairs of images. MI measures how different the two kinds of pairs are; if nobody could
# tell them apart, it would be 0. The data are scikit-learn's digits. Their ten classes have about equal sizes, and the
# MI of the two images of a joint pair is then the entropy of the label, about log 10:

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import logging
import math
import warnings

import lightning.pytorch as L

from lightning_mi.data import ImageDataModule

# Less output on this page:
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch")

data = ImageDataModule("digits", batch_size=100, val_fraction=0)
data.setup("fit")
print(f"true MI {data.true_mi():.3f} nats, log 10 = {math.log(10):.3f} nats")

# %% [markdown]
# ## A bound and its two terms
#
# The bound of Donsker and Varadhan (DV) turns scores into a lower bound of the MI:
#
# ```text
# MI >= mean of T over joint pairs               (joint term)
#       - log mean of exp(T) over marginal pairs  (marginal term)
# ```
#
# Training maximizes it. The critic then learns the logarithm of a ratio: how much more likely a pair is as a joint pair
# than as a marginal pair. A matrix of scores is enough to read it. Rows are x, columns are y, and the joint pairs are
# on the diagonal. Now add 5 to every score:

# %%
import torch

from lightning_mi import Scores, bounds

matrix = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 1.5, -0.5], [0.5, -1.0, 2.5]])
for shift in (0, 5):
    terms = bounds.DV()(Scores.from_matrix(matrix + shift))
    joint, marginal = float(terms.joint_term), float(terms.marginal_term)
    print(f"shift {shift}: {joint:.3f} - {marginal:.3f} = {terms.value:.3f} nats")

# %% [markdown]
# Both terms move by 5, and the value does not change. So the loss does not determine the level of the scores, and
# nothing stops the two terms from moving together during training. This is *drift* ([Choi and Lee
# 2022](../references.html#choi-and-lee-2022)).
#
# ## Train, and watch
#
# - The encoder is any network that turns an image into a vector of features.
# - The critic is the inner product of two such vectors, divided by the root of their length, plus a learnable offset.
# - `pairs.SameLabel()` makes the pairs of each batch from its labels.
# - `StabilityMonitor` tests the two terms for a trend. Its window is shorter than by default, like this training.
# - `Probes` is for the end: it classifies test images by their features.

# %%
from lightning_mi import MIEstimationModule, critics, encoders, pairs, regularizers
from lightning_mi.callbacks import Probes, StabilityMonitor
from lightning_mi.exceptions import StabilityWarning


class Terms(L.Callback):
    """Store the two terms and the value of each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        terms = outputs["terms"]
        step = (terms.joint_term, terms.marginal_term, terms.value)
        self.steps.append([float(term) for term in step])


def make_module(regularizer=None):
    L.seed_everything(0, verbose=False)
    inner_product = critics.InnerProductCritic(scaled=True)
    return MIEstimationModule(
        encoder=encoders.SmallCNN(1, 128, width=16),
        critic=critics.CalibratedCritic(inner_product),
        pairs=pairs.SameLabel(),
        bound=bounds.DV(),
        regularizer=regularizer,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    )


def make_trainer(*callbacks):
    return L.Trainer(
        max_epochs=80,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(module):
    """Train and test; print the warnings of the monitor."""
    monitor, terms = StabilityMonitor(window=1000, every_n_steps=25), Terms()
    trainer = make_trainer(monitor, terms, Probes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StabilityWarning)
        trainer.fit(module, data)
    for warning in caught:
        print(f"{warning.category.__name__}: {warning.message}")
    print(f"{trainer.global_step} steps, drift detected at step {monitor.drifting_at}")
    return terms.steps, trainer.test(module, data, verbose=False)[0]


plain_steps, plain = train(make_module())

# %% [markdown]
# The warning names the remedy: a regularizer adds the square of the marginal term to the loss, times a weight. For DV
# the marginal term is the *log-normalizer*, and its square is 0 where the scores are the log-ratio itself. The value of
# the bound is reported without the penalty.

# %%
held_steps, held = train(make_module(regularizers.Squared(weight=0.1)))

# %% [markdown]
# ## The two terms
#
# Draw both trainings over their steps, as `StabilityMonitor` saw them:

# %%
import matplotlib.pyplot as plt
import numpy as np

figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
curves = {
    "joint term": "#009E73",
    "marginal term": "#CC79A7",
    "value": "#0072B2",
}
for panel, title, steps in (
    (panels[0], "DV", plain_steps),
    (panels[1], "DV, regularized", held_steps),
):
    for values, (label, color) in zip(np.array(steps).T, curves.items(), strict=True):
        panel.plot(values, color=color, linewidth=1, label=label)
    style = {"color": "black", "linewidth": 0.8, "linestyle": "--"}
    panel.axhline(data.true_mi(), label="true MI", **style)
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("step")
    panel.set_ylabel("nats")
    panel.legend(fontsize=9)
figure.tight_layout()

# %% [markdown]
# *Left:* the value rises towards the true MI, while both terms drift far above it. *Right:* the marginal term stays
# near 0, so that the joint term alone estimates the MI.
#
# ## What it changes
#
# The test images chose nothing in the training. `Probes` logs the accuracy of the nearest neighbor and of a linear
# classifier of the features. Features of random weights are the baseline.

# %%
untrained = make_trainer(Probes()).test(make_module(), data, verbose=False)[0]
num_test = sum(len(labels) for _, labels in data.test_dataloader())

print(f"{'':24}{'untrained':>11}{'DV':>11}{'regularized':>13}")
for name in (
    "test/mi",
    "test/mi_standard_error",
    "test/log_normalizer",
    "test/mi_plug_in",
    "probe/nearest_neighbor",
    "probe/accuracy",
):
    values = [results.get(name, math.nan) for results in (untrained, plain, held)]
    print(f"{name:24}{values[0]:11.3f}{values[1]:11.3f}{values[2]:13.3f}")
print(f"{num_test} test images: one of them is {1 / num_test:.3f} of an accuracy")

# %% [markdown]
# - **The features** of both trainings classify nearly all test images. Drift moves the level of all scores; the order
#   of the neighbors need not change. A difference of a few images is within chance.
# - **The scores** have lost their meaning in the drifting training. With the regularizer, the score of a pair is the
#   log-ratio itself, and `test/mi_plug_in`, the joint term, is a second estimate. It is logged only where the
#   log-normalizer is held; `nan` is a value that is not logged.
# - **The training** is at risk: on small batches the drifting bound [explodes](../monitoring.html#seed-by-seed).
#
# ## In your own training
#
# `StabilityMonitor()` needs no arguments in a training of several thousand steps. `action="stop"` ends the training,
# and `action="roll_back"` returns to an earlier state and regularizes. `TensorBoardLayout()` charts [both terms and the
# log-normalizer in its band](../tensorboard.html). Both work with any `LightningModule` that returns the terms of a
# bound.
#
# The recipe is this training with a larger network, and the benchmark compares six losses, with and without
# regularizer:
#
# ```console
# lightning-mi fit --config contrastive/digits
# lightning-mi test --config contrastive/digits --ckpt_path last
# lightning-mi bench contrastive
# ```
#
# ## What not to believe
#
# - **a steady value as a stable training.** The value is blind to drift. Look at the terms.
# - **silence of the monitor as proof.** A trend test needs steps: at least twenty blocks of them.
# - **a high MI as good features.** The accuracy of features on labels that you care about is what counts, and random
#   weights are the baseline.
# - **a difference between two trainings of one seed each.** [Benchmarks](../benchmarks.html#contrastive-on-digits)
#   train several.
#
# Next: [which bound to choose](../choose.html), [all rules of the monitor](../monitoring.html), and [two views
# instead of labels](../contrastive_images.html).
