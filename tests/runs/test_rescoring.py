import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import tables, write_run

from diffjax.cli.commands import group
from diffjax.cli.rescore import rescore as rescore_command
from diffjax.errors import DiffjaxError
from diffjax.runs import weights as weights_module
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import summary
from diffjax.runs.outcomes import outcomes
from diffjax.runs.rescoring import agreement, rescore, write_rescored
from diffjax.runs.weights import (
    Labelled,
    Saved,
    Weights,
    learned,
    weights_by_name,
)
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.staged import Staged

STAGED = Staged(to_keep=(3, 2, 1), n_samples=(4, 8, 16), order="nested")


def assert_same_decisions(rescored, run):
    """Everything about the decision is as in the run, to the bit."""
    before = [row for row in run.rows.to_pylist() if row["error"] is None]
    rows = rescored.good
    assert [row["index"] for row in rows] == [row["index"] for row in before]
    for row, old in zip(rows, before, strict=True):
        for column in ("prediction", "evaluations"):
            assert row[column] == old[column]
        for column in ("ranking", "n_samples"):
            assert list(row[column]) == old[column]
        for column in ("differences", "standard_errors"):
            np.testing.assert_array_equal(
                np.asarray(row[column], np.float32), np.float32(old[column])
            )
        assert np.float32(row["margin"]) == np.float32(old["margin"])


@pytest.mark.parametrize(
    "strategy",
    [
        Exhaustive(n_samples=16),
        STAGED,
        Staged(to_keep=(3, 1), n_samples=(5, 16)),  # stages that overlap
        Staged(to_keep=(4, 2, 1), n_samples=(4, 8, 16), n_trials=2),
    ],
)
@pytest.mark.parametrize("classidx", [None, [0, 1, 2, 2, 1, 0, 3]])
def test_without_changes_the_decisions_are_the_runs_own(tmp_path, strategy, classidx):
    P = 6 if classidx is None else len(classidx)
    errors, rows = tables(20, P, 16)
    labels = rows if classidx is None else np.array(classidx)[rows]
    run = write_run(
        tmp_path / "run",
        errors,
        labels,
        strategy=strategy,
        classidx=classidx,
        failed=[20],
    )
    rescored = rescore(run)
    assert_same_decisions(rescored, run)
    assert agreement(rescored) == 1
    assert [row["error"] for row in rescored.rows] == [None] * 20 + ["broken"]


@pytest.mark.parametrize("strategy", [STAGED, Exhaustive(n_samples=16)])
def test_a_strategy_replayed_on_an_exhaustive_run(tmp_path, strategy):
    """… decides as it would have with the model."""
    errors, labels = tables(20, 6, 16)
    everything = write_run(tmp_path / "a", errors, labels)
    asked = write_run(tmp_path / "b", errors, labels, strategy=strategy)
    assert_same_decisions(rescore(everything, strategy=strategy), asked)


def test_a_staged_run_replayed_by_its_own_strategy(tmp_path):
    errors, labels = tables(20, 6, 16)
    run = write_run(tmp_path / "run", errors, labels, strategy=STAGED)
    assert_same_decisions(rescore(run, strategy=STAGED), run)


def test_fewer_samples_take_every_so_many(tmp_path):
    errors, labels = tables(20, 4, 50, gap=0.02)
    run = write_run(tmp_path / "run", errors, labels)
    rescored = rescore(run, strategy=Exhaustive(n_samples=10))
    assert {row["evaluations"] for row in rescored.rows} == {40}
    chosen = errors[:, :, 2::5].astype(np.float64)
    np.testing.assert_array_equal(
        [row["prediction"] for row in rescored.rows], chosen.mean(axis=2).argmin(axis=1)
    )
    assert 0 < agreement(rescored) < 1


def test_samples_are_sorted_by_timestep_and_noise(tmp_path):
    """A run that keeps its samples in another order replays the same."""
    errors, labels = tables(10, 4, 16)
    order = np.random.default_rng(1).permutation(16)
    run = write_run(tmp_path / "a", errors, labels)
    columns = {
        "timesteps": [order // 2] * 10,
        "noises": [order % 2] * 10,
        "errors": [table[:, order].ravel() for table in errors],
    }
    mixed = write_run(tmp_path / "b", errors, labels, columns=columns)
    strategy = Staged(to_keep=(2, 1), n_samples=(4, 8), order="nested")
    assert_same_decisions(
        rescore(mixed, strategy=strategy),
        write_run(tmp_path / "c", errors, labels, strategy=strategy),
    )
    assert run.prompts == mixed.prompts


def test_a_cell_that_was_not_evaluated_is_an_error(tmp_path):
    errors, labels = tables(5, 6, 16)
    run = write_run(tmp_path / "run", errors, labels, strategy=STAGED)
    with pytest.raises(DiffjaxError, match="--strategy exhaustive and --save-errors"):
        rescore(run, strategy=Exhaustive(n_samples=16))


def test_what_cannot_be_rescored_is_refused(tmp_path):
    errors, labels = tables(5, 3, 8)
    run = write_run(tmp_path / "a", errors, labels)
    with pytest.raises(DiffjaxError, match="8 samples saved of image image 0"):
        rescore(run, strategy=Exhaustive(n_samples=9))
    with pytest.raises(DiffjaxError, match="n_trials"):
        rescore(run, strategy=Exhaustive(n_samples=4, n_trials=2))
    with pytest.raises(DiffjaxError, match=r"no loss in .* 'l1'; choose one of l2"):
        rescore(run, loss="l1")
    with pytest.raises(DiffjaxError, match="no weights 'heavy'"):
        rescore(run, weights="heavy")
    bare = write_run(tmp_path / "b", errors, labels, save_errors=False)
    with pytest.raises(DiffjaxError, match="--save-errors"):
        rescore(bare)


def test_another_loss(tmp_path):
    errors, labels = tables(10, 4, 8)
    other, _ = tables(10, 4, 8, seed=1)
    run = write_run(tmp_path / "a", errors, labels, also={"l1": other})
    assert_same_decisions(
        rescore(run, loss="l1"), write_run(tmp_path / "b", other, labels)
    )
    assert_same_decisions(rescore(run, loss="l2"), run)


# ---- weights


def images(errors, labels, timesteps=None):
    T = errors.shape[2] if timesteps is None else len(timesteps)
    timesteps = np.arange(T) if timesteps is None else timesteps
    return [
        Labelled(
            saved=Saved(timesteps=timesteps, noises=np.arange(T), errors=table),
            rows=np.arange(len(table)),
            label=int(label),
        )
        for table, label in zip(errors, labels, strict=True)
    ]


def test_fixed_weights_by_hand():
    rng = np.random.default_rng(0)
    sd = np.array([1.0, 2.0, 4.0, 8.0])
    errors = (5 + sd * rng.standard_normal((500, 3, 4))).astype(np.float32)
    errors[::2, 1, 3] = np.nan  # pruned
    some = images(errors, np.zeros(500))
    assert weights_by_name("uniform", some, 4).by_timestep.tolist() == [[1] * 4]
    np.testing.assert_allclose(
        weights_by_name("exp", some, 4).by_timestep[0],
        np.exp([0, -7 / 4, -14 / 4, -21 / 4]),
    )
    by_sd = weights_by_name("inverse-sd", some, 6).by_timestep[0]
    expected = 1 / np.nanstd(errors.astype(np.float64), axis=(0, 1), ddof=1)
    np.testing.assert_allclose(by_sd, [*expected, 0, 0], rtol=1e-9)


def test_constant_errors_have_no_inverse_sd():
    with pytest.raises(DiffjaxError, match="do not vary"):
        weights_by_name(
            "inverse-sd", images(np.ones((3, 2, 4), np.float32), [0] * 3), 4
        )


def test_weights_have_a_mean_of_one():
    weights = Weights(
        by_timestep=np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 1.0]]),
        which=np.array([0, 1]),
    )
    noises = np.array([4, 5, 6])
    assert weights.of(0, np.array([0, 1, 1]), noises).tolist() == [0.6, 1.2, 1.2]
    by_sample = replace(weights, by_sample={(1, 5): 4.0})
    found = by_sample.of(0, np.array([0, 1, 1]), noises)
    assert found == pytest.approx(np.array([3, 24, 6]) / 11)
    with pytest.raises(DiffjaxError, match="weight 0"):
        weights.of(1, np.array([0, 1]), noises[:2])


@pytest.mark.parametrize("strategy", [None, STAGED])
def test_weights_weigh(tmp_path, strategy):
    """Errors that are scaled in advance decide as weights do."""
    errors, labels = tables(20, 6, 16)
    w = np.exp(-7 * np.arange(16) / 16)
    run = write_run(tmp_path / "a", errors, labels)
    scaled = write_run(
        tmp_path / "b",
        errors * w,
        labels,
        strategy=strategy or Exhaustive(n_samples=16),
    )
    rows = rescore(run, weights="exp", strategy=strategy).good
    found = outcomes(scaled)
    assert [list(row["ranking"]) for row in rows] == found.rankings.tolist()
    assert agreement(rescore(run, weights="exp")) < 1


def informative_band(n, seed=0, T=50):
    """Only the timesteps 20 to 29 tell the classes apart; all have the same noise."""
    errors, labels = tables(n, 4, T, seed=seed, gap=0.0)
    errors[np.arange(n), labels, 20:30] -= np.float32(0.06)
    return errors, labels


def test_learned_weights_find_the_informative_timesteps(tmp_path):
    errors, labels = informative_band(800)
    found = learned(images(errors, labels), 50, n_folds=5, n_bins=10)
    by_bin = found.by_timestep[:, ::5]
    np.testing.assert_array_equal(found.by_timestep, np.repeat(by_bin, 5, axis=1))
    inside = by_bin[:, 4:6].mean(axis=1)
    outside = np.delete(by_bin, [4, 5], axis=1).mean(axis=1)
    assert (inside > 4 * outside).all()
    run = write_run(tmp_path / "run", errors, labels)
    rows = rescore(run, weights="learned").good
    accuracy = np.mean([row["prediction"] == row["label"] for row in rows])
    assert accuracy > summary(run)["metrics"]["acc1"] + 0.1


def test_an_image_has_no_say_in_its_own_weights():
    errors, labels = informative_band(60)
    before = learned(images(errors, labels), 50, n_folds=3, n_bins=5)
    changed = labels.copy()
    changed[7] = (labels[7] + 1) % 4
    after = learned(images(errors, changed), 50, n_folds=3, n_bins=5)
    own = before.which[7]
    np.testing.assert_array_equal(before.by_timestep[own], after.by_timestep[own])
    others = np.delete(np.arange(3), own)
    assert (before.by_timestep[others] != after.by_timestep[others]).any(axis=1).all()
    assert sorted(np.bincount(before.which)) == [20, 20, 20]


def test_few_images_leave_weights_nearly_uniform():
    errors, labels = informative_band(20)
    few = learned(images(errors, labels), 50, n_folds=2, n_bins=10).by_timestep
    errors, labels = informative_band(800)
    many = learned(images(errors, labels), 50, n_folds=2, n_bins=10).by_timestep
    assert np.ptp(few) < 0.5 * np.ptp(many)


def test_the_gradient_of_learning(monkeypatch):
    """L-BFGS-B is given the slope of the function that it is given."""
    from scipy.optimize import approx_fprime

    rng = np.random.default_rng(0)
    excess = 0.1 + rng.standard_normal((30, 3, 4))
    excess[:10, 2] = np.inf
    seen = {}

    def minimize(function, start, **settings):
        v = start + rng.random(4)
        seen["slopes"] = function(v)[1], approx_fprime(v, lambda x: function(x)[0])
        raise KeyboardInterrupt

    monkeypatch.setattr("scipy.optimize.minimize", minimize)
    with pytest.raises(KeyboardInterrupt):
        weights_module.learn(excess)
    np.testing.assert_allclose(*seen["slopes"], rtol=1e-4, atol=1e-6)


def test_pruned_classes_and_strange_labels_teach_nothing(tmp_path):
    """Learning from a staged run is learning among the classes that saw everything."""
    errors, labels = informative_band(120)
    errors[::3, :2, 30:] = np.nan
    labels[1::3] = -1
    pruned = images(errors, labels)
    found = learned(pruned, 50, n_folds=2, n_bins=5)
    kept = []
    for image in pruned:
        complete = ~np.isnan(image.saved.errors).any(axis=1)
        if image.label < 0 or not complete[image.label]:
            # the same number of images, so that the folds are the same
            kept.append(Labelled(saved=image.saved, rows=image.rows, label=-1))
            continue
        new = np.flatnonzero(complete).tolist().index(image.label)
        errors = image.saved.errors[complete]
        saved = Saved(
            timesteps=image.saved.timesteps, noises=image.saved.noises, errors=errors
        )
        kept.append(Labelled(saved=saved, rows=np.arange(len(errors)), label=new))
    again = learned(kept, 50, n_folds=2, n_bins=5)
    np.testing.assert_allclose(found.by_timestep, again.by_timestep, rtol=1e-6)


def test_too_little_to_learn_from_is_refused():
    errors, labels = informative_band(10)
    for folds, bins, message in [
        (11, 5, "cannot be cut"),
        (1, 5, "cannot be cut"),
        (2, 51, "51 bins"),
    ]:
        with pytest.raises(DiffjaxError, match=message):
            learned(images(errors, labels), 50, n_folds=folds, n_bins=bins)
    with pytest.raises(DiffjaxError, match="--strategy exhaustive"):
        learned(images(errors, [-1] * 10), 50, n_folds=2, n_bins=5)


# ---- a run of its own, and the command


def test_a_rescored_run_is_a_run(tmp_path):
    errors, labels = tables(20, 6, 16)
    classes = [1, 2, 3, 5, 6, 7]
    run = write_run(
        tmp_path / "a",
        errors,
        np.array(classes)[labels],
        classes=classes,
        n_names=9,
        failed=[20],
        columns={"thumbnail": [b"jpeg"] * 20},
    )
    new = write_rescored(rescore(run, strategy=STAGED), tmp_path / "b")
    header = new.header["experiment"]
    assert header["strategy"] == strategy_to_dict(STAGED)
    assert header["derived_from"] == str(tmp_path / "a")
    assert header["loss"] == "l2" and header["weights"] == "uniform"
    assert not new.has_errors
    stored = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert stored == json.loads(json.dumps(summary(new)))
    assert stored["failed_images"] == 1 and stored["seconds_per_image"] is None
    for row in new.rows.to_pylist()[:20]:
        assert (row["thumbnail"] is None) == (row["prediction"] == row["label"])
    with pytest.raises(DiffjaxError, match="exists"):
        write_rescored(rescore(run), tmp_path / "b")


def invoke(*args):
    return CliRunner().invoke(group, [str(arg) for arg in args])


def test_the_command_compares(tmp_path):
    errors, labels = tables(30, 4, 20, gap=0.03)
    run = write_run(tmp_path / "run", errors, labels)
    done = invoke(
        *("rescore", run.path, "--strategy", "exhaustive:n_samples=5"),
        *("--weights", "exp", "--out", tmp_path / "new", "--json"),
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    new = summary(read_run(tmp_path / "new"))
    assert result["before"]["acc1"] == summary(run)["metrics"]["acc1"]
    assert result["after"]["acc1"] == new["metrics"]["acc1"]
    assert result["before"]["evaluations_per_image"] == 80
    assert result["after"]["evaluations_per_image"] == 20
    assert 0 < result["agreement"] < 1
    assert result["settings"]["weights"] == "exp"

    shown = invoke("rescore", run.path).stdout
    accuracy = f"{result['before']['acc1']:.1%}".removesuffix("%")
    assert shown.count(accuracy) == 2 and "100.0 %" in shown


def test_the_command_shows_learned_weights(tmp_path):
    errors, labels = informative_band(60)
    run = write_run(tmp_path / "run", errors, labels)
    args = ("rescore", run.path, "--weights", "learned", "--folds", "2", "--bins", "5")
    result = json.loads(invoke(*args, "--json").stdout)
    assert len(result["learned_weights"]) == 5
    assert np.mean(result["learned_weights"]) == pytest.approx(1)
    assert np.argmax(result["learned_weights"]) == 2
    assert "20–29" in invoke(*args).stdout


def test_the_command_refuses(tmp_path):
    errors, labels = tables(3, 4, 4)
    run = write_run(tmp_path / "run", errors, labels, save_errors=False)
    for args in [(tmp_path,), (run.path,)]:
        done = invoke("rescore", *args)
        assert done.exit_code == 2 and done.stderr.startswith("error: ")


def test_choices_are_those_of_the_package():
    chosen = {p.name: p for p in rescore_command.params}
    assert tuple(chosen["weights"].type.choices) == weights_module.WEIGHTS
    assert chosen["n_folds"].default == weights_module.N_FOLDS
    assert chosen["n_bins"].default == weights_module.N_BINS
