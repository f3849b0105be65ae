"""Weights of samples: every strategy compares weighted means, and keeps raw errors."""

import numpy as np
import pytest

from diffjax.strategies.base import (
    ErrorTable,
    Samples,
    class_differences,
    rank,
    run_on,
    weigh,
)
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import shorten
from diffjax.strategies.staged import Staged

N, C = 32, 6
STRATEGIES = [
    Exhaustive(n_samples=N),
    Staged(to_keep=(4, 2, 1), n_samples=(4, 8, N), order="nested"),
    Staged(to_keep=(4, 2, 1), n_samples=(5, 12, N)),  # stages that overlap
    Racing(n_samples=N, confidence=0.9),
]


def weighted_run(strategy, table, weights):
    """A run on errors [C, T], with the weights of timesteps."""

    def evaluate(state, request):
        return table[np.ix_(request.classes, state.samples.timesteps[request.samples])]

    state = strategy.start(len(table), table.shape[1])
    w = None if weights is None else weights[state.samples.timesteps]
    return run_on(strategy, weigh(state, w), evaluate)


def made(seed, gap=0.3):
    rng = np.random.default_rng(seed)
    shared = 10 * rng.standard_normal(N)
    own = rng.standard_normal((C, N)) + gap * np.arange(C)[:, None]
    weights = rng.gamma(1.0, size=N)
    return (own + shared).astype(np.float32), weights / weights.mean()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_means_differences_and_ranking_are_the_weighted_ones(strategy):
    for seed in range(20):
        table, weights = made(seed)
        state = weighted_run(strategy, table, weights)
        decision = strategy.decide(state)
        t = state.samples.timesteps
        np.testing.assert_array_equal(state.samples.weights, weights[t])
        seen = ~np.isnan(state.table.errors)
        for c in range(C):  # by hand, from the raw errors that the table keeps
            ours = t[seen[c]]
            np.testing.assert_array_equal(
                state.table.errors[c, seen[c]], table[c, ours]
            )
            mean = np.average(table[c, ours].astype(float), weights=weights[ours])
            np.testing.assert_allclose(decision.mean_error[c], mean, rtol=1e-12)
        alive = np.flatnonzero(~decision.pruned)
        best = alive[np.argsort(decision.mean_error[alive], kind="stable")]
        assert decision.ranking[: len(alive)].tolist() == best.tolist()
        mean, _ = class_differences(state.table, decision)
        w = decision.winner
        # a drop rests on what was known then, and of a race on an estimate
        whole = ~decision.pruned & (decision.n_samples == decision.n_samples[w])
        deltas = decision.mean_error - decision.mean_error[w]
        np.testing.assert_allclose(mean[whole], deltas[whole], atol=1e-9)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: type(s).__name__)
def test_ones_and_any_scale_change_nothing(strategy):
    table, weights = made(3)
    plain = strategy.decide(weighted_run(strategy, table, None))
    ones = strategy.decide(weighted_run(strategy, table, np.ones(N)))
    for one, other in zip(vars(plain).values(), vars(ones).values(), strict=True):
        np.testing.assert_array_equal(one, other)
    once = strategy.decide(weighted_run(strategy, table, weights))
    twice = strategy.decide(weighted_run(strategy, table, 2 * weights))
    assert once.ranking.tolist() == twice.ranking.tolist()
    assert once.n_evaluations == twice.n_evaluations


def test_a_race_agrees_with_all_weighted_samples_as_often_as_it_says():
    agree = []
    for seed in range(300):
        table, weights = made(seed)
        decision = rank(weighted_run(STRATEGIES[-1], table, weights))
        everything = np.average(table.astype(float), axis=1, weights=weights)
        agree.append(decision.winner == everything.argmin())
    assert np.mean(agree) >= 0.9


def test_the_standard_error_is_that_of_a_weighted_mean():
    """Against the spread of weighted means over tables that are drawn again."""
    rng = np.random.default_rng(0)
    weights = rng.gamma(2.0, size=200)
    draws = rng.standard_normal((4000, 200))
    spread = np.average(draws, axis=1, weights=weights).std()
    errors = np.stack([np.zeros(200), draws[0]]).astype(np.float32)
    paired = ErrorTable(errors, weights / weights.mean()).difference(0)
    assert paired.standard_error[1] == pytest.approx(spread, rel=0.15)


@pytest.mark.filterwarnings("error")
def test_samples_of_no_weight_say_nothing():
    weights = np.zeros(N)
    weights[-1] = N
    table, _ = made(1)
    table[:, -1] = np.arange(C)
    for strategy in STRATEGIES:
        decision = strategy.decide(weighted_run(strategy, table, weights))
        assert decision.winner == 0
    nothing = ErrorTable(np.ones((2, 3), np.float32), np.zeros(3)).difference(0)
    assert nothing.mean.tolist() == [0, 0] and nothing.standard_error[1] == np.inf


def test_a_control_variate_leaves_the_weighted_mean_as_it_is():
    table, weights = made(2)
    strategy = Exhaustive(n_samples=N)
    state = weigh(strategy.start(C, N), weights)
    guess = table + np.random.default_rng(0).normal(0, 0.1, table.shape)
    order = np.random.default_rng(1).permutation(N)  # of the estimate's samples
    samples = Samples(timesteps=order, noises=order)
    state = shorten(state, C, guess[:, order].astype(np.float32), N, samples)
    np.testing.assert_allclose(
        state.estimate, np.average(guess, axis=1, weights=weights), atol=1e-5
    )
    state.table.errors[:] = table
    means = state.unforeseen.mean()
    expected = np.average(table.astype(float), axis=1, weights=weights)
    np.testing.assert_allclose(means, expected, atol=1e-5)
