"""The 40 tasks of the benchmark "Beyond Normal", by the identifiers of its own package."""

from lightning_mi.data.laws.base import AbstractLaw
from lightning_mi.data.laws.gaussian import DenseGaussian, GaussianPairs, SparseGaussian
from lightning_mi.data.laws.mapped import Mapped
from lightning_mi.data.laws.maps import AbstractMap, Bimodal, Elementwise, Wiggly
from lightning_mi.data.laws.student import StudentT
from lightning_mi.data.laws.uniform import AdditiveUniform
from lightning_mi.data.laws.vector_maps import Spiral, SwissRoll

_RHO = 0.75


def benchmark_tasks() -> dict[str, AbstractLaw]:
    """The 40 laws of the benchmark of Czyz et al., in its order.

    The keys are the identifiers of tasks in the package of its authors, such as ``1v1-normal-0.75`` or
    ``spiral-multinormal-sparse-5-5-2-2.0``.

    Returns:
        The laws by identifier.

    Source: Czyz et al. 2023.

    Example:
        >>> tasks = benchmark_tasks()
        >>> len(tasks), tasks["student-identity-5-5-2"].true_mi
        (40, 0.4482)
    """
    tasks = _one_dimensional()
    uniform = tasks[f"normal_cdf-1v1-normal-{_RHO}"]
    tasks[f"swissroll_x-normal_cdf-1v1-normal-{_RHO}"] = Mapped(uniform, x_map=SwissRoll())
    for dim in (2, 3, 5, 25, 50):
        tasks[f"multinormal-dense-{dim}-{dim}-0.5"] = DenseGaussian(dim, dim, correlation=0.5)
    for dim in (2, 3, 5, 25):
        tasks[_sparse_name(dim)] = SparseGaussian(dim, dim, num_pairs=2, strength=2.0)
    for dim, df in ((2, 1), (2, 2), (3, 2), (3, 3), (5, 2), (5, 3)):
        tasks[_student_name(dim, df)] = _student(dim, df)
    for name in ("normal_cdf", "half_cube"):
        for dim in (3, 5, 25):
            tasks[f"{name}-{_sparse_name(dim)}"] = _on_both(tasks[_sparse_name(dim)], Elementwise(name))
    for prefix in ("", "normal_cdf-"):
        for dim in (3, 5, 25):
            base = f"{prefix}{_sparse_name(dim)}"
            speed = 1 / dim
            tasks[f"spiral-{base}"] = Mapped(tasks[base], Spiral(0, 1, speed), Spiral(1, 2, speed))
    for dim, df in ((2, 1), (3, 2), (5, 2)):
        tasks[f"asinh-{_student_name(dim, df)}"] = _on_both(_student(dim, df), Elementwise("asinh"))
    return tasks


def _one_dimensional() -> dict[str, AbstractLaw]:
    normal, student = GaussianPairs(dim=1, rho=_RHO), _student(1, 1)
    name, student_name = f"1v1-normal-{_RHO}", _student_name(1, 1)
    return {
        name: normal,
        f"normal_cdf-{name}": _on_both(normal, Elementwise("normal_cdf")),
        "1v1-additive-0.1": AdditiveUniform(0.1),
        "1v1-additive-0.75": AdditiveUniform(0.75),
        f"1v1-bimodal-{_RHO}": Mapped(normal, Bimodal(0.0, 5.0, weight=0.3), Bimodal(-1.0, 3.0, weight=0.5)),
        f"wiggly-{name}": Mapped(normal, Wiggly("x"), Wiggly("y")),
        f"half_cube-{name}": _on_both(normal, Elementwise("half_cube")),
        student_name: student,
        f"asinh-{student_name}": _on_both(student, Elementwise("asinh")),
    }


def _student(dim: int, df: int) -> StudentT:
    return StudentT(GaussianPairs(dim=dim, rho=0.0), df=df)


def _student_name(dim: int, df: int) -> str:
    return f"student-identity-{dim}-{dim}-{df}"


def _sparse_name(dim: int) -> str:
    return f"multinormal-sparse-{dim}-{dim}-2-2.0"


def _on_both(law: AbstractLaw, both: AbstractMap) -> Mapped:
    return Mapped(law, x_map=both, y_map=both)
