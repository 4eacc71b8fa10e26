"""The statements of the tutorials hold for what their code computes."""

import math
import runpy

import numpy as np
import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow


def run(name):
    """The variables of a tutorial after it ran."""
    return runpy.run_path(str(ROOT / "docs" / "tutorials" / f"{name}.py"))


def test_statements_about_layers_hold():
    names = run("layers")
    history, label_reading, layers = names["plane"].history, names["label_reading"], names["layers"]
    entropy = names["entropy"]
    # After the first epoch the network is wrong and the layers know.
    assert names["model"].accuracies[0] < 0.5
    assert all(label_reading(history[0], layer) > 0.7 * entropy for layer in layers)
    # Random weights keep the label in the wide layer only.
    untrained, trained = names["untrained"].history[0], history[-1]
    assert label_reading(untrained, "wide") > 0.85 * entropy
    for layer in ("narrow", "logits"):
        assert label_reading(trained, layer) > label_reading(untrained, layer) + 0.2
    # Less of the input from layer to layer, and still most of the label.
    inputs = [trained.readings[f"plane/{layer}/input"].value for layer in layers]
    assert inputs == sorted(inputs, reverse=True)
    assert inputs[0] > inputs[-1] + 1
    assert all(label_reading(trained, layer) > 0.8 * entropy for layer in layers)
    assert names["names"]["images"] == ["information_plane"]


def test_statements_about_same_label_pairs_hold(capsys):
    names = run("same_label")
    printed = capsys.readouterr().out
    plain, held, untrained = (names[name] for name in ("plain", "held", "untrained"))
    true_mi = names["data"].true_mi()
    assert printed.count("StabilityWarning: ") == printed.count("the two terms of DV drift by") == 1
    assert "To fix it, add `regularizers.Squared(weight=0.1)`." in printed
    # The terms drift far above the true MI; regularized, the marginal term stays near 0.
    joint, marginal, value = np.array(names["plain_steps"])[-100:].mean(axis=0)
    assert min(joint, marginal) > 2 * true_mi > 2 * value > true_mi
    assert np.abs(np.array(names["held_steps"])[200:, 1]).mean() < 0.5
    assert abs(held["test/mi_plug_in"] - held["test/mi"]) < 0.3
    assert "test/mi_plug_in" not in plain
    # Both classify nearly all test images, random features fewer.
    for probe in ("probe/nearest_neighbor", "probe/accuracy"):
        assert min(plain[probe], held[probe]) > 0.97 > untrained[probe]
        assert abs(plain[probe] - held[probe]) < 0.02


def test_statements_about_a_sensitive_attribute_hold():
    runs = run("sensitive_attribute")["runs"]
    digit, audits, estimates = (dict(zip(runs, values, strict=True)) for values in zip(*runs.values(), strict=True))
    guesses = {name: audit.probe.accuracy for name, audit in audits.items()}
    found = {name: audit.result.mi for name, audit in audits.items()}
    assert "still_rising" in {finding.code for finding in audits["plain"].result.findings}
    # Without noise the penalty's critic sees nearly nothing, and the audit nearly all.
    assert estimates["penalty"] < 0.25 * math.log(2)
    assert min(found["plain"], found["penalty"]) > 0.75 * math.log(2)
    assert min(guesses["plain"], guesses["penalty"]) > 0.95
    # Noise alone removes a part; with the penalty, guesses are near those of a coin.
    assert 0.6 < guesses["noise"] < 0.85
    assert guesses["noise and penalty"] < min(0.6, guesses["noise"] - 0.08)
    assert found["noise and penalty"] < 0.01
    # The accuracy at the digit hardly changes.
    assert min(digit.values()) > max(digit.values()) - 0.04


def test_statements_about_two_views_hold(capsys):
    names = run("two_views")
    printed = capsys.readouterr().out
    untrained, trained, runs = names["untrained"], names["trained"], names["runs"]
    assert trained["probe/accuracy"] > untrained["probe/accuracy"] + 0.01
    assert trained["probe/accuracy"] > trained["probe/head_accuracy"]
    assert max(names["estimates"].values) < math.log(2 * 128 - 1)
    # Two ranks equal one process; without gathering, ceiling and gradient are others.
    one, two, local = runs.values()
    assert float(one["mi"]) == pytest.approx(float(two["mi"]), rel=1e-4)
    assert float(local["log_n"]) < float(two["log_n"]) == float(one["log_n"])
    norm = one["gradient"].norm()
    assert (two["gradient"] - one["gradient"]).norm() < 1e-5 * norm
    assert (local["gradient"] - one["gradient"]).norm() > 1e-2 * norm
    assert "Starting with 2 processes" in printed
