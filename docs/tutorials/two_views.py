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
# # Tutorial: two views of each image, on many devices
#
# This tutorial trains an encoder without labels, by SimCLR: two random views of each image are a positive pair, and the
# views of all other images are negatives. Then it runs the same step on two ranks and compares the gradient with that
# of one process. You need no knowledge of mutual information (MI). The reference pages are [contrastive learning of
# images](../contrastive_images.html) and [exact distributed
# scoring](../reliability.html#exact-distributed-scoring). The code runs when the
# documentation is built, so every output on this page comes from this version of the package.
#
# ## Two views
#
# `BatchedContrastiveTransform` makes random crops and changes brightness and contrast, for a whole batch on the device.
# With `two_views=True` a batch of `ImageDataModule` is (view 1, view 2, label). The data are scikit-learn's digits, and
# a mirrored digit is no digit, so there is no flip.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import logging
import warnings

import lightning.pytorch as L
import matplotlib.pyplot as plt

from lightning_mi.data import BatchedContrastiveTransform, ImageDataModule

# Less output on this page:
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch")


def make_data(batch_size):
    return ImageDataModule(
        "digits",
        batch_size=batch_size,
        batch_transform=BatchedContrastiveTransform(min_scale=0.3, flip=False),
        two_views=True,
        val_fraction=0,
    )


data = make_data(batch_size=128)
data.setup("fit")
batch = next(iter(data.train_dataloader()))
views = data.on_after_batch_transfer(batch, 0)[:2]

figure, panels = plt.subplots(2, 8, figsize=(8, 2.2))
for i, row in enumerate(panels):
    for panel, image in zip(row, views[i], strict=False):
        panel.imshow(image[0].numpy(), cmap="gray_r")
        panel.axis("off")
figure.tight_layout()

# %% [markdown]
# Each column is one image. Its two views are a positive pair, or *joint pair*; any two views of different images are a
# *marginal pair*.
#
# ## Loss, encoder, head
#
# `losses.ntxent` is the loss of SimCLR. It is three parts: a critic that scores pairs by the cosine over a temperature,
# the pairing `TwoViews`, and the bound `InfoNCE`. `MIEstimationModule` takes the same parts, with an encoder and a
# projection head. The loss reads the head. The features, which you want, are the output of the encoder.

# %%
from lightning_mi import MIEstimationModule, encoders, losses
from lightning_mi.callbacks import Probes


class Estimates(L.Callback):
    """Store the estimate of each training step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["terms"].value))


def make_trainer(*callbacks):
    return L.Trainer(
        max_epochs=30,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


L.seed_everything(0, verbose=False)
loss = losses.ntxent(temperature=0.2)
print(loss)
module = MIEstimationModule(
    loss.critic,
    loss.bound,
    pairs=loss.pairs,
    encoder=encoders.SmallCNN(1, 64, width=16),
    head=encoders.MLP(64, 64, out_dim=64),
)
probes = Probes(head=True, similarity="cosine")
untrained = make_trainer(probes).test(module, data, verbose=False)[0]

estimates = Estimates()
trainer = make_trainer(estimates, probes)
trainer.fit(module, data)
trained = trainer.test(module, data, verbose=False)[0]

for name in ("accuracy", "nearest_neighbor", "head_accuracy", "head_nearest_neighbor"):
    before, after = (results[f"probe/{name}"] for results in (untrained, trained))
    print(f"probe/{name:22} random weights {before:.3f}, trained {after:.3f}")

# %% [markdown]
# Probes read the images without augmentation. By the linear classifier (`accuracy`), the encoder is better than its
# random weights, and better than the output of the head: the head is for the loss. Random weights are a strong baseline
# for digits, so always compare.
#
# ## The ceiling, and why devices matter
#
# InfoNCE is a lower bound of the MI of the two views. Each view has to find its partner among the other 2 N - 1 views
# of N images, so the bound cannot exceed log(2 N - 1). N counts the images of *all* ranks: more devices raise the
# ceiling.

# %%
import math

for ranks in (1, 2, 8, 64):
    ceiling = math.log(2 * 128 * ranks - 1)
    print(f"128 images on each of {ranks:2} ranks: ceiling {ceiling:.2f} nats")

figure, panel = plt.subplots(figsize=(6, 3.2))
panel.plot(estimates.values, color="#0072B2", linewidth=1, label="InfoNCE, one batch")
style = {"color": "black", "linewidth": 0.8, "linestyle": "--"}
panel.axhline(math.log(2 * 128 - 1), label="log(2 N - 1)", **style)
panel.set_xlabel("step")
panel.set_ylabel("nats")
panel.legend(fontsize=9)
figure.tight_layout()

# %% [markdown]
# A high temperature limits the estimate, too, because it scales the scores: see [the
# temperature](../contrastive.html#the-temperature-and-the-estimate).
#
# ## The same step on two ranks
#
# With DDP each rank has its own part of the batch. If each rank scored only its own views, its negatives would be
# fewer, and the loss another one. `TwoViews` gathers the views of all ranks, with gradient. The following program takes
# one step from the trained weights and saves the gradient that the optimizer gets. Its arguments are the number of
# devices, `gather` or `local`, and the name of the output. `batch_size` is that of one rank: 128 images in all.

# %%
import tempfile
from pathlib import Path

import torch

PROGRAM = """
import sys

import lightning.pytorch as L
import torch

from lightning_mi import MIEstimationModule, encoders, losses
from lightning_mi.data import BatchedContrastiveTransform, ImageDataModule


class KeepGradient(L.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [parameter.grad.flatten() for parameter in pl_module.parameters()]
        self.gradient = torch.cat(gradients)


if __name__ == "__main__":
    devices, gather, output = int(sys.argv[1]), sys.argv[2] == "gather", sys.argv[3]
    loss = losses.ntxent(temperature=0.2, gather=gather)
    module = MIEstimationModule(
        loss.critic,
        loss.bound,
        pairs=loss.pairs,
        encoder=encoders.SmallCNN(1, 64, width=16),
        head=encoders.MLP(64, 64, out_dim=64),
    )
    module.load_state_dict(torch.load("weights.pt"))
    data = ImageDataModule(
        "digits",
        batch_size=128 // devices,
        batch_transform=BatchedContrastiveTransform(min_scale=0.3, flip=False),
        two_views=True,
        val_fraction=0,
    )
    keep = KeepGradient()
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[keep],
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    if trainer.is_global_zero:
        metrics = trainer.callback_metrics
        results = {name: metrics[f"train/{name}"] for name in ("mi", "log_n")}
        torch.save({"gradient": keep.gradient, **results}, output)
"""

folder = Path(tempfile.mkdtemp())
(folder / "train.py").write_text(PROGRAM)
torch.save(module.state_dict(), folder / "weights.pt")

# %% [markdown]
# With `strategy="ddp"` Lightning starts the other ranks itself; `torchrun --nproc-per-node=2 train.py` would do, too.
# Run it three times: on one device, on two, and on two without gathering.

# %%
import os
import subprocess
import sys

environment = {**os.environ, "OMP_NUM_THREADS": "1"}


def launch(*command):
    """Run Python in the folder; return what it wrote, or raise its error."""
    finished = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return finished


runs = {}
for name, devices, gather in (
    ("one process", "1", "gather"),
    ("two ranks", "2", "gather"),
    ("two ranks, local", "2", "local"),
):
    launch("train.py", devices, gather, "result.pt")
    runs[name] = torch.load(folder / "result.pt")

reference = runs["one process"]["gradient"]
print(f"{'':18}  estimate  ceiling  |gradient|  relative difference")
for name, run in runs.items():
    gradient = run["gradient"]
    difference = float((gradient - reference).norm() / reference.norm())
    parts = f"{run['mi']:10.5f}{run['log_n']:9.3f}{gradient.norm():12.5f}"
    print(f"{name:18}{parts}{difference:21.1e}")

# %% [markdown]
# Two ranks give the gradient of one process up to the rounding of 32-bit numbers, and the same estimate. Without
# gathering the ceiling is lower, and the gradient is another one: that of the mean of two smaller losses.
#
# This holds for every bound, every pairing of [this table](../reliability.html#exact-distributed-scoring) and your own
# networks. A network with BatchNorm needs `Trainer(sync_batchnorm=True)`, which runs on GPUs.
#
# ## From the command line
#
# The recipe is this training, with a validation part. These are one process, two devices, and the evaluation:
#
# ```console
# lightning-mi fit --config contrastive/simclr_digits
# lightning-mi fit --config contrastive/simclr_digits --trainer.devices 2 --trainer.strategy ddp --data.batch_size 64
# lightning-mi test --config contrastive/simclr_digits --ckpt_path last
# ```
#
# `fast_dev_run` takes one step of training and of validation, to see that a command works. After one step the estimate
# says nothing:

# %%
options = "--trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp"
options += " --data.batch_size 64 --trainer.fast_dev_run true"
fit = ["-m", "lightning_mi", "fit", "--config", "contrastive/simclr_digits"]
finished = launch(*fit, *options.split())
print(*[line for line in finished.stderr.splitlines() if "processes" in line])
print(finished.stdout.splitlines()[-1])

# %% [markdown]
# ## What not to believe
#
# - **the estimate as the MI of the views.** It is a lower bound with a ceiling, made to be a loss.
# - **a high estimate as good features.** Views that share too much, as without crops, are easy to match.
# - **an accuracy without its baseline.** Compare with random weights.
# - **the same training on more devices as the same experiment**, if `batch_size` stays: the global batch grows, and so
#   does the number of negatives. Keep the global batch, or report it.
#
# Next: [momentum encoders, queues and any loader](../contrastive_images.html), [other contrastive
# losses](../contrastive.html), and [a million pairs](../million_pairs.html) with less memory.
