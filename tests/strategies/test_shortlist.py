import json

import numpy as np
import pytest

from diffjax.errors import DiffjaxError, NotFiniteError
from diffjax.strategies import (
    parse_shortlist,
    shortlist_from_dict,
    shortlist_to_text,
)
from diffjax.strategies.base import GRADIENT_COST, Samples, class_decision, run_on
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import (
    CHECKED,
    CHECKS,
    Shortlist,
    enough,
    restrict,
    shorten,
    to_check,
)
from diffjax.strategies.staged import Staged

T = 1000
C = 30
STRATEGIES = [
    Exhaustive(n_samples=20),
    Staged(to_keep=(8, 3, 1), n_samples=(4, 10, 20)),
    Racing(n_samples=40),
]


def truth(seed=0):
    """The mean error of each class."""
    return 1 + 0.1 * np.random.default_rng(seed).standard_normal(C)


def evaluate(state, request):
    shape = len(request.classes), len(request.samples)
    noise = np.random.default_rng(1).standard_normal(shape)
    return (truth()[request.classes, None] + 1e-3 * noise).astype(np.float32)


def estimates(error, seed=2):
    """The truth with an error, on 16 samples."""
    noise = np.random.default_rng(seed).standard_normal((C, 16))
    return (truth()[:, None] + error * noise).astype(np.float32)


def decide(strategy, k, guess, groups=None):
    state = shorten(strategy.start(C, T, groups), k, guess, n_gradients=16)
    promised = strategy.remaining(state)
    state = run_on(strategy, state, evaluate)
    assert state.n_evaluations <= promised + GRADIENT_COST * 16
    return state, strategy.decide(state)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("k", [2, 7, C, 50])
def test_the_best_by_the_estimate_go_on(strategy, k):
    guess = estimates(0.02)
    state, decision = decide(strategy, k, guess)
    order = np.argsort(guess.mean(axis=1))
    seen = decision.n_samples > 0
    assert set(np.flatnonzero(seen)) == set(order[:k])
    assert decision.winner == np.argmin(np.where(seen, truth(), np.inf))
    # the others rank below, among themselves by the estimate
    np.testing.assert_array_equal(decision.ranking[k:], order[k:])
    assert decision.pruned[order[k:]].all()
    assert np.isnan(decision.mean_error[order[k:]]).all()
    assert decision.n_gradients == 16
    cells = int(decision.n_samples.sum())
    assert decision.n_evaluations == state.n_evaluations == cells + 3 * 16


def test_all_prompts_of_a_class_stay_or_go():
    groups = np.arange(C) // 3
    guess = estimates(0.02)
    _, decision = decide(Exhaustive(n_samples=5), 4, guess, groups)
    best = guess.mean(axis=1).reshape(-1, 3).min(axis=1)
    kept = np.argsort(best)[:4]
    np.testing.assert_array_equal(decision.n_samples > 0, np.isin(groups, kept))
    of_classes = class_decision(decision, groups)
    np.testing.assert_array_equal(of_classes.ranking[4:], np.argsort(best)[4:])
    assert of_classes.n_gradients == 16
    assert of_classes.n_evaluations == 4 * 3 * 5 + 3 * 16


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_overflow_is_told(value):
    guess = estimates(0.1)
    guess[3, 5] = value
    with pytest.raises(NotFiniteError, match="gradients of the shortlist"):
        decide(STRATEGIES[0], 5, guess)


# --- Control variates


def foreseeable(error, strategy, seed=0):
    """Errors [C, S] of a strategy's samples, by timestep, and ê, off by ``error``."""
    rng = np.random.default_rng(seed)
    samples = strategy.start(C, T).samples
    shape = (C, len(samples))
    errors = truth(seed)[:, None] + 0.5 * rng.standard_normal(shape)
    guess = errors + error * rng.standard_normal(shape) - 0.3
    order = np.argsort(samples.timesteps)
    even = Samples(timesteps=samples.timesteps[order], noises=samples.noises[order])
    return errors.astype(np.float32), guess.astype(np.float32), even


def play(strategy, errors, state, even):
    column = {int(t): s for s, t in enumerate(even.timesteps)}

    def evaluate(state, request):
        columns = [column[int(t)] for t in state.samples.timesteps[request.samples]]
        return errors[np.ix_(request.classes, columns)]

    return run_on(strategy, state, evaluate)


def test_estimates_of_a_strategys_own_samples_save_evaluations():
    strategy = Racing(n_samples=64)
    needed = {False: [], True: []}
    for seed in range(10):
        errors, guess, even = foreseeable(0.1, strategy, seed)
        for own, counts in needed.items():
            state = strategy.start(C, T)
            state = shorten(state, C, guess, 64, even if own else None)
            state = play(strategy, errors, state, even)
            assert strategy.decide(state).winner == errors.mean(axis=1).argmin()
            counts.append(state.n_evaluations - 3 * 64)
    assert np.mean(needed[True]) < 0.5 * np.mean(needed[False])


@pytest.mark.parametrize("strategy", [STRATEGIES[0], Racing(n_samples=20)])
@pytest.mark.parametrize("error", [0.0, 5.0])
def test_over_all_samples_what_was_foreseen_cancels(strategy, error):
    errors, guess, even = foreseeable(error, strategy)
    state = shorten(strategy.start(C, T), C, guess, 20, even)
    state = play(strategy, errors, state, even)
    decision = strategy.decide(state)
    all_seen = decision.n_samples == 20
    np.testing.assert_allclose(
        decision.mean_error[all_seen], errors.mean(axis=1)[all_seen], atol=1e-5
    )
    assert decision.winner == errors.mean(axis=1).argmin()


@pytest.mark.parametrize("change", ["timesteps", "noises", "fewer"])
def test_estimates_of_other_samples_are_no_control_variates(change):
    strategy = Racing(n_samples=16)
    _, guess, even = foreseeable(0.1, strategy)
    state = strategy.start(C, T)
    assert shorten(state, 5, guess, 16, even).foreseen is not None
    parts = {"timesteps": even.timesteps, "noises": even.noises}
    if change == "fewer":
        parts, guess = {k: v[1:] for k, v in parts.items()}, guess[:, 1:]
    else:
        parts[change] = parts[change] + 1
    assert shorten(state, 5, guess, 16, Samples(**parts)).foreseen is None


def test_samples_are_even():
    own = Racing(n_samples=20).start(C, T).samples
    samples = Shortlist(k=5, n_samples=4).samples(T, own)
    assert samples.timesteps.tolist() == [125, 375, 625, 875]
    assert samples.noises.tolist() == [0, 1, 2, 3]
    with pytest.raises(DiffjaxError, match="1001 timesteps"):
        Shortlist(k=5, n_samples=1001).samples(T, own)
    assert Shortlist().samples(T, own) is own


# --- As many as a risk asks for


def checked(bias, noise, risk, seed, n=120, own=True, groups=None):
    """How many classes are kept, whether the best is, and the state they are of.

    The estimate is wrong by as much for any class, and by more on each sample.
    """
    rng = np.random.default_rng(seed)
    state = Racing(n_samples=32).start(n, T, groups)
    samples, shape = state.samples, (n, 32)
    noisy = noise * rng.standard_normal(shape)
    noisy -= noisy.mean(axis=1, keepdims=True)
    mean, by_sample = rng.standard_normal(n), rng.standard_normal(32)
    errors = mean[:, None] + by_sample + noisy
    estimates = (mean + bias * rng.standard_normal(n))[:, None] + by_sample + 0.3
    if not own:
        places = np.argsort(samples.timesteps)[1::4]
        samples = Samples(
            timesteps=samples.timesteps[places], noises=samples.noises[places]
        )
        errors, estimates = errors[:, places], estimates[:, places]
    rows, columns = to_check(state, estimates, samples)
    found = errors[np.ix_(rows, columns)]
    k = enough(state, estimates, samples, rows, columns, found, risk)
    state = shorten(state, k, estimates, 0, samples, found.size)
    return k, bool(state.living[mean.argmin()]), state


@pytest.mark.parametrize("risk", [0.01, 0.2])
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("own", [True, False])
def test_the_best_is_kept_at_the_rate_that_is_asked_for(risk, noise, own):
    n = 300
    lost = sum(
        not checked(bias, noise, risk, seed, own=own)[1]
        for bias in (0.1, 0.5)
        for seed in range(n // 2)
    )
    assert lost <= n * risk + 3 * np.sqrt(n * risk)


def test_a_better_estimate_needs_fewer_classes():
    kept = [
        np.mean([checked(bias, 0.1, 0.01, seed)[0] for seed in range(20)])
        for bias in (0.01, 0.1, 0.3, 2.0)
    ]
    assert 2 <= kept[0] < 5
    assert kept[0] < kept[1] < kept[2] < kept[3]
    assert kept[3] > 100  # that says nothing
    careful, careless = (
        np.mean([checked(0.3, 0.1, risk, seed)[0] for seed in range(20)])
        for risk in (0.001, 0.3)
    )
    assert careless < careful


def test_what_was_checked_is_counted_and_is_of_the_best_rows():
    _, _, state = checked(0.1, 0.1, 0.01, 0)
    assert state.n_evaluations == state.n_extra == CHECKED * CHECKS
    groups = np.arange(120) // 3
    state = Racing(n_samples=32).start(120, T, groups)
    estimates = np.random.default_rng(0).standard_normal((120, 32))
    rows, columns = to_check(state, estimates, state.samples)
    means = estimates.mean(axis=1)
    best = means.reshape(-1, 3)
    order = np.argsort(best.min(axis=1))
    ranked = (3 * np.arange(40) + best.argmin(axis=1))[order]
    np.testing.assert_array_equal(rows[:8], ranked[:8])
    assert len(set(rows)) == CHECKED and set(rows) < set(ranked[:21])
    assert np.diff(np.sort(state.samples.timesteps[columns])).tolist() == [250] * 3
    estimates[7, 3] = np.nan
    with pytest.raises(NotFiniteError, match="gradients of the shortlist"):
        to_check(state, estimates, state.samples)


# --- Settings


@pytest.mark.parametrize(
    ("text", "shortlist"),
    [
        ("k=50", Shortlist(k=50)),
        ("k=5:n_samples=8", Shortlist(k=5, n_samples=8)),
        ("k=9:directions=4", Shortlist(k=9, directions=4)),
        ("auto", Shortlist()),
        (
            "auto:n_samples=8:directions=0:risk=0.2",
            Shortlist(n_samples=8, directions=0, risk=0.2),
        ),
    ],
)
def test_text_and_json(text, shortlist):
    assert parse_shortlist(text) == shortlist
    assert shortlist_to_text(shortlist) == text
    record = json.loads(json.dumps(vars(shortlist)))
    assert shortlist_from_dict(record) == shortlist


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("50", "'50' is not of the form setting=value. An example: k=50"),
        ("auto:k=5", "auto finds k itself"),
        ("auto:risk=1", "risk must lie between 0 and 1, not 1"),
        ("k=5:rounds=2", "no setting 'rounds'; its settings are k, n_samples"),
        ("k=5:risk=0.1", "a k or a risk, not both"),
        ("k=5:directions=-1", "directions must be at least 0"),
        ("k=5:k=6", "'k=6' appears twice"),
        ("n_samples=8", "the setting 'k' is missing"),
        ("k=5:samples=8", "no setting 'samples'; its settings are k, n_samples"),
        ("k=5.5", "k takes a whole number, not 5.5"),
        ("k=1", "at least 2 classes, not 1"),
        ("k=5:n_samples=0", "n_samples must be at least 1"),
        ("", "not of the form"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(DiffjaxError, match=message):
        parse_shortlist(text)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_a_prefilter_left_out_ranks_below_what_a_shortlist_did(n):
    strategy, left = Exhaustive(n_samples=16), truth().argsort()[-n:].tolist()
    state = restrict(strategy.start(C, T), left)
    guess = estimates(1e-3)
    rows, columns = to_check(state, guess, state.samples)
    k = enough(state, guess, state.samples, rows, columns, guess[rows][:, columns], 0.1)
    state = run_on(strategy, shorten(state, k, guess, n_gradients=16), evaluate)
    assert sorted(strategy.decide(state).ranking[:n]) == sorted(left)
