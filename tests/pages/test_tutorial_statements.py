"""The statements of the tutorials hold for what their code computes."""

import runpy

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
