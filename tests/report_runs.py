"""Runs to report on: complete, staged, in progress, and on other data."""

import io

import numpy as np
from PIL import Image
from saved_runs import write_run

from diffjax.strategies.staged import Staged

N, T = 40, 20
NASTY = (
    "<script>alert('x')</script>",
    'a "quoted" & $odd$ name',
    "line\nbreak \x01 and a very long name " + "z" * 300,
)
NAMES = [*NASTY, "cat", "dog", "automobile", "ship", "-- & --"]


def toy(labels, seed=0):
    """Errors [n, C, T], the label's lower by 1e-3, and its neighbour's by nearly that.

    Every tenth image looks like class 0.
    """
    rng = np.random.default_rng(seed)
    n, n_classes, rows = len(labels), len(NAMES), np.arange(len(labels))
    errors = rng.uniform(0.1, 0.4, (n, 1, T)) + rng.normal(0, 1e-3, (n, n_classes, T))
    errors[rows, labels] -= 1e-3
    errors[rows, (labels + 1) % n_classes] -= 7e-4
    errors[::10, 0] -= 4e-3
    return errors.astype(np.float32)


def jpeg(seed):
    colour = tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist())
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "JPEG")
    return file.getvalue()


def write_runs(root):
    """{name: path} of four runs; the first three are about the same images."""
    labels = np.arange(N) % len(NAMES)
    errors = toy(labels)
    header = {
        "data": {"name": "toy", "n": N + 1},
        "experiment": {"temperature": 1e-4},
    }
    columns = {
        "thumbnail": [jpeg(i) for i in range(N)],
        "id": [f"{NASTY[0]} {i}" for i in range(N)],
    }
    write_run(
        root / "whole",
        errors,
        labels,
        names=NAMES,
        also={"l1": toy(labels, seed=1)},
        failed=(N,),
        header=header,
        columns=columns,
    )
    write_run(
        root / "staged",
        errors,
        labels,
        names=NAMES,
        strategy=Staged(to_keep=(3, 1), n_samples=(5, 10), order="nested"),
        header=header,
        columns=columns,
    )
    half = slice(N // 2)
    write_run(
        root / "part",
        toy(labels, seed=2)[half],
        labels[half],
        names=NAMES,
        save_errors=False,
        header=header,
    )
    write_run(
        root / "other",
        errors,
        labels,
        names=NAMES,
        save_errors=False,
        header={"data": {"name": "other", "fingerprint": "f" * 16}},
    )
    return {name: root / name for name in ("whole", "staged", "part", "other")}
