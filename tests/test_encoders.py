"""The small encoders."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from lightning_mi.encoders import MLP, OneHot


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_one_hot_is_rows_of_the_identity(dtype):
    labels = torch.tensor([2, 0, 4, 4], dtype=dtype)
    encoded = OneHot(5)(labels)
    assert encoded.dtype == torch.float32
    np.testing.assert_array_equal(encoded.numpy(), np.eye(5)[labels.numpy()])


def test_one_hot_of_no_labels_has_no_rows():
    assert OneHot(5)(torch.empty(0, dtype=torch.int64)).shape == (0, 5)


@pytest.mark.parametrize(("labels", "value", "index"), [([0, 1, 3, 9], 3, 2), ([0, -1, 2], -1, 1)])
def test_a_label_out_of_range_is_named_with_its_place_and_the_range(labels, value, index):
    with pytest.raises(ValueError, match=rf"Label {value} at index {index} is out of range.* from 0 to 2\."):
        OneHot(3)(torch.tensor(labels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64, torch.bool])
def test_labels_that_are_not_integers_are_refused(dtype):
    with pytest.raises(ValueError, match=f"integer labels, but got {dtype}"):
        OneHot(3)(torch.zeros(2, dtype=dtype))


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(N,\), but got \(4, 1\)"):
        OneHot(3)(torch.zeros(4, 1, dtype=torch.int64))


def test_one_hot_without_classes_is_refused():
    with pytest.raises(ValueError, match="num_classes=0"):
        OneHot(0)


def test_one_hot_prints_its_argument():
    assert repr(OneHot(3)) == "OneHot(num_classes=3)"


def test_mlp_is_the_composition_of_its_layers():
    encoder = MLP(6, [5, 4], 3).double()
    inputs = torch.randn(7, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = inputs.numpy().reshape(7, 6)
    weights = [parameter.detach().numpy() for parameter in encoder.parameters()]
    for i in (0, 2, 4):
        expected = expected @ weights[i].T + weights[i + 1]
        expected = np.maximum(expected, 0) if i < 4 else expected
    np.testing.assert_allclose(encoder(inputs).detach().numpy(), expected, rtol=1e-12)


def test_one_hidden_width_needs_no_list_and_no_width_is_a_linear_map():
    assert [tuple(p.shape) for p in MLP(3, 8, 2).parameters()] == [(8, 3), (8,), (2, 8), (2,)]
    assert [tuple(p.shape) for p in MLP(3, [], 2).parameters()] == [(2, 3), (2,)]


def test_scalars_are_inputs_of_one_feature():
    assert MLP(1, 4, 2)(torch.zeros(5)).shape == (5, 2)


def test_inputs_of_another_size_are_refused_with_the_right_in_dim():
    with pytest.raises(ValueError, match=r"shape \(5, 2, 3\): 6 features each. Set in_dim=6"):
        MLP(4, 8, 2)(torch.zeros(5, 2, 3))


@pytest.mark.parametrize("widths", [(0, 8, 2), (4, 0, 2), (4, [8, -1], 2), (4, 8, 0)])
def test_widths_below_one_are_refused(widths):
    with pytest.raises(ValueError, match="must all be at least 1"):
        MLP(*widths)


@pytest.mark.parametrize("hidden", ["7", "[7, 7]"])
def test_mlp_is_built_from_the_command_line(hidden):
    parser = ArgumentParser()
    parser.add_class_arguments(MLP, "encoder")
    config = parser.parse_args(["--encoder.in_dim=4", f"--encoder.hidden={hidden}", "--encoder.out_dim=2"])
    assert parser.instantiate_classes(config).encoder(torch.zeros(3, 2, 2)).shape == (3, 2)
