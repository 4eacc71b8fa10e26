"""Eleven scientific mistakes, applied one at a time to a copy of the package: does a test fail?

python benchmarks/mutants.py
python benchmarks/mutants.py --only "log N dropped"
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_mi.bench.reports.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
SUITE = [
    "tests/test_oracle.py",
    "tests/bounds",
    "tests/scores",
    "tests/pairs",
    "tests/critics",
    "tests/training/test_module.py",
    "tests/training/test_module_optimizers.py",
    "tests/checkpoints/test_module_checkpoints.py",
]


class Mutant(NamedTuple):
    """A mistake: ``wrong`` replaces ``right`` in this file of the package."""

    name: str
    file: str
    right: str
    wrong: str
    tests: Sequence[str] = SUITE


MUTANTS = [
    Mutant(
        "log N dropped",
        "utilities/numerics.py",
        "return total.log() + (exponentials.anchor.reshape(total.shape) - log_count)",
        "return total.log() + exponentials.anchor.reshape(total.shape)",
    ),
    Mutant(
        "sum for mean",
        "scores/layout.py",
        "return values.sum() / max(counts.num_joint, 1)",
        "return values.sum()",
    ),
    Mutant(
        "diagonal kept in the marginals",
        "scores/dense.py",
        "return x.scatter(1, self._non_marginal, fill)",
        "return x",
    ),
    Mutant(
        "diagonal kept in the marginals, in tiles",
        "scores/tile_reductions.py",
        "        scores.scatter_(1, non_marginal, -math.inf)\n",
        "",
    ),
    Mutant(
        "one side detached",
        "critics/separable.py",
        "return ProductTiles(*self._embed(x, y))",
        "g, h = self._embed(x, y)\n        return ProductTiles(g, h.detach())",
    ),
    Mutant(
        "gather without gradient",
        "scores/batch_shard.py",
        "_AllGather.apply(self.counts, *rows)",
        "_AllGather.apply(self.counts, *(tensor.detach() for tensor in rows))",
        ["tests/utilities/test_distributed.py", "tests/scores/test_batch_shard.py"],
    ),
    Mutant(
        "average not saved",
        "bounds/donsker_varadhan.py",
        'self.register_buffer("log_average", torch.tensor(0.0))',
        'self.register_buffer("log_average", torch.tensor(0.0), persistent=False)',
    ),
    Mutant("log base", "utilities/numerics.py", "log_count = math.log(count)", "log_count = math.log2(count)"),
    Mutant(
        "off-by-one N",
        "scores/joint_columns.py",
        "return num_columns - (self.non_marginal.shape[1] - 1)",
        "return num_columns - self.non_marginal.shape[1]",
    ),
    Mutant(
        "regularizer in the value",
        "loss.py",
        "        return terms, penalty\n",
        "        if penalty is not None:\n            terms = terms._replace(value=terms.value - penalty)\n"
        "        return terms, penalty\n",
    ),
    Mutant("marginals swapped", "pairs/base.py", "tiles = critic.tiles(x, y)", "tiles = critic.tiles(y, x)"),
]


def killed_by(mutant: Mutant, folder: Path) -> str:
    """Name of the first failing test; an empty string if all pass."""
    for name in ("lightning_mi", "tests", "benchmarks", "recipes", "docs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    path = folder / "lightning_mi" / mutant.file
    source = path.read_text()
    if source.count(mutant.right) != 1:
        raise ValueError(f"{mutant.name}: {mutant.right!r} occurs {source.count(mutant.right)} times in {mutant.file}")
    path.write_text(source.replace(mutant.right, mutant.wrong))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-cov", "-p", "no:cacheprovider", *mutant.tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutant.name}: the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[mutant.name for mutant in MUTANTS])
    options = parser.parse_args(arguments)
    rows = []
    for mutant in MUTANTS:
        if options.only is None or mutant.name in options.only:
            with tempfile.TemporaryDirectory() as folder:
                test = killed_by(mutant, Path(folder))
            rows.append([mutant.name, mutant.file, f"`{test}`" if test else "no test"])
            print("#", *rows[-1], flush=True)
    print(markdown_table(["mistake", "in", "first failing test"], rows))
    return sum(row[-1] == "no test" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
