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
# # Tutorial: the mutual information of two arrays
#
# This tutorial estimates the mutual information (MI) of two arrays with `lightning_mi.estimate` and reads the result.
# The code runs when the documentation is built, so every output on this page comes from this version of the package.
# You need no knowledge of neural networks. The [reference page](../estimate.html) lists all options and attributes.
#
# The arrays are drawn from [laws](../laws.html) with known MI, so that each estimate can be compared with the truth.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import tempfile
from pathlib import Path

import torch

from lightning_mi.data import laws


def draw(law, n, seed=0):
    """Draw n samples of a law as NumPy arrays."""
    generator = torch.Generator().manual_seed(seed)
    return [part.numpy() for part in law.sample(n, generator)]


folder = Path(tempfile.mkdtemp())  # stands for the folder of your data

# %% [markdown]
# ## From two files to a result
#
# First write two files: `x.npy` and `y.npy` with 500 rows and two columns each. Row i of both files is one sample.

# %%
import numpy as np

law = laws.GaussianPairs.from_mi(mi=0.8, dim=2)
for name, values in zip(("x", "y"), draw(law, 500), strict=True):
    np.save(folder / f"{name}.npy", values)

# %% [markdown]
# Five lines lead from the files to a printed result:

# %%
import numpy as np

from lightning_mi import estimate

x, y = np.load(folder / "x.npy"), np.load(folder / "y.npy")
result = estimate(x, y)
print(result)

# %% [markdown]
# - The **first line** is the estimate with its limits, in nats. `units="bits"` changes the unit.
# - The **second line** is the number of samples, what each array was read as (numbers or labels), and the p-value of a
#   permutation test of independence. A small p-value is evidence that x and y depend on each other.
# - The **third line** names the findings. Warnings are reasons to be careful; notes describe data that were dealt with.
#
# The same numbers are attributes. `lower` is the one to report if you need a safe statement. It is the value of a lower
# bound of the MI minus its sampling error, so that it holds for any critic. `upper` assumes more: that the critics can
# learn the dependence, and that their error falls with the square root of the number of samples.

# %%
print(f"truth    {law.true_mi:.3f}")
print(f"mi       {result.mi:.3f}")
print(f"lower    {result.lower:.3f}")
print(f"upper    {result.upper:.3f}")
print(f"p_value  {result.p_value:.3f}")
print(f"findings {[finding.code for finding in result.findings]}")

# %% [markdown]
# The smallest p-value of 999 permutations is 0.001; `permutations=` sets their number.
#
# ## The figure
#
# The figure has three parts. *Left:* the learning curve. If it still rises steeply, more samples would raise the
# estimate. *Middle:* the scores of joint pairs (positives) and of marginal pairs (negatives). Without dependence both
# histograms agree. *Right:* the pointwise MI, which shows the samples that contribute to the MI.

# %%
result.plot()

# %% [markdown]
# ## A dependence without correlation
#
# Here the samples lie in four clusters around an empty center. Correlation measures linear dependence, and there is
# nearly none. MI measures any dependence. `budget="quick"` trains one critic for each fold and does not extrapolate, so
# that there is no `upper`, and the estimate of few samples is mostly too low. The following examples use it.

# %%
around = laws.GaussianMixture(
    weights=[0.25] * 4,
    means=[[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.0, -1.5]],
    covariances=[[[0.1, 0.0], [0.0, 0.1]]] * 4,
)
x, y = draw(around, 500)
clusters = estimate(x, y, budget="quick")
print(f"correlation {np.corrcoef(x.T, y.T)[0, 1]:.3f}, truth {around.true_mi:.3f} nats")
print(clusters)

# %% [markdown]
# ## Labels
#
# x or y may be labels, such as a class or a condition of an experiment. Numbers with few distinct values are read as
# labels; `discrete={"x": True}` declares them. The second line shows how each array was read.

# %%
classes = laws.DiscreteContinuous(num_values=3)
x, y = draw(classes, 500)
labels = estimate(x, y, budget="quick")
print(f"x: {x[:8]}, truth {classes.true_mi:.3f} nats")
print(labels)

# %% [markdown]
# ## Time series
#
# Consecutive samples of a time series are alike. If neighbors in time are in different folds, a critic has almost seen
# the samples that it scores, and the estimate is too high. The two series here are independent: the true MI is 0. The
# finding `autocorrelated` warns of it.

# %%
series = laws.VectorAutoregression(coefficients=[[0.97, 0.0], [0.0, 0.97]])
x, y = draw(series, 800)
alone = estimate(x, y, budget="quick")
print(f"truth {series.true_mi:.3f} nats")
print(alone)

# %% [markdown]
# `blocks=` keeps blocks of consecutive samples in one fold. Choose a length over which the correlation vanishes. For
# several recordings or subjects, pass `groups=` instead: all samples of a group stay in one fold.

# %%
blocked = estimate(x, y, budget="quick", blocks=100)
print(blocked)

# %% [markdown]
# Compare the lower limits: without blocks it is above 0, the truth. The p-value needs more care. The permutation test
# assumes independent samples, also with `blocks=`, and so does the standard error. With a strong autocorrelation, a
# small p-value is no evidence of a dependence between the series.
#
# ## Conditional mutual information
#
# Two variables may depend on each other only because both depend on a third. `conditional_on=z` estimates I(x; y | z).
# Here x and y are a common cause z plus noise.

# %%
confounded = laws.ConditionalGaussian([[2, 1, 1], [1, 2, 1], [1, 1, 1]])
x, y, z = draw(confounded, 500)
without = estimate(x, y, budget="quick")
given = estimate(x, y, conditional_on=z, budget="quick")
print(f"I(x; y): truth {confounded.unconditional_mi:.3f} nats")
print(without)
print(f"\nI(x; y | z): truth {confounded.true_conditional_mi:.3f} nats")
print(given)

# %% [markdown]
# Given numbers there is no p-value, and `lower` above 0 is the evidence for a dependence that z does not explain. The
# finding says that the quick budget makes this limit too high by the error of the critics; report one of
# `budget="standard"`.
#
# ## Heavy tails
#
# These samples are from a Cauchy distribution: a few are very far from all others. The coordinates are independent
# except that both are large at the same time. Their correlation is decided by few samples and means nothing. The
# estimate uses ranks of each column. A finding has a code, a text and a remedy:

# %%
cauchy = laws.StudentT(laws.GaussianPairs(dim=1, rho=0.0), df=1)
x, y = draw(cauchy, 500)
heavy = estimate(x, y, budget="quick")
print(f"correlation {np.corrcoef(x.T, y.T)[0, 1]:.3f}, truth {cauchy.true_mi:.3f} nats")
print(heavy)
for finding in heavy.findings:
    print(f"- {finding.code}: {finding.text} {finding.remedy}")

# %% [markdown]
# ## All pairs of columns
#
# `pairwise` estimates the MI of each pair of columns of a data frame, or of a mapping of arrays, as here. The p-values
# are adjusted for the number of pairs. A star marks adjusted p-values below 0.05.

# %%
from lightning_mi import pairwise

rng = np.random.default_rng(0)
dose = rng.uniform(-2, 2, size=500)
table = {
    "dose": dose,
    "response": dose**2 + rng.normal(size=500),  # no linear dependence
    "noise": rng.normal(size=500),
}
matrix = pairwise(table, folds=2)
print(matrix)
matrix.plot()

# %% [markdown]
# ## The command line
#
# The command line reads `.npy` and `.npz` files and tables (CSV, Parquet), with the same options:
#
# ```console
# lightning-mi estimate x.npy y.npy
# lightning-mi estimate data.csv --x=dose --y=response --budget=quick --folds=2
# lightning-mi pairwise data.csv
# ```
#
# The next cell writes such a CSV file and calls the second command from Python, so that its output is on this page. It
# prints the result of the same pair above:

# %%
from lightning_mi.cli.main import main

columns = np.column_stack(list(table.values()))
header = ",".join(table)
np.savetxt(folder / "data.csv", columns, "%.17g", ",", header=header, comments="")
options = ["--x=dose", "--y=response", "--budget=quick", "--folds=2"]
main(["estimate", f"{folder}/data.csv", *options])
print("\nfrom pairwise:")
print(matrix.results["dose", "response"])

# %% [markdown]
# ## What not to believe
#
# A large MI is hard to estimate. From n samples, no distribution-free method certifies an MI much above log n
# ([McAllester and Stratos 2020](../references.html#mcallester-and-stratos-2020)). Here the true MI is above log n of a
# fold:

# %%
strong = laws.GaussianPairs.from_mi(mi=6.0, dim=1)
x, y = draw(strong, 500)
high = estimate(x, y, budget="quick")
print(f"truth {strong.true_mi:.3f}, log n of a fold {np.log(500 / 4):.3f} nats")
print(high)

# %% [markdown]
# So do not believe:
#
# - **an estimate near log n.** The finding is `near_ceiling`. Report `lower`, and say that the MI is at least that.
# - **an estimate near 0 as proof of independence.** It says that these critics found no dependence in these samples.
# - **`upper` as a guarantee.** It rests on assumptions; `lower` does not, as long as the samples are independent.
# - **`lower` or a p-value of a time series** whose correlation outlasts its blocks.
# - **the best of many budgets and seeds that you tried.** Choose them before you look at the result.
# - **MI as a cause.** MI is symmetric, and conditioning removes only the causes that you measured.
#
# Next: [all options and findings](../estimate.html), [how the estimate compares with other
# methods](../benchmarks.html#two-arrays), and [the theory of the bounds](../theory.html).
