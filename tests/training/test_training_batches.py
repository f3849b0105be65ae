"""Which items, captions and timesteps a step sees, by seed and step alone."""

import numpy as np

from diffjax.training.batches import (
    Captions,
    batch_items,
    item_pixels,
    latent_batch,
)


def test_an_epoch_shows_every_item_once_and_the_next_in_another_order():
    first = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4)])
    second = np.concatenate([batch_items(12, 3, step, seed=1) for step in range(4, 8)])
    assert sorted(first) == sorted(second) == list(range(12))
    assert list(first) != list(second)


def test_items_past_the_images_are_flipped():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    plain, flipped = item_pixels(images, np.array([1, 3], np.int32))
    np.testing.assert_array_equal(plain, flipped[:, ::-1])
    np.testing.assert_allclose(plain, images[1] / 127.5 - 1, atol=1e-6)


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


def test_logit_normal_timesteps_have_that_mean_and_spread():
    labels = np.zeros(64, np.int32)
    t = [
        latent_batch(
            np.zeros((64, 1, 1, 1), np.float32),
            lambda items, random: labels[items],
            np.array(1, np.int32),
            batch=64,
            empty=0.0,
            n_timesteps=100_000,
            logit_normal=(-0.5, 1.2),
            step=step,
            seed=0,
        ).timesteps
        for step in range(50)
    ]
    share = (np.concatenate(t) + 0.5) / 100_000
    logits = np.log(share / (1 - share))
    assert abs(logits.mean() + 0.5) < 0.02
    assert abs(logits.std() - 1.2) < 0.02


def test_timesteps_are_stratified_and_cover_the_schedule():
    t = np.array([np.sort(make_batch(step).timesteps) for step in range(300)])
    low = np.arange(8) * 125
    assert ((t >= low) & (t < low + 125)).all()
    assert t.min() < 5 and t.max() > 994
