"""Memory and bytes moved of all-gather and ring: the formula, the measurement and the tables of the page agree."""

import re
from pathlib import Path

import pytest

from benchmarks import candidate_memory as script

# Python 3.12 and later warn of every fork of a process with threads; gloo on one thread forks well.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

PAGE = (Path(__file__).parents[2] / "docs" / "million_pairs.md").read_text(encoding="utf-8")
MEASURED = re.findall(
    r"^\| ([\w ]+) \| (\d+) \| (\d) \| ([\w -]+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \| [\d.]+ \|$", PAGE, re.MULTILINE
)
EXTRAPOLATED = re.findall(
    r"^\| ([\w ]+) \| (\d+) \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \|$", PAGE, re.MULTILINE
)


@pytest.mark.parametrize("form", script.FORMS)
def test_formula_is_within_fifteen_percent(form):
    pairs, ranks, dim, tile = 2048, 2, 128, 2**17
    peak, moved = script.measure("cosine", form, pairs, ranks, dim, tile)
    assert peak == pytest.approx(script.memory_bytes("cosine", form, pairs, ranks, dim, tile), rel=0.15)
    assert moved == pytest.approx(script.moved_bytes(form, pairs, ranks, dim), rel=0.15)


def test_measured_rows_of_the_page_fit_the_formula():
    assert {(critic, int(ranks)) for critic, _, ranks, *_ in MEASURED} == {
        (critic, ranks) for critic in script.CRITICS for ranks in (1, 2, 3, 4)
    }
    memory = {}
    for critic, pairs, ranks, form, peak, moved in MEASURED:
        n, w = int(pairs), int(ranks)
        assert float(peak) * 1e6 == pytest.approx(script.memory_bytes(critic, form, n, w, 128, 2**20), rel=0.15)
        assert float(moved) * 1e6 == pytest.approx(script.moved_bytes(form, n, w, 128), rel=0.15)
        memory[critic, w, form] = float(peak)
    for critic in script.CRITICS:
        assert memory[critic, 4, "ring"] <= memory[critic, 4, "all-gather"] / 2, critic


def test_extrapolated_rows_of_the_page_are_the_formula():
    assert EXTRAPOLATED
    for critic, ranks, *numbers in EXTRAPOLATED:
        w = int(ranks)
        expected = [script.memory_bytes(critic, form, 2**20, w, 512, 2**26, 1024) for form in script.FORMS]
        expected += [script.moved_bytes(form, 2**20, w, 512, reduce_scatter=True) for form in script.FORMS]
        assert [float(number) * 1e9 for number in numbers] == pytest.approx(expected, rel=0.03)
