"""Runs without a model, written and looked at."""

import numpy as np
import pyarrow.parquet as pq
from writing import PROMPTS, header, row

from diffjax.runs.folder import open_run, read_run


def opened(path, prompts=PROMPTS, save_errors=False, **experiment):
    return open_run(path, header(**experiment), prompts, save_errors=save_errors)


def write(path, indices, **columns):
    """A part with the rows of these indices."""
    with opened(path) as run:
        for index in indices:
            run.add(row(index) | columns)
    return path


def parts(path):
    return sorted((path / "parts").glob("*.parquet"))


def indices(path):
    return read_run(path).rows["index"].to_pylist()


# ---- damage


def saved(index, P=3, S=2, seed=0, **columns):
    """A row with errors of two losses."""
    errors = np.random.default_rng(seed + index).random(P * S).astype(np.float32)
    return row(index) | {
        "prediction_l1": 1,
        "timesteps": np.arange(S),
        "noises": np.zeros(S, int),
        "errors": errors,
        "errors_l1": errors + 1,
        **columns,
    }


def saving(path):
    return opened(path, save_errors=True, also=["l1"])


# ---- what is refused


def of_before(path):
    """Parts as they were before they kept the header."""
    for part in parts(path):
        table = pq.read_table(part).replace_schema_metadata(None)
        part.unlink()
        pq.write_table(table, part.with_name(f"{part.name[:20]}-0123abcd.parquet"))
