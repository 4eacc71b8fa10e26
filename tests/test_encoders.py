"""Encoders against NumPy, the identity matrix and torchvision."""

import copy
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from jsonargparse import ArgumentParser
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from lightning_mi.data import ImageDataModule
from lightning_mi.encoders import MLP, NormalScores, OneHot, ResNet18, SmallCNN


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_one_hot_is_rows_of_the_identity(dtype):
    labels = torch.tensor([2, 0, 4, 4], dtype=dtype)
    encoded = OneHot(5)(labels)
    assert encoded.dtype == torch.float32
    np.testing.assert_array_equal(encoded.numpy(), np.eye(5)[labels.numpy()])
    assert OneHot(5)(labels[:0]).shape == (0, 5)
    assert repr(OneHot(3)) == "OneHot(num_classes=3)"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 3, 9]), r"Got label 3 at index 2: .* from 0 to 2\."),
        (torch.tensor([0, -1, 2]), "Got label -1 at index 1"),
        (torch.zeros(2), "Got labels of torch.float32"),
        (torch.zeros(2, dtype=torch.complex64), "Got labels of torch.complex64"),
        (torch.zeros(2, dtype=torch.bool), "Got labels of torch.bool"),
        (torch.zeros(4, 1, dtype=torch.int64), r"Got labels of shape \(4, 1\)"),
    ],
)
def test_one_hot_rejects_invalid_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        OneHot(3)(labels)


@pytest.mark.parametrize("bias", [True, False])
def test_mlp_is_the_composition_of_its_layers(bias):
    encoder = MLP(6, [5, 4], out_dim=3, bias=bias).double()
    inputs = torch.randn(7, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = inputs.numpy().reshape(7, 6)
    weights = [parameter.detach().numpy() for parameter in encoder.parameters()]
    weights += [] if bias else [np.zeros(3)]
    for i in (0, 2, 4):
        expected = expected @ weights[i].T + weights[i + 1]
        expected = np.maximum(expected, 0) if i < 4 else expected
    np.testing.assert_allclose(encoder(inputs).detach().numpy(), expected, rtol=1e-12)


def test_mlp_accepts_one_width_no_width_and_scalars():
    assert [tuple(p.shape) for p in MLP(3, 8, out_dim=2).parameters()] == [(8, 3), (8,), (2, 8), (2,)]
    assert [tuple(p.shape) for p in MLP(3, [], out_dim=2).parameters()] == [(2, 3), (2,)]
    assert MLP(1, 4, out_dim=2)(torch.zeros(5)).shape == (5, 2)


def test_small_cnn_features_are_nonnegative_and_logits_are_not():
    images = torch.randn(20, 3, 4, 9)
    features = SmallCNN(3)(images)
    assert features.shape == (20, 512)
    assert (features >= 0).all()
    assert (features > 0).any()
    logits = SmallCNN(3, 10, width=8, final_relu=False)(images)
    assert logits.shape == (20, 10)
    assert (logits < 0).any()


def test_small_cnn_encodes_each_image_independently():
    encoder, images = SmallCNN(1, 16, width=8).train(), torch.randn(6, 1, 8, 8)
    np.testing.assert_allclose(
        encoder(images).detach(), torch.cat([encoder(image[None]) for image in images]).detach(), atol=1e-6
    )


def test_grid_of_seven_keeps_the_map_of_28_pixels():
    encoder, maps = SmallCNN(1, 16, width=8, grid=7), []
    encoder.convolutions.register_forward_hook(lambda module, inputs, output: maps.append(output.flatten(1)))
    features = encoder(torch.randn(2, 1, 28, 28))
    expected = maps[0].detach().numpy() @ encoder.head.weight.detach().numpy().T + encoder.head.bias.detach().numpy()
    np.testing.assert_allclose(features.detach(), np.maximum(expected, 0), atol=1e-5)


def test_small_cnn_learns_digits():
    data = ImageDataModule("digits")
    encoder = SmallCNN(1, 10, width=16, final_relu=False)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    batches = data.train_dataloader().batches
    views: Any = data.train_dataloader().dataset
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


def test_resnet18_equals_torchvision_without_its_classifier():
    encoder, reference = ResNet18().eval(), resnet18(weights=None).eval()
    missing, unexpected = encoder.network.load_state_dict(reference.state_dict(), strict=False)
    assert (missing, unexpected) == ([], ["fc.weight", "fc.bias"])
    images = torch.randn(2, 3, 64, 64)
    reference.fc = torch.nn.Identity()
    assert torch.equal(encoder(images), reference(images))
    assert encoder(images).shape == (2, 512)


def test_resnet18_logits_are_linear_in_the_features():
    encoder = ResNet18(out_dim=7).eval()
    images, features = torch.randn(2, 3, 64, 64), []
    encoder.network.avgpool.register_forward_hook(lambda module, inputs, output: features.append(output.flatten(1)))
    logits = encoder(images)
    classifier = encoder.network.fc
    assert isinstance(classifier, torch.nn.Linear)
    expected = features[0].detach().numpy() @ classifier.weight.detach().numpy().T + classifier.bias.detach().numpy()
    np.testing.assert_allclose(logits.detach(), expected, atol=1e-5)


@pytest.mark.parametrize(("stem", "size", "channels"), [("imagenet", 8, 1), ("imagenet", 8, 3), ("cifar", 32, 3)])
def test_stem_sets_the_size_of_the_first_block(stem, size, channels):
    encoder, shapes = ResNet18(stem=stem, in_channels=channels).eval(), []
    encoder.network.layer1.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    assert encoder(torch.randn(2, channels, 32, 32)).shape == (2, 512)
    assert shapes == [(2, 64, size, size)]
    # Initialization of He et al. by the number of outputs, as in torchvision.
    weight = encoder.network.get_parameter("conv1.weight")
    assert weight.std().item() == pytest.approx((2 / (64 * weight.shape[2] * weight.shape[3])) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: OneHot(0), "num_classes=0"),
        (lambda: MLP(0, 8, out_dim=2), "in_dim=0"),
        (lambda: MLP(4, [8, -1], out_dim=2), "hidden=-1"),
        (lambda: MLP(4, 8, out_dim=0), "out_dim=0"),
        (lambda: MLP(4, 8, out_dim=2)(torch.zeros(5, 2, 3)), r"shape \(5, 2, 3\), 6 features.* Set in_dim=6"),
        (lambda: SmallCNN(0), "in_channels=0"),
        (lambda: SmallCNN(1, grid=0), "grid=0"),
        (lambda: ResNet18(0), "out_dim=0"),
        (lambda: ResNet18(in_channels=0), "in_channels=0"),
        (lambda: ResNet18(stem="mnist"), "stem='mnist': it is one of 'imagenet', 'cifar'"),
        (lambda: SmallCNN(1)(torch.zeros(2, 3, 8, 8)), r"images of shape \(2, 3, 8, 8\): .* \(N, 1, H, W\)"),
        (lambda: ResNet18()(torch.zeros(3, 32, 32)), r"images of shape \(3, 32, 32\)"),
        (lambda: SmallCNN(1)(torch.zeros(2, 1, 3, 8)), "3 x 8 pixels: .* 4 x 4 or more"),
    ],
)
def test_invalid_sizes_raise_with_value_and_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (MLP, ["--e.in_dim=3072", "--e.hidden=7"]),
        (MLP, ["--e.in_dim=3072", "--e.hidden=[7, 7]"]),
        (SmallCNN, ["--e.in_channels=3"]),
        (ResNet18, ["--e.stem=cifar"]),
    ],
)
def test_encoders_are_built_from_the_command_line(encoder, options):
    parser = ArgumentParser()
    parser.add_class_arguments(encoder, "e")
    built = parser.instantiate_classes(parser.parse_args([*options, "--e.out_dim=5"])).e
    assert built.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_normal_scores_are_those_of_the_ranks():
    reference = torch.randn(6400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 3
    scores = NormalScores(2)
    scores.fit(reference)
    new = torch.randn(3000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 3
    inside = new[(new.abs() < 8).all(dim=1)]
    expected = scipy.stats.norm.ppf([(reference.numpy() <= row).mean(axis=0) for row in inside.numpy()])
    np.testing.assert_allclose(scores(inside).numpy(), expected, atol=0.1)


def test_normal_scores_are_injective_beyond_the_reference():
    scores = NormalScores(1)
    scores.fit(torch.linspace(-1, 1, 640)[:, None])
    far = torch.tensor([[-1e30], [-1e4], [-2.0], [0.0], [2.0], [1e4], [1e30]])
    assert (scores(far).diff(dim=0) > 0).all()
    assert scores(far).abs().max() < 80


def test_normal_scores_of_ties_are_their_mean():
    reference = torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(32)[:, None]
    scores = NormalScores(1)
    scores.fit(reference)
    quantiles = scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64)
    expected = [(quantiles[0] + quantiles[47]) / 2, (quantiles[48] + quantiles[63]) / 2]
    np.testing.assert_allclose(scores(torch.tensor([[0.0], [1.0]]))[:, 0], expected, atol=1e-6)
    constant = NormalScores(1)
    assert constant(torch.full((5, 1), 0.1)).abs().max() < 1e-6


def test_normal_scores_average_the_first_training_batches():
    scores, fitted = NormalScores(1), NormalScores(1)
    x, y = torch.arange(64.0)[:, None], 5 + 3 * torch.arange(64.0)[:, None]
    identity = torch.linspace(-2, 2, 9)[:, None]
    torch.testing.assert_close(scores.eval()(identity), identity)
    scores.train()
    for batch in [x, y] * 32:
        scores(batch)
    fitted.fit((x + y) / 2)
    torch.testing.assert_close(scores.quantiles, fitted.quantiles)
    saved = copy.deepcopy(scores.state_dict())
    scores(100 * x)
    torch.testing.assert_close(scores.quantiles, fitted.quantiles)
    scores.load_state_dict(NormalScores(1).state_dict())
    scores(x)
    assert scores.num_batches == 1
    resumed = NormalScores(1)
    resumed.load_state_dict(saved)
    torch.testing.assert_close(resumed(x), fitted(x))


def test_normal_scores_are_normal_after_small_batches_of_cubes():
    scores, generator = NormalScores(1), torch.Generator().manual_seed(0)
    for _ in range(64):
        scores(torch.randn(32, 1, generator=generator) ** 3)
    y = torch.linspace(-2, 2, 401)[:, None]
    assert (scores(y**3) - y).abs().max() < 0.25  # the outer quantiles are those of 32 samples


def test_normal_scores_have_the_gradient_of_the_map():
    scores = NormalScores(2).double()
    scores.fit(torch.randn(256, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    x = torch.tensor([[0.123, -3.5], [1.0, 5.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scores, x)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 1)])
def test_normal_scores_reject_other_shapes(shape):
    with pytest.raises(ValueError, match=r"NormalScores\(2\) maps \(N, 2\)"):
        NormalScores(2)(torch.zeros(shape))
