"""Runs made of tables of errors, as `diffjax evaluate` would have written them."""

from dataclasses import replace

import numpy as np

from diffjax.classify.progress import Progress
from diffjax.data.prompts import Prompts
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.outcomes import decision_columns
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.base import ErrorTable
from diffjax.strategies.base import run as run_strategy
from diffjax.strategies.exhaustive import Exhaustive


def named(labels):
    """Prompts that are the labels themselves."""
    labels = tuple(labels)
    return Prompts(
        prompts=labels, classidx=tuple(range(len(labels))), class_names=labels
    )


def kept(tallies):
    """A progress that keeps a copy of itself at first and whenever an image is done."""

    def watch(now):
        if not tallies or tallies[-1].done != now.done:
            tallies.append(replace(now))

    return Progress(watch=watch)


def write_run(
    path,
    errors,
    labels,
    *,
    strategy=None,
    classidx=None,
    classes=None,
    n_names=None,
    n_timesteps=None,
    also=None,
    failed=(),
    save_errors=True,
    names=None,
    header=None,
    columns=None,
):
    """A run whose image i has the errors [P, T] of table i at all T timesteps.

    also: further losses with their tables [n, P, T]; failed: indices of rows that
    report an error beside those of the tables; names: of the data set's classes;
    header: {part: {key: value}} that differ; columns: {name: n values} that differ.
    """
    n, P, T = errors.shape
    classidx = np.arange(P) if classidx is None else np.asarray(classidx)
    C = int(classidx.max()) + 1
    classes = np.arange(C) if classes is None else np.asarray(classes)
    n_names = int(classes.max()) + 1 if n_names is None else n_names
    strategy = Exhaustive(n_samples=T) if strategy is None else strategy
    also = {} if also is None else also
    names = names or [f"class {c}" for c in range(n_names)]
    prompts = Prompts(
        prompts=tuple(f"prompt {p}" for p in range(P)),
        classidx=tuple(classidx.tolist()),
        class_names=tuple(names[c] for c in classes),
    )
    changes = header or {}
    header = {
        "format": 1,
        "experiment": {
            "dataset": "made",
            "loss": "l2",
            "also": list(also),
            "strategy": strategy_to_dict(strategy),
            "temperature": 0.1,
        },
        "model": {
            "name": "small",
            "fingerprint": "0" * 16,
            "kind": "text",
            "n_timesteps": T if n_timesteps is None else n_timesteps,
        },
        "data": {"name": "made", "split": "test", "fingerprint": "1" * 16, "n": n},
        "class_names": names,
        "classes": classes.tolist(),
        "environment": {},
        "created": "2024-01-01T00:00:00+00:00",
    }
    for part, values in changes.items():
        header[part] = header.get(part, {}) | values
    with open_run(path, header, prompts, save_errors=save_errors) as writer:
        for i, (table, label) in enumerate(zip(errors, labels, strict=True)):
            row = {"index": i, "id": f"image {i}", "label": int(label), "seconds": 1.0}
            row |= decided(table, strategy, T, classidx, classes, save_errors)
            for loss, tables in also.items():
                other = decided(tables[i], strategy, T, classidx, classes, save_errors)
                row[f"prediction_{loss}"] = other["prediction"]
                if save_errors:
                    row[f"errors_{loss}"] = other["errors"]
            row |= {name: values[i] for name, values in (columns or {}).items()}
            writer.add(row)
        for i in failed:
            writer.add({"index": i, "id": f"image {i}", "label": 0, "error": "broken"})
    return read_run(path)


def decided(table, strategy, T, classidx, classes, save_errors):
    def evaluate(state, request):
        timesteps = state.samples.timesteps[request.samples]
        return table[np.ix_(request.classes, timesteps)].astype(np.float32)

    state = run_strategy(strategy, len(table), T, evaluate, classidx)
    seen = state.table.errors
    row = decision_columns(ErrorTable(seen), strategy.decide(state), classidx, classes)
    if save_errors:
        row |= {
            "timesteps": state.samples.timesteps,
            "noises": state.samples.noises,
            "errors": seen.ravel(),
        }
    return row


def tables(n, P, T, *, seed=0, gap=0.05, noise=0.1):
    """Errors [n, P, T] float32 in which row y of image i is smaller by ``gap``, and y.

    Most of the noise is shared by the rows, as it is by classes.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, P, n)
    shared = 1 + rng.standard_normal((n, 1, T))
    own = noise * rng.standard_normal((n, P, T))
    errors = (shared + own).astype(np.float32)
    errors[np.arange(n), labels] -= np.float32(gap)
    return errors, labels
