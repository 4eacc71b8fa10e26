"""Public errors and warnings have one root each, and are defined in one file."""

import ast
import builtins

from lightning_mi import exceptions
from tests.helpers.paths import ROOT

PACKAGE = ROOT / "lightning_mi"
# Of bench, where they end a cell of a grid, and of the command line, where it becomes a line: none reaches the user.
INTERNAL = {"Interrupted", "PeerFailedError", "ConfigurationError"}


def test_all_derive_from_a_root_and_a_builtin():
    for name in set(exceptions.__all__) - {"MIError", "MIWarning"}:
        cls = getattr(exceptions, name)
        root = exceptions.MIWarning if name.endswith("Warning") else exceptions.MIError
        assert issubclass(cls, root), name
        specific = [base for base in cls.__mro__ if base.__module__ == "builtins"]
        assert specific[0] not in (Exception, Warning), name


def test_no_other_module_defines_an_exception():
    known = {name for name in vars(builtins) if name.endswith(("Error", "Warning", "Exception", "Exit", "Interrupt"))}
    known |= set(exceptions.__all__)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not (path.name == "exceptions.py" or _is_internal(node.name)):
                assert not known & {ast.unparse(base).rpartition(".")[2] for base in node.bases}, node.name


def _is_internal(name):
    return name.startswith("_") or name in INTERNAL


def test_public_list_is_complete():
    tree = ast.parse((PACKAGE / "exceptions.py").read_text())
    assert sorted(exceptions.__all__) == sorted(node.name for node in tree.body if isinstance(node, ast.ClassDef))
