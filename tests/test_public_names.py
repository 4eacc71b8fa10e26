"""The public names of `lightning_mi`, imported lazily."""

import importlib
import subprocess
import sys

import pytest

import lightning_mi


def run(program):
    """The output of a program in a new interpreter, where torch is not yet imported."""
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_a_public_name_is_its_module_or_definition():
    for name in lightning_mi.__all__:
        value = getattr(lightning_mi, name)
        if name in lightning_mi._MODULES:
            assert value is importlib.import_module(f"lightning_mi.{name}")
        else:
            assert value is vars(importlib.import_module(value.__module__))[name]
            assert value.__module__.startswith("lightning_mi.")


def test_a_star_import_gives_exactly_the_public_names():
    names: dict[str, object] = {}
    exec("from lightning_mi import *", names)
    assert set(names) - {"__builtins__"} == set(lightning_mi.__all__)


def test_torch_is_imported_on_first_use_of_a_name():
    loaded = "print('torch' in sys.modules)"
    program = f"import sys, lightning_mi; {loaded}; lightning_mi.NAME; {loaded}"
    assert run(program.replace("NAME", "Scores")).split() == ["False", "True"]
    assert run(program.replace("NAME", "__version__")).split() == ["False", "False"]


def test_listing_the_names_imports_nothing():
    program = "import sys, lightning_mi; print('MIEstimationModule' in dir(lightning_mi), 'torch' in sys.modules)"
    assert run(program) == "True False"


def test_dir_lists_every_public_name_and_the_version():
    assert set(lightning_mi.__all__) | {"__version__"} <= set(dir(lightning_mi))


def test_an_unknown_name_is_an_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'lightning_mi' has no attribute 'Estimator'"):
        lightning_mi.Estimator  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Estimator'"):
        from lightning_mi import Estimator  # noqa: F401
