"""BatchedContrastiveTransform equals torchvision applied image by image."""

import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from lightning_mi.data import BatchedContrastiveTransform
from lightning_mi.data.images.batch_color import jitter_in_order
from lightning_mi.data.images.batch_resampling import Boxes, blur, crop_and_resize
from lightning_mi.data.images.batch_transform import NUM_DRAWS
from tests.helpers.processes import on_processes

ORDERS = list(itertools.permutations(range(4)))


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def uniforms(n, seed=0):
    return torch.rand(n, NUM_DRAWS, generator=torch.Generator().manual_seed(seed))


def box_by_definition(draw, height, width, min_scale):
    """The crop of one image, by the steps of RandomResizedCrop."""
    for area_draw, aspect_draw in zip(draw[:10], draw[10:20], strict=True):
        area = height * width * (min_scale + area_draw * (1 - min_scale))
        aspect = math.exp(math.log(3 / 4) + aspect_draw * (math.log(4 / 3) - math.log(3 / 4)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draw[20] * (height - h + 1)), int(draw[21] * (width - w + 1)), h, w
    h, w = min(height, round(width / 0.75)), min(width, round(height / 0.75))
    return (height - h) // 2, (width - w) // 2, h, w


def view_by_definition(image, draw, size, min_scale, jitter):
    """One view by torchvision's functions of single images."""
    draw = draw.double().numpy()
    height, width = image.shape[-2:]
    box = box_by_definition(draw, height, width, min_scale)
    image = F.resized_crop(image, *box, size, antialias=True)
    if draw[22] < 0.5:
        image = F.horizontal_flip(image)
    brightness, contrast, saturation = (float(1 + 0.8 * jitter * (2 * u - 1)) for u in draw[24:27])
    hue = float(0.2 * jitter * (2 * draw[27] - 1))
    operations = [
        lambda x: F.adjust_brightness(x, brightness),
        lambda x: F.adjust_contrast(x, contrast),
        lambda x: F.adjust_saturation(x, saturation) if len(x) == 3 else x,
        lambda x: F.adjust_hue(x, hue) if len(x) == 3 else x,
    ]
    if draw[23] < 0.8:
        for index in ORDERS[int(draw[28] * 24)]:
            image = operations[index](image)
    if draw[29] < 0.2 and len(image) == 3:
        image = F.rgb_to_grayscale(image, num_output_channels=3)
    kernel = [2 * (length // 10 // 2) + 1 for length in reversed(size)]
    return F.gaussian_blur(image, kernel, [float(0.1 + 1.9 * draw[31])] * 2) if draw[30] < 0.5 else image


@pytest.mark.parametrize(
    ("channels", "height", "width", "size"), [(3, 40, 48, (32, 32)), (3, 24, 60, (64, 40)), (1, 28, 28, (20, 28))]
)
def test_views_equal_those_of_torchvision_image_by_image(channels, height, width, size):
    batch, draws = images(60, channels, height, width), uniforms(60)
    views = BatchedContrastiveTransform(size, 0.2)(batch, draws)
    for view, image, draw in zip(views, batch, draws, strict=True):
        expected = view_by_definition(image, draw, size, 0.2, 1.0)
        torch.testing.assert_close(view, expected, rtol=0, atol=2e-5)


def test_central_crop_replaces_draws_outside_the_image():
    draws = uniforms(2)
    draws[:, :10], draws[:, 10:20], draws[:, 22:] = (
        0.999,
        0.0,
        0.99,
    )  # near the whole area, and 3:4: higher than the image
    batch = images(2, 3, 20, 30)
    views = BatchedContrastiveTransform(10)(batch, draws)
    assert box_by_definition(draws[0].double().numpy(), 20, 30, 0.08) == (0, 1, 20, 27)
    torch.testing.assert_close(views, F.resized_crop(batch, 0, 1, 20, 27, [10, 10], antialias=True))


def test_crops_have_the_area_and_position_of_their_law():
    draws = uniforms(20_000, seed=1)
    boxes = BatchedContrastiveTransform(8, 0.2)._parameters(draws, 100, 100).boxes
    shares = (boxes.height * boxes.width / 1e4).numpy()
    assert shares.min() > 0.19
    # Square images accept a draw of the area with the probability that its aspect ratio fits.
    reference = [box_by_definition(d.double().numpy(), 100, 100, 0.2) for d in draws[:2000]]
    mine = torch.stack(list(boxes), dim=1)[:2000].numpy()
    assert np.mean(np.all(mine == np.array(reference), axis=1)) > 0.998  # float32 may round a half the other way


def test_images_without_a_change_stay_equal_bit_for_bit():
    batch, draws = images(4, 3, 32, 32), uniforms(4)
    draws[:, 22:] = 0.99  # no flip, jitter, grey or blur
    draws[:, :10], draws[:, 10:20], draws[:, 20:22] = 1.0, 0.5, 0.0  # the whole image
    assert torch.equal(BatchedContrastiveTransform()(batch, draws), batch)


def test_each_image_has_its_own_draws_and_no_other():
    batch, draws = images(1, 3, 32, 32).expand(8, -1, -1, -1), uniforms(8)
    transform = BatchedContrastiveTransform()
    views = transform(batch, draws)
    assert len({view.numpy().tobytes() for view in views}) == 8
    alone = torch.cat([transform(batch[i : i + 1], draws[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(views, alone, rtol=0, atol=1e-6)


def test_bytes_are_scaled_to_the_unit_interval():
    batch = (images(4, 3, 20, 20) * 255).to(torch.uint8)
    transform, draws = BatchedContrastiveTransform(16), uniforms(4)
    assert torch.equal(transform(batch, draws), transform(batch.float() / 255, draws))


def test_switched_off_steps_change_nothing():
    batch, draws = images(30, 3, 40, 40), uniforms(30)
    plain = BatchedContrastiveTransform(20, flip=False, jitter=0.0, grey=False, blur=False)(batch, draws)
    boxes = BatchedContrastiveTransform(20)._parameters(draws, 40, 40).boxes
    assert torch.equal(plain, crop_and_resize(batch, boxes, (20, 20), torch.zeros(30, dtype=torch.bool)))


def test_small_images_are_not_blurred():
    batch = images(2, 1, 19, 19)
    assert blur(batch, torch.ones(2), torch.ones(2, dtype=torch.bool)) is batch


def test_hue_leaves_grey_pixels_as_they_are():
    grey = images(5, 1, 4, 4).expand(5, 3, 4, 4)
    factors = torch.tensor([[1.0], [1.0], [1.0], [0.3]]).expand(4, 5)
    changed = jitter_in_order(grey, factors, torch.arange(4).expand(5, 4), torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(changed, grey, rtol=0, atol=1e-6)


def test_box_of_one_pixel_is_that_pixel():
    image = images(1, 3, 5, 6)
    box = Boxes(*torch.tensor([[2.0], [3.0], [1.0], [1.0]]))
    assert torch.equal(crop_and_resize(image, box, (1, 1), torch.tensor([True])), image[..., 2:3, 3:4])


def test_two_views_follow_torchs_generator():
    transform, batch, labels = BatchedContrastiveTransform(), images(6, 3, 16, 16), torch.arange(6)
    torch.manual_seed(3)
    first, second, passed = transform.two_views([batch, labels])
    assert passed is labels
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    again = transform.two_views(batch)
    assert len(again) == 2
    assert torch.equal(torch.stack(again), torch.stack([first, second]))


def _views_of_rank(rank):
    torch.manual_seed(5)
    return torch.stack(BatchedContrastiveTransform().two_views(images(6, 3, 16, 16)[3 * rank : 3 * rank + 3]))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ranks_draw_the_views_of_one_process(tmp_path):
    torch.manual_seed(5)
    whole = torch.stack(BatchedContrastiveTransform().two_views(images(6, 3, 16, 16)))
    ranks = on_processes(_views_of_rank, 2, tmp_path)
    torch.testing.assert_close(torch.cat(ranks, dim=1), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_scale": 0.0}, r"min_scale=0\.0: the smallest area of a crop is above 0"),
        ({"jitter": 2.0}, r"jitter=2\.0: .* between 0 \(none\) and 1\.25"),
        ({"size": (0, 4)}, r"size=0: it must be at least 1"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchedContrastiveTransform(**arguments)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ({"jpg": 1}, TypeError, r"Got a batch of type dict with the keys 'jpg': images are a tensor \(N, C, H, W\)"),
        (([1, 2],), TypeError, r"Got a batch of type list: .*collate_fn"),
        (torch.rand(3, 8, 8), ValueError, r"shape \(3, 8, 8\): a batch is \(N, C, H, W\) with 1 or 3 channels"),
        (torch.rand(2, 8, 8, 3), ValueError, r"shape \(2, 8, 8, 3\): .*move the channels to the front"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), TypeError, r"images of torch\.int64: give bytes"),
        (torch.zeros(2, 3, 0, 8), ValueError, r"shape \(2, 3, 0, 8\): .* one pixel or more"),
        (255 * torch.ones(2, 3, 8, 8), ValueError, r"values from 255 to 255: floats are between 0 and 1\. Pass bytes"),
        (torch.zeros(2, 3, 8, 8).index_fill(0, torch.tensor(1), -2), ValueError, r"values from -2 to 0"),
    ],
)
def test_invalid_batches_raise(batch, error, message):
    with pytest.raises(error, match=message):
        BatchedContrastiveTransform().two_views(batch)


def test_a_switch_that_is_no_bool_raises():
    with pytest.raises(TypeError, match="Got flip='no', a str"):
        BatchedContrastiveTransform(flip="no")


def test_a_size_that_is_no_whole_number_raises():
    with pytest.raises(TypeError, match=r"size=3\.5"):
        BatchedContrastiveTransform(3.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_views_have_the_type_of_the_images(dtype):
    batch, transform = images(4, 3, 24, 24).to(dtype), BatchedContrastiveTransform()
    draws = transform.draw(4)
    views = transform(batch, draws)
    assert views.dtype == dtype
    torch.testing.assert_close(views, transform(batch.float(), draws).to(dtype), rtol=0, atol=0)
