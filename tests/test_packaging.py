"""Contents of the wheel and the source archive, and their metadata."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling import build

import lightning_mi
from tests.helpers.paths import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files_of(folder, suffix):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob(f"*{suffix}")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(build.build_wheel, tmp_path_factory.mktemp("wheel"))


def built(builder, folder):
    """Run a hatchling builder, which builds the project of the current folder."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return folder / builder(str(folder))
    finally:
        os.chdir(before)


def names_in(wheel_file):
    with zipfile.ZipFile(wheel_file) as archive:
        return set(archive.namelist())


def test_wheel_contains_exactly_the_package_and_its_recipes(wheel):
    inside = {name for name in names_in(wheel) if ".dist-info/" not in name}
    recipes = {f"lightning_mi/{name}" for name in files_of("recipes", ".yaml")}
    assert inside >= recipes | files_of("lightning_mi", ".py") | {"lightning_mi/py.typed"}
    assert {name for name in inside if not name.startswith("lightning_mi/")} == set()
    assert {Path(name).suffix for name in inside} <= {".py", ".yaml", ".typed", ".csv"}  # .csv: published numbers


def test_wheel_states_command_license_and_version(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"lightning_mi-{lightning_mi.__version__}.dist-info"
        assert "lightning-mi = lightning_mi.cli.main:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert "License-Expression: Apache-2.0" in archive.read(f"{info}/METADATA").decode()
        assert archive.read(f"{info}/licenses/LICENSE").decode() == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_installed_wheel_finds_its_recipes(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = (
        "from lightning_mi.utilities.recipe_registry import find_file; print(find_file('gaussian', 'recipe').path)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "site" / "lightning_mi" / "recipes" / "gaussian.yaml"


def test_editable_install_copies_no_file(tmp_path):
    inside = names_in(built(build.build_editable, tmp_path))
    assert {name for name in inside if ".dist-info/" not in name} == {"_lightning_mi.pth"}


def test_source_archive_contains_code_tests_and_metadata(tmp_path):
    with tarfile.open(built(build.build_sdist, tmp_path)) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert inside >= {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "tests/test_packaging.py",
    }
    assert inside >= files_of("recipes", ".yaml") | files_of("lightning_mi", ".py") | files_of("tests", ".py")
    tops = {name.split("/")[0] for name in inside}
    assert tops <= {
        "lightning_mi", "recipes", "tests", "benchmarks", "pyproject.toml", "PKG-INFO", ".gitignore",
        "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md",
    }  # fmt: skip


def test_conda_recipe_has_this_version_and_these_dependencies():
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == lightning_mi.__version__
    on_conda = {"torch": "pytorch", "matplotlib": "matplotlib-base", "jsonargparse[signatures]": "jsonargparse"}
    expected = set()
    for requirement in PYPROJECT["project"]["dependencies"]:
        name, bounds = re.fullmatch(r"([\w\[\]-]+)(.*)", requirement).groups()
        expected.add(f"{on_conda.get(name, name)} {bounds}")
    of_jsonargparse = {"typeshed-client", "docstring_parser"}
    given = {line for line in recipe["requirements"]["run"] if line.split()[0] not in of_jsonargparse | {"python"}}
    assert given == expected


def test_citation_and_changelog_state_this_version():
    assert f"\nversion: {lightning_mi.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{lightning_mi.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_has_a_floor():
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    everything = sum(extras, PYPROJECT["project"]["dependencies"])
    assert [line for line in everything if not re.search(r">=\d", line)] == []


def test_every_import_is_a_declared_dependency():
    """An undeclared import fails only on machines without the package."""
    declared = {re.split(r"[\[><=]", line)[0] for line in PYPROJECT["project"]["dependencies"]}
    other_name = {"yaml": "pyyaml"}  # import name -> name of the distribution
    extras = {"ray", "sklearn", "scipy"}  # optional or slow: imported inside functions only
    exceptions = {"estimation/estimator.py": {"sklearn"}}  # its base class; only the lazy export imports it
    imported = set()
    for path in (ROOT / "lightning_mi").rglob("*.py"):
        found = set(re.findall(r"^(?:from|import) (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
        allowed = exceptions.get(path.relative_to(ROOT / "lightning_mi").as_posix(), set())
        assert found & extras <= allowed, path
        imported |= found - allowed
    imported = {other_name.get(name, name) for name in imported}
    assert imported - declared - set(sys.stdlib_module_names) - {"lightning_mi"} == set()


def test_estimate_does_not_import_scikit_learn():
    program = (
        "import sys, lightning_mi; lightning_mi.estimate, lightning_mi.pairwise; sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_importing_the_package_does_not_import_torch():
    program = "import sys, lightning_mi; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
