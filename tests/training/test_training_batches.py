"""Which items, captions and timesteps a step sees, by seed and step alone."""

import numpy as np
import pytest

from diffjax.training.batches import (
    LEAST_CROP,
    Captions,
    Levels,
    batch_items,
    crop,
    item_pixels,
    latent_batch,
)


def test_an_epoch_shows_every_item_once_and_the_next_in_another_order():
    first = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4)])
    second = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_items_past_the_images_are_flipped_and_those_past_these_are_crops():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    items = np.array([1, 3, 5, 7], np.int32)
    plain, flipped, *crops = item_pixels(images, items, mirror=True)
    np.testing.assert_array_equal(plain, flipped[:, ::-1])
    np.testing.assert_allclose(plain, images[1] / 127.5 - 1, atol=1e-6)
    first, second = crops
    for one, other in ((first, plain), (first, flipped), (first, second)):
        assert (one != other).any()
    # whatever stands beside it in a batch, and with no mirror images before it
    [alone] = item_pixels(images, items[2:3], mirror=True)
    np.testing.assert_array_equal(alone, first)
    [unmirrored] = item_pixels(images, items[1:2], mirror=False)
    assert (unmirrored != plain).any() and (unmirrored != flipped).any()


def test_a_crop_is_a_part_of_the_image_in_its_own_proportions():
    """A ramp from left to right, whose values are places, and one from top to bottom.

    Resizing keeps ramps, but at the edges of the crop.
    """
    x = np.linspace(20, 220, 32)
    image = np.stack([*np.meshgrid(x, x), np.zeros((32, 32))], -1).astype(np.uint8)
    flipped, areas = 0, []
    for seed in range(200):
        found = crop(image, np.random.default_rng(seed))
        assert found.shape == image.shape and found.dtype == np.uint8
        across, down = (
            found[16, 4:28, 0].astype(float),
            found[4:28, 16, 1].astype(float),
        )
        slope = (across[-1] - across[0]) / 23 * 31 / 200
        height = (down[-1] - down[0]) / 23 * 31 / 200
        assert abs(abs(slope) - height) < 0.02
        assert np.abs(np.diff(across)).std() < 1.1  # of whole numbers
        flipped += slope < 0
        areas.append(height**2)
    assert 70 < flipped < 130
    assert LEAST_CROP - 0.03 < min(areas) < LEAST_CROP + 0.05
    assert 0.95 < max(areas) < 1.03


NOTHING = np.array([99], np.int32)
CAPTIONS = Captions(  # ids of a class's captions tell the class (mod 3)
    of_classes=np.arange(2 * 3, dtype=np.int32).reshape(2, 3, 1),
    of_items=np.arange(50, 56, dtype=np.int32)[:, None],
)


def make_batch(step, seed=3):
    """24 items of 12 images in 3 classes, and 6 further items."""
    labels = np.arange(12, dtype=np.int32) % 3
    return latent_batch(
        np.arange(30, dtype=np.float32)[:, None, None, None],
        lambda items, random: CAPTIONS.ids(items, labels, 24, random),
        NOTHING,
        batch=8,
        empty=0.25,
        n_timesteps=1000,
        step=step,
        seed=seed,
    )


def test_a_batch_is_a_pure_function_of_seed_and_step():
    for a, b in zip(make_batch(5), make_batch(5), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (make_batch(6), make_batch(5, seed=4)):
        assert (make_batch(5).latents != other.latents).any()
        assert (make_batch(5).timesteps != other.timesteps).any()


def test_each_latent_gets_a_caption_of_its_own_or_the_empty_one():
    empty = 0
    seen = set()
    for step in range(400):
        batch = make_batch(step)
        ids = batch.ids[:, 0]
        items = batch.latents.ravel().astype(int)
        fits = np.where(items < 24, ids % 3 == items % 12 % 3, ids == 50 + items - 24)
        assert all((ids == 99) | fits)
        empty += (ids == 99).sum()
        seen |= set(ids.tolist())
    assert abs(empty / 3200 - 0.25) < 0.03
    assert seen == {0, 1, 2, 3, 4, 5, 50, 51, 52, 53, 54, 55, 99}


def test_each_latent_gets_its_class_or_none():
    labels = np.arange(12, dtype=np.int32) % 3
    without = 0
    for step in range(400):
        batch = latent_batch(
            np.arange(24, dtype=np.float32)[:, None, None, None],
            lambda items, random: labels[items % 12],
            np.array(3, np.int32),
            batch=8,
            empty=0.25,
            n_timesteps=1000,
            step=step,
            seed=3,
        )
        items = batch.latents.ravel().astype(int)
        assert all((batch.ids == 3) | (batch.ids == items % 12 % 3))
        without += (batch.ids == 3).sum()
    assert abs(without / 3200 - 0.25) < 0.03
    np.testing.assert_array_equal(labels, np.arange(12) % 3)  # left as they were


def test_without_flipped_images_further_items_follow_the_images():
    labels = np.arange(12, dtype=np.int32) % 3
    captions = Captions(
        of_classes=np.arange(3, dtype=np.int32)[None, :, None],
        of_items=np.arange(50, 56, dtype=np.int32)[:, None],
    )
    seen = set()
    for step in range(100):
        batch = latent_batch(
            np.arange(18, dtype=np.float32)[:, None, None, None],
            lambda items, random: captions.ids(items, labels, 12, random),
            NOTHING,
            batch=6,
            empty=0.0,
            n_timesteps=1000,
            step=step,
            seed=3,
        )
        items = batch.latents.ravel().astype(int)
        ids = batch.ids[:, 0]
        assert all(np.where(items < 12, ids == items % 3, ids == 50 + items - 12))
        seen |= set(items.tolist())
    assert seen == set(range(18))


@pytest.mark.parametrize("further", [(1.5, 0.8), None])
def test_logit_normal_timesteps_have_that_mean_and_spread(further):
    labels = np.zeros(64, np.int32)
    batches = [
        latent_batch(
            np.arange(64, dtype=np.float32)[:, None, None, None],
            lambda items, random: labels[items],
            np.array(1, np.int32),
            batch=64,
            empty=0.0,
            n_timesteps=100_000,
            levels=Levels(n_own=40, own=(-0.5, 1.2), further=further),
            step=step,
            seed=0,
        )
        for step in range(50)
    ]
    items = np.concatenate([batch.latents.ravel() for batch in batches])
    t = np.concatenate([batch.timesteps for batch in batches])
    share = (t + 0.5) / 100_000
    logits = np.log(share / (1 - share))
    own, others = logits[items < 40], logits[items >= 40]
    assert abs(own.mean() + 0.5) < 0.04
    assert abs(own.std() - 1.2) < 0.04
    if further is None:
        assert abs(share[items >= 40].mean() - 0.5) < 0.02
        assert abs(share[items >= 40].std() - 12**-0.5) < 0.02
    else:
        assert abs(others.mean() - 1.5) < 0.06
        assert abs(others.std() - 0.8) < 0.06


def test_timesteps_are_stratified_and_cover_the_schedule():
    t = np.array([np.sort(make_batch(step).timesteps) for step in range(300)])
    low = np.arange(8) * 125
    assert ((t >= low) & (t < low + 125)).all()
    assert t.min() < 5 and t.max() > 994
