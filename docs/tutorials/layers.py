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
# # Tutorial: what the layers of a classifier know
#
# This tutorial adds the callback `InformationPlane` to an ordinary classifier. After each epoch the callback reads how
# much each layer knows about the label and about the input. You need no knowledge of mutual information. The [reference
# page](../watch.html) explains all options and numbers. The code runs when the documentation is built, so every output
# on this page comes from this version of the package.
#
# The mutual information (MI) of X and Y, I(X; Y), is how much X tells about Y. It is 0 if they are independent. If Y is
# a label, it is at most the entropy H(Y), and it equals H(Y) if X determines Y. The unit here is nats: natural
# logarithms. For ten equally frequent classes, H(Y) is log 10:

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import logging
import math
import tempfile
import warnings

import lightning.pytorch as L

# Less output on this page:
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", module="lightning.pytorch")

folder = tempfile.mkdtemp()  # stands for your folder of logs
print(f"log 10 = {math.log(10):.2f} nats")

# %% [markdown]
# ## A plain classifier
#
# The data are scikit-learn's digits, images of 8 x 8 pixels. The network has three hidden layers and ten logits.
# Nothing in this cell comes from this package.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.wide = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.middle = nn.Sequential(nn.Linear(128, 64), nn.ReLU())
        self.narrow = nn.Sequential(nn.Linear(64, 16), nn.ReLU())
        self.logits = nn.Linear(16, 10)
        self.accuracies = []

    def forward(self, x):
        return self.logits(self.narrow(self.middle(self.wide(x))))

    def training_step(self, batch, batch_idx):
        x, label = batch
        return F.cross_entropy(self(x), label)

    def validation_step(self, batch, batch_idx):
        x, label = batch
        is_right = self(x).argmax(dim=1) == label
        self.log("val/accuracy", is_right.float().mean())

    def on_validation_epoch_end(self):
        accuracy = self.trainer.callback_metrics["val/accuracy"]
        self.accuracies.append(float(accuracy))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


L.seed_everything(0, verbose=False)
pixels, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels).float() / 16, torch.tensor(labels))
train, val = torch.utils.data.random_split(data, [0.75, 0.25])
print(f"{len(train)} training images, {len(val)} validation images")

# %% [markdown]
# ## Add the callback
#
# `InformationPlane` takes the names of layers, as in `named_modules()`. At each validation it fits a small classifier,
# a *probe*, to the outputs of each layer on training images, and reads it on the validation images. The module does not
# change, and the weights are the same with and without the callback. `noise` adds a reading of the input, which is
# [explained below](#the-input).

# %%
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_mi.callbacks import InformationPlane

layers = ["wide", "middle", "narrow", "logits"]
plane = InformationPlane(layers, noise=0.5)
logger = TensorBoardLogger(folder)
quiet = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
trainer = L.Trainer(
    max_epochs=10,
    accelerator="cpu",
    logger=logger,
    log_every_n_steps=10,
    num_sanity_val_steps=0,
    callbacks=[plane],
    **quiet,
)
model = Classifier()
trainer.fit(model, DataLoader(train, 64, shuffle=True), DataLoader(val, 64))
print(plane.table())

# %% [markdown]
# Each row has the last reading of one layer, `plane/LAYER/label` or `plane/LAYER/input`, in nats:
#
# - **MI**: the reading on the validation images. It is a lower bound of the MI, up to noise.
# - **error**: its standard error over the validation images. It does not include the variation over networks.
# - **gap**: the reading on the images that the probe was fitted to, minus MI. A large gap shows that images are
#   missing.
# - **limit**: the largest possible reading: the entropy of the labels; for the input, log n of n validation images.
#
# ## The label
#
# `plane.history` has all readings, one record for each validation. Beside them is the accuracy of the network itself on
# the same images.


# %%
def label_reading(record, layer):
    return record.readings[f"plane/{layer}/label"].value


print("epoch  accuracy", *(f"{layer:>7}" for layer in layers))
for record, accuracy in zip(plane.history, model.accuracies, strict=True):
    values = (f"{label_reading(record, layer):7.2f}" for layer in layers)
    print(f"{record.epoch + 1:5}  {accuracy:8.2f}", *values)

# %% [markdown]
# After the first epoch the network guesses most labels wrong, but its layers tell most of them: a fresh probe reads
# them from the outputs. MI is a property of the layer. It does not say whether the rest of the network can use it.
#
# Is it the training that put the label into the layers? Read an untrained network, too. `trainer.validate` needs no
# fit. Its probes have only the validation images, so it gets the training images here.

# %%
untrained = InformationPlane(layers)
validation = L.Trainer(accelerator="cpu", logger=False, callbacks=[untrained], **quiet)
validation.validate(Classifier(), DataLoader(train, 64), verbose=False)
print(untrained.table())

# %% [markdown]
# Random weights keep most of the label in the wide layer: images of different digits stay different. So compare a
# reading with that of random weights before you credit the training. Training made a difference in the last two layers.
#
# By the data processing inequality, a layer cannot know more about the label than the layer before it. The true MI
# falls or stays from layer to layer. If a reading rises, the deeper layer is only easier to read for the probe.
#
# ## The input
#
# A layer without noise is a function of the input. If it maps different images to different outputs, its MI with the
# input is infinite, or log n on n images, and tells nothing. So the callback adds Gaussian noise to the layer before it
# reads the input. `noise=0.5` is the standard deviation, in units of that of the layer's features. The reading is about
# the layer with this noise: it compares layers and epochs. The label is read without noise.
#
# The left panel shows the label over epochs. Bands are one standard error. The right panel is the *information plane*:
# each path is one layer, its points grow with the epoch, and the cross shows the standard errors of the last one.

# %%
import matplotlib.pyplot as plt
import numpy as np


def curve(name):
    """Readings and their standard errors over epochs."""
    readings = [record.readings[f"plane/{name}"] for record in plane.history]
    values = np.array([reading.value for reading in readings])
    return values, np.array([reading.standard_error for reading in readings])


colors = ("#0072B2", "#009E73", "#E69F00", "#D55E00")
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6))
epochs = np.array([record.epoch + 1 for record in plane.history])
for layer, color, marker in zip(layers, colors, "osD^", strict=True):
    style = {"color": color, "marker": marker, "label": layer}
    y, y_error = curve(f"{layer}/label")
    x, x_error = curve(f"{layer}/input")
    left.fill_between(epochs, y - y_error, y + y_error, color=color, alpha=0.2)
    left.plot(epochs, y, markersize=4, **style)
    right.plot(x, y, color=color, linewidth=1)
    right.scatter(x, y, s=4 * epochs, **style)
    right.errorbar(x[-1:], y[-1:], y_error[-1:], x_error[-1:], color=color)
last = plane.history[-1].readings
log_n, entropy = (last[f"plane/wide/{what}"].limit for what in ("input", "label"))
right.axvline(log_n, color="black", linewidth=0.8, linestyle=":", label="log n")
for panel, xlabel in ((left, "epoch"), (right, "I(layer + noise; input), nats")):
    panel.axhline(entropy, color="black", linewidth=0.8, linestyle="--", label="H(label)")
    panel.set_xlabel(xlabel)
    panel.set_ylabel("I(layer; label), nats")
    panel.legend(fontsize=8)
figure.tight_layout()

# %% [markdown]
# From layer to layer less of the image remains, and most of the label does. The nearer a reading is to log n, the limit
# of so many validation images, the further the true MI can be above it.
#
# ## In TensorBoard
#
# The callback logs every reading, and the charts and the figure of the information plane need no further code. Any
# logger of Lightning gets the numbers. The command is
#
# ```console
# tensorboard --logdir FOLDER
# ```
#
# where FOLDER is that of the logger. *Custom Scalars* has all layers on one chart, beside their limits. *Images* has
# `information_plane`, the figure above as the callback draws it. This cell reads the names from the log:

# %%
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

log = EventAccumulator(logger.log_dir)
log.Reload()
names = log.Tags()
label_names = [name for name in names["scalars"] if name.startswith("plane/wide/label")]
print("scalars of one layer:", *label_names, sep="\n  ")
print("images:", *names["images"], sep="\n  ")

# %% [markdown]
# ## Your own network
#
# - `InformationPlane(["encoder.*"])` reads the children of `encoder`. Convolutional maps are averaged over space;
#   `reduction=` changes that, and picks a tensor from a layer that returns a tuple.
# - The label is entry 1 of the batch, or its key `label`, `labels` or `y`. `label=` takes another key or a function.
# - `every_n_epochs=` makes readings rarer. Leave out `noise` if you need the label only: it is much faster.
# - `MIMonitor([("narrow", "wide")], noise=0.5)` reads any two layers, or a layer and an entry of the batch.
#
# A recipe is a training in a YAML file. This one has the callback, and the second command copies it to edit:
#
# ```console
# lightning-mi fit --config plane/digits
# lightning-mi cp plane/digits mine.yaml
# ```
#
# ## What not to believe
#
# - **a reading near its limit.** It says that the MI is large, and not how large.
# - **a reading as the accuracy of the network.** It is what a small classifier can read from the layer.
# - **the MI with the input without its noise.** Another noise gives another number, and no noise gives infinity. A fall
#   over epochs is no evidence that the layer without noise compresses the input.
# - **a difference of two or three standard errors** between two networks. Train several seeds.
#
# Next: [all options and numbers](../watch.html), [how the readings compare with converged
# probes](../benchmarks.html#reading-layers), and [removing information from a layer](../minimize.html).
