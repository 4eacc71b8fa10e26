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
# # Tutorial: remove a sensitive attribute from a representation
#
# A network that classifies images also learns things that it should not pass on: which scanner made the image, who
# speaks, the sex of a patient. This tutorial removes such an attribute from the representation of an ordinary
# classifier with the callback `MIPenalty`, and checks the result with `LeakageAudit`. You need no knowledge of mutual
# information. The [reference page](../minimize.html) explains all options. The code runs when the documentation is
# built, so every output on this page comes from this version of the package.
#
# The mutual information (MI) of representation and attribute, in nats, is 0 exactly if the representation tells nothing
# about the attribute. For an attribute with two equally frequent values it is at most log 2.
#
# ## The data
#
# The task is the digit of an image, from scikit-learn's digits. The sensitive attribute is the scanner, 0 or 1. Scanner
# 1 adds a pattern of grey. Every digit is there from both scanners, so the attribute is of no use for the task.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import logging
import math
import warnings

import lightning.pytorch as L
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

# Less output on this page:
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch")

pixels, digits = load_digits(return_X_y=True)
rng = np.random.default_rng(0)
pattern = 0.5 * rng.random(64)


def scan(rows):
    """Images, digits and scanners: each image from both scanners."""
    images = np.concatenate([pixels[rows] / 16, pixels[rows] / 16 + pattern])
    scanners = np.repeat([0, 1], len(rows))
    return TensorDataset(
        torch.tensor(images).float(),
        torch.tensor(np.tile(digits[rows], 2)),
        torch.tensor(scanners),
    )


order = rng.permutation(len(pixels))
half = len(order) // 2
train, test = scan(order[:half]), scan(order[half:])

figure, panels = plt.subplots(1, 6, figsize=(8, 1.7))
for i, panel in enumerate(panels):
    image, digit, scanner = test[i // 2 + len(test) // 2 * (i % 2)]
    panel.imshow(image.numpy().reshape(8, 8), cmap="gray_r", vmin=0, vmax=1.5)
    panel.set_title(f"digit {digit}\nscanner {scanner}", fontsize=9)
    panel.axis("off")
figure.tight_layout()
print(f"{len(train)} training images, {len(test)} test images")
print(f"log 2 = {math.log(2):.3f} nats")

# %% [markdown]
# ## A plain classifier, and what its representation tells
#
# The classifier has an encoder, whose output is the representation, and a head. `noise` is a standard deviation: you
# will see what it is for.
#
# `LeakageAudit` reads, in `trainer.test`, the MI of two variables: a layer and an entry of the batch. The scanner is
# entry 2. It uses critics (networks that score pairs) that were trained for this reading alone, by cross-fitting on the
# test images. For labels it also cross-validates two classifiers of the representation and reports the better one.

# %%
from torch import nn
from torch.nn import functional as F

from lightning_mi.callbacks import LeakageAudit, MIPenalty
from lightning_mi.encoders import GaussianNoise


class Classifier(L.LightningModule):
    def __init__(self, noise):
        super().__init__()
        add_noise = GaussianNoise(noise) if noise else nn.Identity()
        hidden = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.encoder = nn.Sequential(hidden, nn.Linear(128, 32), add_noise)
        self.head = nn.Linear(32, 10)

    def forward(self, images):
        return self.head(self.encoder(images))

    def training_step(self, batch, batch_idx):
        images, digits, _ = batch
        return F.cross_entropy(self(images), digits)

    def test_step(self, batch, batch_idx):
        images, digits, _ = batch
        is_right = self(images).argmax(dim=1) == digits
        self.log("accuracy", is_right.float().mean(), batch_size=len(images))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train_and_audit(noise, penalty=None):
    """Train a classifier; return its accuracy and the audit."""
    L.seed_everything(0, verbose=False)
    audit = LeakageAudit("encoder", "batch.2", budget="quick")
    trainer = L.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        callbacks=[audit] if penalty is None else [audit, penalty],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Classifier(noise)
    trainer.fit(model, DataLoader(train, 100, shuffle=True, drop_last=True))
    results = trainer.test(model, DataLoader(test, 500), verbose=False)[0]
    return results["accuracy"], audit


accuracy, audit = train_and_audit(noise=0)
print(f"digit: accuracy {accuracy:.3f}")
print(f"scanner: accuracy {audit.probe.accuracy:.3f}, chance {audit.probe.chance:.3f}")
print(audit.result)

# %% [markdown]
# The classifier was never trained for the scanner, and its representation tells nearly all about it. The first line of
# the result has the estimate with its lower limit; the second line a p-value of a permutation test of independence. The
# findings say what to be careful about: here, that more images would raise the estimate.
#
# ## Add the penalty
#
# `MIPenalty` adds a weight times an estimate of the MI to the loss. The module does not change. In each step the
# penalty's critic trains first, on the detached representation. Then the gradient of its estimate reaches the encoder,
# which descends it. Compare four trainings: without and with the penalty, without and with noise.

# %%
runs = {"plain": (accuracy, audit, math.nan)}
for name, noise in (("penalty", 0), ("noise", 1.0), ("noise and penalty", 1.0)):
    penalty = None
    if "penalty" in name:
        penalty = MIPenalty("encoder", "batch.2", num_classes=2, weight=1.0)
    accuracy, audit = train_and_audit(noise, penalty)
    runs[name] = accuracy, audit, penalty.estimate if penalty else math.nan

print(f"{'':18}   digit  scanner  penalty  audit  lower  p-value")
for name, (accuracy, audit, estimate) in runs.items():
    result = audit.result
    print(
        f"{name:18}{accuracy:8.3f}{audit.probe.accuracy:9.3f}{estimate:9.3f}"
        f"{result.mi:7.3f}{result.lower:7.3f}{result.p_value:9.3f}"
    )
deviation = math.sqrt(0.25 / len(test))
print(f"a coin guesses the scanner with accuracy 0.500 +- {deviation:.3f}")

# %% [markdown]
# | column | what it is |
# |---|---|
# | digit | accuracy of the network at its task |
# | scanner | accuracy of the better of two classifiers at guessing the scanner from the representation |
# | penalty | the estimate of the penalty's own critic in the last training steps, nats |
# | audit, lower, p-value | the estimate of fresh critics, nats; its lower limit; of a test of independence |
#
# - **The penalty's own estimate is no evidence.** Without noise it is near 0, and the audit finds nearly all of log 2.
#   The encoder has not removed the scanner. It has hidden it from one critic, at a scale that this critic overlooks.
# - **Noise makes hiding impossible.** It covers a small trace of the scanner. Alone it removes a part of the scanner,
#   because the encoder has no reason to keep it.
# - **Noise and penalty** bring the guesses near those of a coin. The accuracy at the digit hardly changes.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
positions = np.arange(len(runs))
accuracies, audits, estimates = zip(*runs.values(), strict=True)
found = np.array([audit.result.mi for audit in audits])
lower = np.array([audit.result.lower for audit in audits])
guesses = [audit.probe.accuracy for audit in audits]

left.vlines(positions, lower, found, color="#0072B2", linewidth=4, alpha=0.4)
left.plot(positions, found, "o", color="#0072B2", label="audit, to its lower limit")
left.plot(positions, estimates, "x", color="#D55E00", label="penalty's own estimate")
left.axhline(math.log(2), color="black", linewidth=0.8, linestyle="--", label="log 2")
left.set_ylabel("I(representation; scanner), nats")
right.plot(positions, accuracies, "D", color="#009E73", label="digit, by the network")
right.plot(positions, guesses, "s", color="#CC79A7", label="scanner, by a classifier")
right.axhline(0.5, color="black", linewidth=0.8, linestyle=":", label="a coin")
right.set_ylabel("accuracy on test images")
for panel in (left, right):
    panel.set_xticks(positions, [name.replace(" and ", " and\n") for name in runs])
    panel.set_xlim(-0.5, len(runs) - 0.5)
left.legend(fontsize=8, loc="center right")
right.legend(fontsize=8, loc="lower left")
figure.tight_layout()

# %% [markdown]
# ## In your own module
#
# - Name your own variables: a layer by its path, an entry of the batch as `batch.2` or `batch.sex`. Numbers, such as an
#   age, need no `num_classes`; standardize them.
# - Add `GaussianNoise` to the end of the encoder. Whoever gets the representation must get it with the noise.
# - `weight=` trades the task for privacy. Choose it on validation data: the audit also runs in `trainer.validate`.
# - `LeakageAudit` with `budget="standard"`, the default, takes longer and sees more. Report it.
# - `MIMinimizer` is the penalty for a loop without Lightning.
#
# The recipe is this training with more epochs and the standard audit:
#
# ```console
# lightning-mi fit --config minimize/digits_fairness
# lightning-mi test --config minimize/digits_fairness --ckpt_path last
# ```
#
# ## What not to believe
#
# - **the estimate of any critic that was minimized against.** Audit with models that the encoder has never seen.
# - **zero as proof.** An estimate of 0, and classifiers at chance, say that these models found nothing in so many
#   samples. A small MI is hard to see: a classifier may still guess better than a coin where the estimate is 0.
# - **a p-value alone.** Many samples make a small p-value of a trace. Look at the accuracy, too. It assumes independent
#   samples; here each image is there from both scanners.
# - **the audit of another population.** It is about the test data: other scanners are other data.
#
# Next: [how the penalty works, and how to measure what is left](../minimize.html), [penalties against a known
# truth](../benchmarks.html#minimizing-mutual-information), and [bottlenecks](../bottleneck.html), which limit what a
# representation knows about the input.
