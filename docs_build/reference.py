"""Pages of the reference: every public name, by package."""

import importlib.util
import inspect
from types import ModuleType

import lightning_mi

# Title and first paragraph of the page of each package.
_PAGES = {
    "lightning_mi": ("Module, loss, estimate", "The ways in, and what they return."),
    "lightning_mi.bounds": (
        "Bounds",
        "A bound turns scores into a value, the estimate, and an objective.\n\n<!-- table of bounds -->",
    ),
    "lightning_mi.critics": ("Critics", "A critic scores pairs: T(x, y)."),
    "lightning_mi.pairs": (
        "Pairings",
        "A pairing turns a batch into joint pairs (positives) and marginal pairs (negatives).",
    ),
    "lightning_mi.regularizers": ("Regularizers", "A regularizer holds the bound's log-normalizer at its target."),
    "lightning_mi.losses": ("Contrastive losses", "Compositions of critic, bound and pairing by their usual names."),
    "lightning_mi.encoders": ("Encoders", "Small encoders, and a ResNet-18. Any `nn.Module` is an encoder."),
    "lightning_mi.metrics": ("Metrics", "Metrics of torchmetrics, pooled over batches and ranks."),
    "lightning_mi.metrics.functional": ("Metrics as functions", "The metrics of one set of scores or features."),
    "lightning_mi.callbacks": (
        "Callbacks",
        "Callbacks observe a training, and change it only by documented options.",
    ),
    "lightning_mi.data": ("Data modules", "Images, and streams with known mutual information."),
    "lightning_mi.data.laws": ("Laws", "Laws of two variables with known mutual information."),
    "lightning_mi.exceptions": ("Errors and warnings", "Errors are an `MIError`, warnings an `MIWarning`."),
}


def reference_pages() -> dict[str, str]:
    """Markdown of each page by its path: an entry of mkdocstrings for each public name."""
    return {page_path(package): _page(package) for package in _PAGES}


def page_path(package: str) -> str:
    """Path of the page of a package.

    Example:
        >>> page_path("lightning_mi"), page_path("lightning_mi.data.laws")
        ('reference/index.md', 'reference/data.laws.md')
    """
    return f"reference/{package.partition('.')[2] or 'index'}.md"


def public_names(package: ModuleType) -> list[str]:
    """Public names of a package that are defined in it, and not packages; abstract classes last."""
    names = [name for name in package.__all__ if not inspect.ismodule(getattr(package, name))]
    if package is not lightning_mi.exceptions:
        names = [name for name in names if name not in lightning_mi.exceptions.__all__]
    return sorted(names, key=lambda name: (name.startswith("Abstract"), name.lower()))


def _entry(package: str, name: str) -> str:
    """The path of a public name; where it is also that of a module, the path of the definition in the module."""
    path = f"{package}.{name}"
    is_package = hasattr(importlib.import_module(package), "__path__")
    return f"{path}.{name}" if is_package and importlib.util.find_spec(path) else path


def public_paths() -> dict[str, str]:
    """The path of each public name, for links from docstrings that mention it without a path."""
    packages = [importlib.import_module(package) for package in reversed(_PAGES)]
    return {name: f"{package.__name__}.{name}" for package in packages for name in public_names(package)}


def _page(package: str) -> str:
    title, paragraph = _PAGES[package]
    names = public_names(importlib.import_module(package))
    entries = "\n\n".join(f"::: {_entry(package, name)}" for name in names)
    return f"# {title}\n\n`{package}`\n\n{paragraph}\n\n{entries}\n"
