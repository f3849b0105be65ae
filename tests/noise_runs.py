"""Runs of small models over images of noise."""

import dataclasses
import zlib

import numpy as np

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.seen import Encoded
from diffjax.data.sources import Example
from diffjax.errors import DiffjaxError
from diffjax.evaluation.task import make_task
from diffjax.strategies.staged import Staged

N = 12  # images: more than a batch of the autoencoder

STAGED = Staged(to_keep=(2, 1), n_samples=(2, 4), order="nested")


class Made:
    """Images of noise; the class of image i is i mod C."""

    def __init__(self, names=("cat", "dog", "ship", "frog"), order=range(N), **kwargs):
        self.name, self.split, self.fingerprint = "made", "test", "f" * 16
        self.class_names = tuple(names)
        self.model_classes = kwargs.get("model_classes")
        self.broken = set(kwargs.get("broken", ()))
        self.stop = kwargs.get("stop")  # cannot be read, nor excused
        self.order = list(order)
        self.read = []

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.stop:
            raise KeyboardInterrupt
        if index in self.broken:
            raise DiffjaxError(f"image {index} is broken")
        k = self.order[index]
        pixels = np.random.default_rng(k).integers(0, 256, (20, 16, 3), np.uint8)
        return Example(image=pixels, label=int(self.labels()[index]), id=f"image {k}")

    def __iter__(self):
        return map(self.__getitem__, range(len(self)))

    def labels(self):
        return np.asarray(self.order, np.int32) % len(self.class_names)


def variant(classifier, **settings):
    return DiffusionClassifier(
        classifier.model, dataclasses.replace(classifier.settings, **settings)
    )


def task_of(source, indices=None, **kwargs):
    indices = np.arange(len(source)) if indices is None else np.asarray(indices)
    return make_task(source, indices, **kwargs)


def assert_same(rows, others, but=("seconds",)):
    """Rows agree in every bit, but for some columns."""
    both = [table.drop_columns(list(but)).to_pylist() for table in (rows, others)]
    assert repr(both[0]) == repr(both[1])  # where NaN is NaN


def tables(rows, P):
    """Errors [n, P, S] of rows."""
    errors = np.array(rows["errors"].to_pylist(), np.float32)
    return errors.reshape(len(rows), P, -1)


def alone(classifier, example, candidates):
    """The record of an image that no other shares a tile with."""
    pixels = classifier.pixels(example.image)
    z0 = np.asarray(classifier.model.latent(pixels))
    image = Encoded(pixels=pixels, z0=z0, key=key_of(example.id))
    [(_, record)] = classifier.score([("", image)], candidates)
    return record


# ---- images that fail


def key_of(name):
    return zlib.crc32(name.encode())


# ---- class-conditional models


def class_source(**kwargs):
    """Ten classes in another order than the model's."""
    names = [f"class {9 - c}" for c in range(10)]
    return Made(names, **kwargs)
