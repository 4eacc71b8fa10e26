"""Only `_compat` reads private names of Lightning and torch."""

import ast

import lightning.pytorch as L
import torch
from torch import nn
from torchmetrics import Metric

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "lightning_mi"
# Documented although they begin with an underscore.
DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # of NamedTuple, and os._exit
# Names that a LightningModule, a Trainer, a module, a metric or an optimizer has, on top of those that we define.
FOREIGN = {
    name
    for known in (L.LightningModule(), L.Trainer(barebones=True), nn.Module(), Metric, torch.optim.Optimizer)
    for name in dir(known)
}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def defined_names(trees):
    """Private names that classes of the package define."""
    names = set()
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(name)
                case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                    names.add(name)
    return names


def private_names(tree):
    """Private attributes of anything but `self`, `cls` and `super()`, private imports, and `getattr` of such names."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                pass
            case ast.Attribute(attr=name):
                yield name
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(str(name)), *_]):
                yield name
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith(("lightning_mi", "__")):
                yield from [*module.split("."), *(alias.name for alias in names)]


def test_only_compat_touches_private_names():
    trees = {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    allowed = (defined_names(trees.values()) - FOREIGN) | DOCUMENTED
    for path, tree in trees.items():
        if path.startswith("_compat"):
            continue
        # A file may read the names of its classes on other instances of them, `made._results` for example.
        found = set(filter(is_private, private_names(tree))) - allowed - defined_names([tree])
        assert not found, f"{path}: move {sorted(found)} to _compat"
