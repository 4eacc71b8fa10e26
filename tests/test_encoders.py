"""The small encoders."""

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from lightning_mi.data import ImageDataModule
from lightning_mi.encoders import MLP, OneHot, ResNet18, SmallCNN


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


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (8, 16), (28, 28), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_cnn_gives_512_features_of_at_least_zero_for_any_small_image(channels, size):
    features = SmallCNN(channels)(torch.randn(3, channels, *size))
    assert features.shape == (3, 512)
    assert (features >= 0).all()
    assert (features > 0).any()


def test_logits_may_be_negative_and_name_their_number():
    logits = SmallCNN(1, 10, width=8, final_relu=False)(torch.randn(20, 1, 8, 8))
    assert logits.shape == (20, 10)
    assert (logits < 0).any()


def test_the_small_cnn_encodes_each_image_alone_in_training_too():
    encoder, images = SmallCNN(1, 16, width=8).train(), torch.randn(6, 1, 8, 8)
    np.testing.assert_allclose(
        encoder(images).detach(), torch.cat([encoder(image[None]) for image in images]).detach(), atol=1e-6
    )


def test_a_grid_of_seven_keeps_every_place_that_is_left_of_28_pixels():
    encoder, maps = SmallCNN(1, 16, width=8, grid=7), []
    encoder.convolutions.register_forward_hook(lambda module, inputs, output: maps.append(output.flatten(1)))
    features = encoder(torch.randn(2, 1, 28, 28))
    expected = maps[0].detach().numpy() @ encoder.head.weight.detach().numpy().T + encoder.head.bias.detach().numpy()
    np.testing.assert_allclose(features.detach(), np.maximum(expected, 0), atol=1e-5)


def test_the_small_cnn_reads_digits():
    data = ImageDataModule("digits")
    encoder = SmallCNN(1, 10, width=16, final_relu=False)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    batches, views = data.train_dataloader().batches, data.train_dataloader().dataset
    for step in range(10 * len(batches)):
        image, label = data.on_after_batch_transfer(views.__getitems__(batches.batch(step)))
        optimizer.zero_grad()
        cross_entropy(encoder(image), label).backward()
        optimizer.step()
    with torch.no_grad():
        right = [
            encoder(image).argmax(1) == label
            for image, label in map(data.on_after_batch_transfer, data.test_dataloader())
        ]
    assert torch.cat(right).float().mean() > 0.9


def test_resnet18_is_torchvisions_without_its_classifier():
    encoder, reference = ResNet18().eval(), resnet18(weights=None).eval()
    missing, unexpected = encoder.network.load_state_dict(reference.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["fc.weight", "fc.bias"])
    images = torch.randn(2, 3, 64, 64)
    reference.fc = torch.nn.Identity()
    assert torch.equal(encoder(images), reference(images))
    assert encoder(images).shape == (2, 512)


def test_resnet18_with_a_width_has_a_linear_classifier_on_the_features():
    encoder = ResNet18(out_dim=7).eval()
    images, features = torch.randn(2, 3, 64, 64), []
    encoder.network.avgpool.register_forward_hook(lambda module, inputs, output: features.append(output.flatten(1)))
    logits = encoder(images)
    classifier = encoder.network.fc
    expected = features[0].detach().numpy() @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
    np.testing.assert_allclose(logits.detach(), expected, atol=1e-5)


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 8), ("cifar", 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_stem_decides_how_large_the_first_blocks_images_are(stem, size, channels):
    encoder, shapes = ResNet18(stem=stem, in_channels=channels).eval(), []
    encoder.network.layer1.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    assert encoder(torch.randn(2, channels, 32, 32)).shape == (2, 512)
    assert shapes == [(2, 64, size, size)]
    # He et al.'s initialization, by the number of outputs, as in torchvision
    weight = encoder.network.conv1.weight
    assert weight.std().item() == pytest.approx((2 / (64 * weight.shape[2] * weight.shape[3])) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SmallCNN(0), "in_channels=0"),
        (lambda: SmallCNN(1, 0), "out_dim=0"),
        (lambda: SmallCNN(1, width=0), "width=0"),
        (lambda: SmallCNN(1, grid=0), "grid=0"),
        (lambda: ResNet18(0), "out_dim=0"),
        (lambda: ResNet18(in_channels=0), "in_channels=0"),
        (lambda: ResNet18(stem="mnist"), "stem='mnist' is unknown"),
        (lambda: SmallCNN(1)(torch.zeros(2, 3, 8, 8)), r"got images of shape \(2, 3, 8, 8\): it takes \(N, 1, H, W\)"),
        (lambda: ResNet18()(torch.zeros(3, 32, 32)), r"got images of shape \(3, 32, 32\)"),
        (lambda: SmallCNN(1)(torch.zeros(2, 1, 3, 8)), "3 x 8 pixels: it needs 4 x 4"),
    ],
)
def test_image_encoders_refuse_what_does_not_fit(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(("encoder", "options"), [(SmallCNN, ["--e.in_channels=3"]), (ResNet18, ["--e.stem=cifar"])])
def test_image_encoders_are_built_from_the_command_line(encoder, options):
    parser = ArgumentParser()
    parser.add_class_arguments(encoder, "e")
    built = parser.instantiate_classes(parser.parse_args([*options, "--e.out_dim=5"])).e
    assert built.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
