"""Imports between the packages of lightning_mi run one way."""

import ast
from graphlib import TopologicalSorter

from tests.helpers.paths import ROOT

PACKAGE = ROOT / "lightning_mi"
LAYERS = [
    {"_compat", "exceptions"},
    {"utilities"},
    {"scores", "data", "encoders"},
    {"critics", "bounds"},
    {"pairs", "regularizers"},
    {"loss", "losses", "metrics"},
    {"training", "checkpoints"},
    {"module", "minimizer"},
    {"bottleneck", "ensemble"},
    {"estimation"},
    {"callbacks"},
    {"bench"},
    {"cli"},
]
ISOLATED = {"data": LAYERS[0] | LAYERS[1], "encoders": LAYERS[0] | LAYERS[1]}  # all that these may import


def imports() -> dict[str, set[str]]:
    """Modules of the package by the modules that they import, at any depth of their code."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        targets = [
            node.module.removeprefix("lightning_mi.")
            for node in nodes
            if (node.module or "").startswith("lightning_mi.")
        ]
        found[name] = {
            f"{target}.__init__" if (PACKAGE / target.replace(".", "/")).is_dir() else target for target in targets
        }
    return found


def test_packages_import_only_lower_layers():
    rank = {room: index for index, layer in enumerate(LAYERS) for room in layer}
    for module, targets in imports().items():
        room = module.split(".")[0]
        if room in ("__init__", "__main__"):
            continue
        for target in targets:
            other = target.split(".")[0]
            allowed = rank[other] <= rank[room] and other in ISOLATED.get(room, set(rank)) | {room}
            assert allowed, f"{module} imports {target}"


def test_modules_do_not_import_each_other():
    graph = imports()
    del graph["__init__"]  # lazy: for type checkers only
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_module_imports_its_own_package_init():
    for module, targets in imports().items():
        package = module.rpartition(".")[0]
        assert not package or module.endswith("__init__") or f"{package}.__init__" not in targets, module


def test_package_has_at_most_twenty_three_entries():
    entries = [p.name for p in PACKAGE.iterdir() if not p.name.startswith("__") and p.suffix != ".typed"]
    assert len(entries) <= 23, sorted(entries)


def test_no_file_exceeds_300_lines():
    long = {
        str(path.relative_to(ROOT)): n
        for folder in ("lightning_mi", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if (n := len(path.read_text().splitlines())) > 300
    }
    assert not long


def test_tests_and_benchmarks_do_not_import_each_other():
    for folder, other in (("tests", "benchmarks"), ("benchmarks", "tests")):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert other not in [name.split(".")[0] for name in names], path
