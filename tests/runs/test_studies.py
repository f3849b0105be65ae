"""The paper's studies, on tables of errors whose answers are known."""

import csv

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import write_run

from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.runs.studies import (
    Errors,
    read_errors,
    samples,
    timestep,
    variance,
)

T, K, C, N = 6, 4, 3, 150


def made_up(seed=0, gap=0.5, noise=0.1):
    """Errors with a large part that all classes share, and a small one of their own.

    The label is better by ``gap``, at the middle timesteps alone.
    """
    random = np.random.default_rng(seed)
    labels = random.integers(C, size=N)
    values = random.normal(size=(N, 1, T, K)) + noise * random.normal(size=(N, C, T, K))
    values[np.arange(N), labels, 2:4] -= gap
    timesteps = np.array([50, 250, 450, 550, 750, 950])
    return Errors(values=values, timesteps=timesteps, labels=labels, n_timesteps=1000)


def test_shared_noise_cancels_in_differences():
    found = variance(made_up())
    np.testing.assert_allclose(found["sd_of_errors"], 1, rtol=0.15)
    np.testing.assert_allclose(found["sd_of_differences"], 0.1 * np.sqrt(2), rtol=0.15)
    np.testing.assert_allclose(
        found["ratio"],
        np.array(found["sd_of_errors"]) / found["sd_of_differences"],
    )


def test_one_noise_has_no_spread():
    errors = made_up()
    one = Errors(
        values=errors.values[..., :1],
        timesteps=errors.timesteps,
        labels=errors.labels,
        n_timesteps=1000,
    )
    with pytest.raises(DiffjaxError, match="two noises per timestep or more"):
        variance(one)


def test_only_timesteps_that_tell_classes_apart_are_accurate():
    found = timestep(made_up())
    assert found["timestep"] == [50, 250, 450, 550, 750, 950]
    accuracy = np.array(found["accuracy"])
    assert (accuracy[2:4] == 1).all()
    assert (accuracy[[0, 1, 4, 5]] < 0.7).all()
    assert all(
        low <= a <= high
        for low, a, high in zip(found["low"], accuracy, found["high"], strict=True)
    )


def test_where_samples_lie_decides_how_many_are_needed():
    # so little that only many samples tell, and nothing away from the middle
    table = samples(made_up(gap=0.15, noise=0.2))
    where, n = np.array(table["where"]), np.array(table["samples"])
    accuracy = np.array(table["accuracy"])
    for way, most in {"even": T * K, "single": K, "centred": T * K}.items():
        assert n[where == way].min() == 1 and n[where == way].max() == most
    assert table["evaluations"] == (n * C).tolist()
    # all samples are all samples, in whatever order
    [even] = accuracy[(where == "even") & (n == T * K)]
    [centred] = accuracy[(where == "centred") & (n == T * K)]
    [weighted] = accuracy[(where == "weighted") & (n == T * K)]
    assert even == centred
    assert weighted > even + 0.05
    few = (n >= 4) & (n <= 8)
    assert (
        accuracy[few & (where == "centred")].mean()
        > accuracy[few & (where == "even")].mean()
    )


def test_what_is_always_right_has_no_weights():
    with pytest.warns(UserWarning, match="no weights over timesteps: No temperature"):
        table = samples(made_up(gap=5.0, noise=0.01))
    assert set(table["where"]) == {"even", "single", "centred"}


def write_trials(path, values, labels, **columns):
    """A run of T timesteps and K noises, shuffled as a strategy may order them."""
    n, C, T, K = values.shape
    order = np.random.default_rng(1).permutation(T * K)
    return write_run(
        path,
        values.reshape(n, C, T * K)[:, :, order].astype(np.float32),
        labels,
        columns={
            "timesteps": [(order // K * 10).astype(np.int32)] * n,
            "noises": [order.astype(np.int32)] * n,
        }
        | columns,
        n_timesteps=100,
    )


def test_errors_are_read_in_the_order_of_timesteps_and_noises(tmp_path):
    errors = made_up()
    run = write_trials(tmp_path / "run", errors.values, errors.labels)
    read = read_errors(run)
    np.testing.assert_allclose(read.values, errors.values, rtol=1e-6)
    np.testing.assert_array_equal(read.timesteps, np.arange(T) * 10)
    np.testing.assert_array_equal(read.labels, errors.labels)


def test_a_run_that_pruned_is_refused(tmp_path):
    errors = made_up()
    saved = np.ones((N, C * T * K), np.float32)
    saved[3, 5] = np.nan
    run = write_trials(tmp_path / "run", errors.values, errors.labels, errors=saved)
    with pytest.raises(DiffjaxError, match="not every class was evaluated"):
        read_errors(run)


def test_several_prompts_a_class_are_refused(tmp_path):
    errors = made_up()
    values = errors.values.reshape(N, C, T * K).astype(np.float32)
    run = write_run(tmp_path / "run", values, errors.labels % 2, classidx=[0, 1, 1])
    with pytest.raises(DiffjaxError, match="3 prompts for 2 classes"):
        read_errors(run)


@pytest.mark.parametrize("study", ["variance", "timestep", "samples"])
def test_the_command_writes_a_table_and_a_figure(study, tmp_path):
    errors = made_up(gap=0.15, noise=0.2)
    write_trials(tmp_path / "run", errors.values, errors.labels)
    out = tmp_path / "out"
    done = CliRunner().invoke(
        group, ["study", study, str(tmp_path / "run"), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert (out / f"{study}.png").read_bytes().startswith(b"\x89PNG")
    with (out / f"{study}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= T and all(all(row.values()) for row in rows)
