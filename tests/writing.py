"""A run without a model: rows that are functions of their index.

python writing.py RUN N [LIMIT] writes the missing ones of N rows, each to a part of its
own; files may not grow beyond LIMIT bytes, and every tenth row is large.
"""

import sys
from pathlib import Path

import numpy as np

from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import open_run

PROMPTS = Prompts(
    prompts=("a cat, big", 'a "dog"', "猫 and ½"),
    classidx=(0, 1, 1),
    class_names=("cat", "dog"),
)


def header(**experiment):
    return {
        "format": 1,
        "experiment": {"dataset": "made", "loss": "l2", "also": ()} | experiment,
        "model": {"name": "none", "fingerprint": "0" * 16, "n_timesteps": 1000},
        "data": {"name": "made", "fingerprint": "1" * 16, "n": 40},
        "class_names": ["ape", "cat", "dog"],
        "classes": (1, 2),
        "environment": {},
        "created": "2024-01-01T00:00:00+00:00",
    }


def row(index):
    rng = np.random.default_rng(index)
    return {
        "index": index,
        "id": f"image {index}",
        "label": 1 + index % 2,
        "prediction": 1,
        "ranking": np.array([1, 2]),
        "differences": np.array([0.0, rng.random()]),
        "standard_errors": np.array([0.0, np.inf]),
        "n_samples": np.array([5, 3]),
        "margin": float(rng.random()),
        "margin_error": float("inf"),
        "evaluations": 11,
        "seconds": 0.5,
        "thumbnail": rng.bytes(20_000 if index % 10 == 9 else 20),
    }


def write(path, n):
    with open_run(path, header(), PROMPTS, save_errors=False) as run:
        print("ready", flush=True)
        for index in range(n):
            if index not in run.done:
                run.add(row(index))
                run.flush()


if __name__ == "__main__":
    folder, count, *limit = sys.argv[1:]
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]),) * 2)
    try:
        write(Path(folder), int(count))
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
