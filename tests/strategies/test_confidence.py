"""Races on tables of made errors keep their word: as often as stated, all N agree.

The kinds that no rule on a part of the samples can promise, rare spikes and what
repeats itself as often as samples are taken, are not among these.
"""

import jaxtyping
import numpy as np
import pytest

from diffjax.strategies.base import run
from diffjax.strategies.interpolation import interpolate
from diffjax.strategies.orders import van_der_corput
from diffjax.strategies.racing import Racing

TABLES = (  # classes, samples, races
    (2, 500, 300),
    (10, 256, 300),
    (100, 100, 300),
    (1000, 256, 50),
)


def normal(rng, shape):
    return rng.standard_normal(shape)


def curves(rng, x, n):
    k = np.arange(1, 5)
    return normal(rng, (n, 4)) / k @ np.cos(np.pi * k[:, None] * x)


def ties(rng, x, n):
    errors = 0.3 * normal(rng, (n, 1)) + normal(rng, (n, len(x)))
    errors[1::2] = errors[: n // 2 * 2 : 2]
    return errors


# Each [n, len(x)] of n classes at places x in (0, 1).
KINDS = {
    "lines": lambda rng, x, n: (
        0.3 * normal(rng, (n, 1)) + normal(rng, (n, 1)) * (x - 0.5)
    ),
    "noisy lines": lambda rng, x, n: (
        KINDS["lines"](rng, x, n) + 0.3 * normal(rng, (n, len(x)))
    ),
    "curves": lambda rng, x, n: 0.3 * normal(rng, (n, 1)) + curves(rng, x, n),
    "noisy curves": lambda rng, x, n: (
        KINDS["curves"](rng, x, n) + 0.3 * normal(rng, (n, len(x)))
    ),
    "parabolas": lambda rng, x, n: (
        0.1 * normal(rng, (n, 1)) + normal(rng, (n, 1)) * (x - 0.5) ** 2
    ),
    "at small t": lambda rng, x, n: (
        0.1 * normal(rng, (n, 1)) + normal(rng, (n, 1)) * np.exp(-x / 0.1)
    ),
    "noisy, at small t": lambda rng, x, n: (
        normal(rng, (n, 1)) * np.exp(-x / 0.1) + 0.3 * normal(rng, (n, len(x)))
    ),
    "noisy, at large t": lambda rng, x, n: (
        normal(rng, (n, 1)) * np.exp((x - 1) / 0.1) + 0.3 * normal(rng, (n, len(x)))
    ),
    "fading": lambda rng, x, n: (
        (0.3 * normal(rng, (n, 1)) + normal(rng, (n, len(x)))) * (1 - x) ** 2
    ),
    "no difference": lambda rng, x, n: normal(rng, (n, len(x))),
    "laplace": lambda rng, x, n: (
        0.2 * normal(rng, (n, 1)) + rng.laplace(size=(n, len(x)))
    ),
    "t(3)": lambda rng, x, n: (
        0.2 * normal(rng, (n, 1)) + rng.standard_t(3, size=(n, len(x)))
    ),
    "skewed up": lambda rng, x, n: (
        0.2 * normal(rng, (n, 1)) + rng.exponential(size=(n, len(x)))
    ),
    "skewed down": lambda rng, x, n: (
        0.2 * normal(rng, (n, 1)) - rng.exponential(size=(n, len(x)))
    ),
    "of many sizes": lambda rng, x, n: (
        0.2 * normal(rng, (n, 1))
        + np.exp(0.7 * normal(rng, (n, 1))) * normal(rng, (n, len(x)))
    ),
    "ties": ties,
}


def wrong(strategy, kind, n_classes, n_races, seed=0):
    """How many races on tables of a kind are decided otherwise than by all samples."""
    N, rng = strategy.n_samples, np.random.default_rng(seed)
    x = (np.arange(N) + 0.5) / N
    missed = 0
    for _ in range(n_races):
        table = KINDS[kind](rng, x, n_classes).astype(np.float32)

        def errors(state, request, table=table):
            places = state.samples.timesteps[request.samples]
            return table[np.ix_(request.classes, places)]

        winner = strategy.decide(run(strategy, n_classes, N, errors)).winner
        mean = table.mean(axis=1, dtype=np.float64)
        missed += mean[winner] > mean.min() + 1e-12  # ties are as good
    return missed


@pytest.fixture
def unchecked():
    """Types are checked elsewhere; a thousand races would be four times as slow."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.slow
@pytest.mark.parametrize(("n_classes", "N", "races"), TABLES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("unchecked")
def test_the_stated_confidence_holds(kind, n_classes, N, races):
    missed = wrong(Racing(n_samples=N, confidence=0.9), kind, n_classes, races)
    assert missed <= 0.1 * races


@pytest.mark.parametrize(
    ("kind", "n_classes", "N", "races"),
    [
        ("lines", 100, 256, 25),
        ("curves", 100, 256, 25),
        ("noisy, at small t", 10, 256, 40),
        ("no difference", 2, 100, 80),
        ("fading", 10, 100, 60),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_the_stated_confidence_holds_for_a_few(kind, n_classes, N, races):
    missed = wrong(Racing(n_samples=N, confidence=0.9), kind, n_classes, races)
    assert missed <= 0.1 * races


def test_lines_cost_the_floor_alone():
    """The mean of a part is biased under a trend; an interpolated one is not."""
    N, rng = 256, np.random.default_rng(1)
    table = KINDS["lines"](rng, (np.arange(N) + 0.5) / N, 100).astype(np.float32)

    def errors(state, request):
        places = state.samples.timesteps[request.samples]
        return table[np.ix_(request.classes, places)]

    strategy = Racing(n_samples=N)
    decision = strategy.decide(run(strategy, 100, N, errors))
    assert decision.winner == table.mean(axis=1).argmin()
    assert decision.n_evaluations == 100 * strategy.floor
    assert decision.confidence > 0.999


# --- The interpolation


@pytest.mark.parametrize("n", [2, 3, 5, 8, 40, 63])
def test_an_interpolated_mean_is_that_of_the_broken_line(n):
    rng = np.random.default_rng(n)
    N = 64
    places, goal = van_der_corput(N), rng.random(N)
    goal /= goal.sum()
    line = interpolate(places, n, goal)
    d = rng.standard_normal((3, n))
    x, y = places[:n][line.order], d[:, line.order]
    for values, weighted in zip(y, line.mean(d), strict=True):
        slopes = np.diff(values) / np.diff(x)
        full = np.interp(places, x, values)
        before, after = places < x[0], places > x[-1]
        full[before] = values[0] + slopes[0] * (places[before] - x[0])
        full[after] = values[-1] + slopes[-1] * (places[after] - x[-1])
        assert weighted == pytest.approx((goal * full).sum(), rel=1e-12)
    straight = 3 - 2 * places[None, :n] / N
    assert line.mean(straight)[0] == pytest.approx((goal * (3 - 2 * places / N)).sum())
    if n > 2:
        assert line.variance(straight)[0] < 1e-25


@pytest.mark.parametrize("n", [2, 3, 4, 6, 13, 50, 97])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_of_noise_is_as_it_is_said(n, weighted):
    rng = np.random.default_rng(n)
    N = 100
    places = van_der_corput(N)
    goal = rng.exponential(size=N) if weighted else np.ones(N)
    goal /= goal.sum()
    line = interpolate(places, n, goal)
    d = rng.standard_normal((40_000, N))
    off = line.mean(d[:, :n]) - d @ goal
    assert np.var(off) == pytest.approx(line.error, rel=0.05)
    v = line.variance(d[:, :n])
    assert v.mean() == pytest.approx(1, rel=0.05)
    # as that of a mean of squares of so many normal numbers
    assert 2 / v.var() == pytest.approx(line.degrees, rel=0.06)


def test_nothing_is_uncertain_where_nothing_unseen_counts():
    goal = np.array([0.5, 0.5, 0, 0])
    line = interpolate(np.array([1, 3, 0, 2]), 2, goal)
    assert line.error == 0
    assert line.mean(np.array([[1.0, 5.0]])) == 3
