"""One entry for all checks: `nox -l` lists them, `nox` runs lint, types and tests.

Each session has its own environment, which `nox -r` reuses. The commands are those of `.ci/run`.
"""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # small tensors: one thread each is faster than many


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of package, tests and benchmarks."""
    session.install("--editable", ".[test]")
    session.run("mypy")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Tests and doctests with the newest dependencies; arguments go to pytest."""
    session.install("--editable", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "2"]), env=_ONE_THREAD)


@nox.session(python="3.11", venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Tests and doctests with the lowest dependencies that pyproject.toml declares."""
    session.install("--resolution", "lowest-direct", "--editable", ".[test]")
    session.run("pytest", *(session.posargs or ["-n", "2"]), env=_ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in site/; tutorials are executed."""
    session.install("--editable", ".[docs]")
    session.run("mkdocs", "build", "--strict", env=_ONE_THREAD)


@nox.session
def package(session: nox.Session) -> None:
    """Source archive and wheel in dist/, checked, and the wheel's tests from outside of the repository."""
    session.install("build", "twine", "check-wheel-contents")
    session.run("python", "-m", "build")
    built = sorted(map(str, Path("dist").glob("lightning_mi-*")))
    session.run("twine", "check", "--strict", *built)
    wheel = max(Path("dist").glob("*.whl"), key=lambda path: path.stat().st_mtime).resolve()
    session.run("check-wheel-contents", str(wheel))
    session.install(f"lightning_mi[test] @ {wheel.as_uri()}")
    # The tests of the source archive, without the package beside them: they import the installed one.
    outside = Path(session.create_tmp())
    shutil.unpack_archive(wheel.with_name(f"{'-'.join(wheel.name.split('-')[:2])}.tar.gz"), outside)
    root = next(outside.glob("lightning_mi-*"))
    shutil.rmtree(root / "lightning_mi")
    session.chdir(root)
    skipped = ("pages", "test_packaging.py", "test_imports.py", "compat")  # of the repository's files
    session.run("pytest", "-n", "2", "tests", *(f"--ignore=tests/{name}" for name in skipped), env=_ONE_THREAD)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Speed tables of docs/performance.md; arguments name some of them."""
    session.install("--editable", ".[test]")
    session.run("python", "benchmarks/run.py", *session.posargs, env=_ONE_THREAD)
