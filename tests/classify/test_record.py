from dataclasses import replace

import numpy as np
import pytest
from saved_runs import named

from diffjax.classify.record import Record
from diffjax.data.prompts import Prompts
from diffjax.strategies.base import ErrorTable, class_differences, run
from diffjax.strategies.interpolation import interpolate
from diffjax.strategies.racing import Racing
from diffjax.strategies.staged import Staged

RNG = np.random.default_rng(0)


def record(errors, to_keep=(2, 1), n_samples=(4, 16), temperature=0.1, classidx=None):
    strategy = Staged(to_keep=to_keep, n_samples=n_samples, order="nested")
    state = run(
        strategy, len(errors), 16, lambda _, r: errors[np.ix_(r.classes, r.samples)]
    )
    rows = np.arange(len(errors)) if classidx is None else classidx
    return Record(
        pixels=np.zeros((4, 4, 3), np.float32),
        prompts=Prompts(
            prompts=tuple(f"prompt {p}" for p in range(len(errors))),
            classidx=tuple(rows.tolist()),
            class_names=tuple(f"class {c}" for c in range(rows.max() + 1)),
        ),
        samples=state.samples,
        table=state.table,
        prompt_decision=strategy.decide(state),
        temperature=temperature,
        seconds=1.0,
    )


def table(means, spread=0.01):
    shared = RNG.standard_normal((1, 16))
    own = spread * RNG.standard_normal((len(means), 16))
    return (np.array(means)[:, None] + shared + own).astype(np.float32)


def test_scores_are_a_softmax_of_paired_differences():
    errors = table([0.0, 0.1, 0.3])
    r = record(errors, to_keep=(3, 1))
    delta, se = r.differences()
    np.testing.assert_allclose(delta, (errors - errors[0]).mean(axis=1), atol=1e-6)
    assert se[0] == 0
    assert (se[1:] < 0.02).all()  # the shared part, a hundred times larger, is gone
    odds = np.exp(-delta / 0.1)
    by_label = {entry["label"]: entry["score"] for entry in r.scores()}
    np.testing.assert_allclose(
        list(by_label.values()), np.sort(odds / odds.sum())[::-1]
    )


def test_a_low_temperature_decides_and_a_high_one_does_not():
    errors = table([0.0, 0.1, 0.3])
    sharp = record(errors, to_keep=(3, 1), temperature=1e-4).scores()
    flat = record(errors, to_keep=(3, 1), temperature=1e4).scores()
    assert sharp[0]["score"] == pytest.approx(1)
    assert flat[0]["score"] == pytest.approx(1 / 3, rel=1e-3)


def test_a_pruned_class_never_scores_above_one_that_outlived_it():
    errors = table([0.0, 0.5, 0.52, 1.0])
    # the class that is pruned third would look better than the second on its samples
    strategy = Staged(to_keep=(2, 1), n_samples=(4, 16), order="nested")
    first = strategy.start(4, 16).samples.timesteps[:4]
    assert len(first) == 4
    errors[1, 4:] += 5  # in the order of the run's samples: after the first stage
    scores = record(errors, temperature=1.0).scores()
    assert [entry["label"] for entry in scores] == [f"class {c}" for c in range(4)]
    assert [entry.get("pruned") for entry in scores] == [None, None, True, True]
    assert scores[1]["score"] < 0.02
    assert scores[2]["score"] <= scores[1]["score"]
    assert [entry.get("n_samples") for entry in scores] == [None, None, 4, 4]


@pytest.mark.parametrize("seed", range(20))
def test_scores_never_rise(seed):
    errors = np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)
    scores = record(errors / 10, to_keep=(3, 1), temperature=0.03).scores()
    values = [entry["score"] for entry in scores]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)


def test_a_class_is_compared_with_the_one_that_had_it_dropped():
    """The leader of the beginning loses to the winner, whom the dropped class beat."""
    strategy = Racing(n_samples=64, confidence=0.9, floor=8)
    order = strategy.start(3, 64).samples.timesteps
    errors = np.zeros((3, 64))
    errors[0, :] = 0.5 + 0.01 * RNG.standard_normal(64)  # leads, and is overtaken
    errors[1, order[:8]] = 1.3 + np.array([1, 1, -1, -1, -1, -1, 1, 1])
    errors[1, order[8:]] = -2
    errors[2, :] = 1.25  # dropped, of which the first is sure
    state = run(
        strategy, 3, 64, lambda s, r: errors[np.ix_(r.classes, order[r.samples])]
    )
    r = replace(
        record(table([0, 0, 0])),
        samples=state.samples,
        table=state.table,
        prompt_decision=strategy.decide(state),
    )
    n = int(r.decision.n_samples[2])
    assert r.decision.winner == 1 and r.decision.pruned[2] and n == 8
    seen = errors[:, order[:n]]
    assert seen[2].mean() < seen[1].mean(), "nothing to see: the winner led already"
    mean, error = r.differences()
    assert mean[1] == error[1] == 0
    d = seen[2] - seen[0]
    line = interpolate(order, n, np.full(64, 1 / 64))
    np.testing.assert_allclose(mean[2], line.mean(d[None])[0], rtol=1e-6)
    # its own noise, and some of its rival's
    own, rivals = line.variance(seen[[2, 1]] - seen[0])
    lent = 3 * (2 - 1) / (2 + 3)
    variance = (own + lent * (own + rivals) / 2) / (1 + lent)
    np.testing.assert_allclose(error[2], np.sqrt(variance * line.error), rtol=1e-4)
    told = r.as_dict()["errors"][2]
    assert told["difference"] == mean[2] and told["standard_error"] == error[2]


@pytest.mark.parametrize("seed", range(10))
def test_no_class_is_better_than_the_best_on_what_it_has_seen(seed):
    rng = np.random.default_rng(seed)
    errors = rng.standard_normal((12, 64)) + rng.random((12, 1)) / 2
    strategy = Racing(n_samples=64, confidence=0.5)
    order = strategy.start(12, 64).samples.timesteps
    state = run(
        strategy, 12, 64, lambda s, r: errors[np.ix_(r.classes, order[r.samples])]
    )
    decision = strategy.decide(state)
    winner = decision.winner
    mean, error = class_differences(state.table, decision)
    dropped = decision.pruned & (decision.n_samples < 64)
    assert dropped.any() and (mean[dropped] > 1.5 * error[dropped]).all()
    paired = state.table.difference(state.table.leaders(winner))
    assert (paired.mean >= 0).all() and paired.mean[winner] == 0
    living = state.living
    alone = state.table.difference(winner).mean
    np.testing.assert_array_equal(paired.mean[living], alone[living])


def test_the_best_prompt_represents_its_class():
    errors = table([0.4, 0.2, 0.0, 0.3])
    r = record(errors, to_keep=(4, 1), classidx=np.array([0, 1, 1, 0]))
    assert r.label == "class 1"
    np.testing.assert_array_equal(r.errors, errors[[3, 2]])


def test_errors_by_timestep_average_the_trials():
    strategy = Staged(to_keep=(1,), n_samples=(3,), n_trials=2)
    errors = RNG.standard_normal((2, 6)).astype(np.float32)
    state = run(strategy, 2, 9, lambda _, r: errors)
    r = Record(
        pixels=np.zeros((4, 4, 3), np.float32),
        prompts=named("ab"),
        samples=state.samples,
        table=ErrorTable(errors),
        prompt_decision=strategy.decide(state),
        temperature=1.0,
        seconds=0.0,
    )
    timesteps, means = r.by_timestep()
    assert len(timesteps) == 3
    np.testing.assert_allclose(means, errors.reshape(2, 3, 2).mean(-1), rtol=1e-6)


def test_unseen_cells_stay_unknown():
    r = record(table([0.0, 0.1, 0.9]))
    _, means = r.by_timestep()
    assert np.isnan(means[2]).sum() == 12
    assert r.as_dict()["errors"][2]["by_timestep"].count(None) == 12


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1e3])
def test_scores_at_extreme_temperatures(temperature):
    errors = RNG.standard_normal((300, 16)).astype(np.float32)
    r = record(errors, to_keep=(5, 1), temperature=temperature)
    values = [entry["score"] for entry in r.scores()]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 for value in values)
    assert sum(values) == pytest.approx(1)
