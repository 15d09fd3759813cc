"""Cropping and erasing by the batch, against loops over images and by their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ianet import images


def pixels(count: int = 7, height: int = 12, width: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    # From 1, so that the black of the padding differs from an image.
    return torch.randint(1, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("padding", [1, 3, 20])
def test_crop_is_a_shift_of_the_padded_image(padding: int) -> None:
    batch = pixels()
    corners = np.random.default_rng(1).integers(2 * padding + 1, size=(len(batch), 2))
    result = images.crop(batch, torch.from_numpy(corners), padding)
    for one, image, (top, left) in zip(result, batch, corners, strict=True):
        padded = np.pad(image.numpy(), [(padding, padding), (padding, padding), (0, 0)])
        assert np.array_equal(one.numpy(), padded[top : top + 12, left : left + 6])


def test_crop_in_the_middle_is_the_image_and_in_a_corner_has_black_there() -> None:
    batch = pixels(3)
    corners = torch.tensor([[2, 2], [0, 0], [4, 4]])
    middle, first, last = images.crop(batch, corners, 2)
    assert torch.equal(middle, batch[0])
    assert torch.equal(first[2:, 2:], batch[1][:-2, :-2])
    assert not first[:2].any()
    assert not first[:, :2].any()
    assert torch.equal(last[:-2, :-2], batch[2][2:, 2:])


def test_erase_against_a_loop() -> None:
    inputs = images.normalize(pixels())
    boxes = images.random_boxes(7, (12, 6), 0.7, np.random.default_rng(0))
    assert 0 < (boxes[:, 2] > 0).sum() < 7
    expected = inputs.clone()
    for image, (top, left, height, width) in zip(expected, boxes, strict=True):
        image[:, top : top + height, left : left + width] = 0
    result = images.erase(inputs, torch.from_numpy(boxes))
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_what_is_erased_is_the_mean_of_imagenet() -> None:
    mean = torch.tensor(images.MEAN).mul(255).round().to(torch.uint8).expand(1, 4, 2, 3)
    erased = images.erase(images.normalize(pixels(1, 4, 2)), torch.tensor([[0, 0, 4, 2]]))
    torch.testing.assert_close(erased, images.normalize(mean), rtol=0, atol=0.01)


@pytest.mark.parametrize("size", [(256, 128), (64, 64)])
def test_random_boxes(size: tuple[int, int]) -> None:
    """Area, height over width, place and probability, up to rounding to whole pixels."""
    height, width = size
    boxes = images.random_boxes(4000, size, 0.5, np.random.default_rng(0))
    erases = boxes[:, 2] > 0
    assert erases.mean() == pytest.approx(0.5, abs=0.03)
    assert not boxes[~erases, 2:].any()
    top, left, tall, wide = boxes[erases].T
    assert top.min() == left.min() == 0
    assert (top + tall).max() == height
    assert (left + wide).max() == width
    area = tall * wide / (height * width)
    assert area.min() == pytest.approx(0.02, abs=0.003)
    assert 0.3 < area.max() < 0.4 + 0.01
    # Half a pixel more or less on either side.
    assert ((tall + 0.5) / (wide - 0.5)).min() > 0.3
    assert ((tall - 0.5) / (wide + 0.5)).max() < 3.33


def test_first_rectangle_that_fits_has_the_law_of_drawing_again() -> None:
    """Area and shape are those of all rectangles that fit, as when each is drawn again."""
    rng = np.random.default_rng(5)
    boxes = images.random_boxes(20_000, (64, 16), 1.0, rng)
    area, aspect = rng.uniform(0.02, 0.4, 60_000) * 64 * 16, rng.uniform(0.3, 3.33, 60_000)
    sides = np.rint([np.sqrt(area * aspect), np.sqrt(area / aspect)])
    candidates = sides[:, (sides[0] <= 64) & (sides[1] <= 16)]
    assert boxes[:, 2:].mean(0) == pytest.approx(candidates.mean(1), rel=0.02)
    # Many areas are too large for their shape, yet every image got a rectangle.
    assert candidates.shape[1] < 0.9 * 60_000
    assert boxes[:, 2].min() > 0


def test_an_image_that_no_rectangle_fits_is_left_alone() -> None:
    boxes = images.random_boxes(10, (1000, 1), 1.0, np.random.default_rng(0))
    assert not boxes[:, 2:].any()


def test_draws_depend_on_the_generator_alone() -> None:
    first, again, other = (
        images.random_boxes(50, (64, 32), 0.5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
