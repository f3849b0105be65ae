import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
from saved_runs import named, tables, write_run

from diffjax.classify.record import Record, log_scores, settled_differences
from diffjax.runs.folder import open_run, read_run
from diffjax.runs.metrics import (
    confusion_matrix,
    confusion_pairs,
    in_top,
    mean_recall,
    negative_log_likelihood,
    reliability,
    summary,
    wilson,
)
from diffjax.runs.outcomes import outcomes
from diffjax.strategies.base import Samples, run
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.staged import Staged


def test_wilson_as_scipy_has_it():
    from scipy.stats import binomtest

    for k, n in [(0, 1), (1, 1), (3, 10), (50, 100), (999, 1000), (0, 500)]:
        expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson(k, n), tuple(expected), atol=1e-6)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (2, 1), (-1, 3)])
def test_no_proportion_is_refused(k, n):
    with pytest.raises(ValueError, match="no proportion"):
        wilson(k, n)


def test_top_k_by_hand():
    rankings = np.array([[2, 0, 1], [0, 1, 2], [1, 2, 0]])
    labels = np.array([0, 0, 0])
    for k, expected in [(1, [0, 1, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])]:
        assert in_top(rankings, labels, k).tolist() == [bool(e) for e in expected]
    # a label that is no candidate is in no ranking
    assert not in_top(rankings, np.array([-1, -1, -1]), 3).any()


def test_mean_recall_weighs_classes_alike():
    labels = np.array([0] * 8 + [3] * 2)  # classes that do not occur do not count
    predictions = np.array([0] * 8 + [0, 3])
    assert mean_recall(labels, predictions)[0] == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("per_class", [1, 2, 20])
def test_the_interval_of_mean_recall_covers(per_class):
    rng = np.random.default_rng(0)
    recalls = rng.uniform(0.3, 0.95, 30)
    labels = np.repeat(np.arange(30), per_class)
    covered = 0
    for _ in range(1000):
        right = rng.random(len(labels)) < recalls[labels]
        low, high = mean_recall(labels, np.where(right, labels, 30))[1]
        covered += low <= recalls.mean() <= high
    assert 0.935 <= covered / 1000


def test_mean_recall_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no images"):
        mean_recall(np.array([], int), np.array([], int))


def test_confusions():
    labels = np.array([0, 0, 0, 1, 2, 2], np.int32)
    predictions = np.array([1, 1, 0, 1, 0, 1], np.int32)
    matrix = confusion_matrix(labels, predictions, 3)
    assert matrix.tolist() == [[1, 2, 0], [0, 1, 0], [1, 1, 0]]
    pairs = confusion_pairs(labels, predictions, 2)
    assert pairs == [(0, 1, 2), (2, 0, 1)]
    assert confusion_pairs(labels, labels, 2) == []


def test_nll_by_hand():
    scores = np.array([[0.5, 0.25, 0.25], [0.1, 0.9, 0.0]])
    with np.errstate(divide="ignore"):
        logs = np.log(scores)
    assert negative_log_likelihood(logs, np.array([0, 1])) == pytest.approx(
        -(np.log(0.5) + np.log(0.9)) / 2
    )
    assert negative_log_likelihood(logs, np.array([0, 2])) == np.inf


def test_reliability_by_hand():
    confidence = np.array([0.05, 0.1, 0.6, 1.0])
    correct = np.array([False, True, True, True])
    bins = reliability(confidence, correct, 10)
    assert bins.counts.tolist() == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert bins.accuracy[0] == 0.5 and np.isnan(bins.accuracy[1])
    # (2 · |0.5 − 0.075| + |1 − 0.6| + 0) / 4
    assert bins.ece == pytest.approx((2 * 0.425 + 0.4) / 4)


def test_calibrated_predictions_have_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    assert reliability(confidence, rng.random(100_000) < confidence).ece < 0.01
    assert reliability(confidence, rng.random(100_000) < 0.5).ece > 0.2


def record(table, strategy):
    state = run(
        strategy,
        *table.shape,
        lambda s, r: table[np.ix_(r.classes, s.samples.timesteps[r.samples])],
    )
    return Record(
        pixels=np.zeros((1, 1, 3), np.float32),
        prompts=named("abcdef"),
        samples=Samples(timesteps=np.arange(16), noises=np.arange(16)),
        table=state.table,
        prompt_decision=strategy.decide(state),
        temperature=0.1,
        seconds=1.0,
    )


@pytest.mark.parametrize(
    "strategy",
    [Exhaustive(n_samples=16), Staged(to_keep=(3, 1), n_samples=(4, 16))],
)
def test_stored_rows_give_the_scores_of_records(tmp_path, strategy):
    errors, labels = tables(5, 6, 16)
    found = outcomes(write_run(tmp_path / "run", errors, labels, strategy=strategy))
    settled = settled_differences(found.differences, found.rankings)
    scores = np.exp(log_scores(settled, 0.1))
    for i, table in enumerate(errors):
        entries = record(table, strategy).scores()
        assert ["abcdef"[c] for c in found.rankings[i]] == [e["label"] for e in entries]
        ranked = scores[i, found.rankings[i]]
        for score, entry in zip(ranked, entries, strict=True):
            assert score == pytest.approx(entry["score"], rel=1e-4)


@pytest.mark.parametrize("candidates", [range(6), [5, 1, 0, 7, 3, 2]])
def test_log_loss_and_auc_of_the_column_of_scores(tmp_path, candidates):
    from scipy.stats import rankdata

    errors, local = tables(60, 6, 16)
    labels = np.array(candidates)[local]
    strategy = Staged(to_keep=(3, 1), n_samples=(4, 16))
    made = write_run(
        tmp_path / "run", errors, labels, strategy=strategy, classes=candidates
    )
    scores = np.stack(made.rows["scores"].to_numpy())
    assert scores.dtype == np.float32 and scores.shape == (60, 6)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)
    loss = -np.log(scores[np.arange(60), local]).mean(dtype=float)
    assert loss == pytest.approx(summary(made)["metrics"]["nll"], rel=1e-5)
    [best] = (scores.argmax(axis=1) == local).mean(keepdims=True)
    assert best == summary(made)["metrics"]["acc1"]
    for c in range(6):
        own = local == c
        of_own, of_others = scores[own, c], scores[~own, c]
        above = (of_own[:, None] > of_others).mean()
        ties = (of_own[:, None] == of_others).mean()
        n = own.sum()
        ranks = rankdata(scores[:, c])[own].sum()
        auc = (ranks - n * (n + 1) / 2) / n / (60 - n)
        assert auc == pytest.approx(above + ties / 2)
        assert auc > 0.6  # by chance ½


def test_runs_from_before_there_were_scores_open(tmp_path):
    import pyarrow.parquet as pq

    run = write_run(tmp_path / "run", *tables(5, 6, 16))
    [part] = (tmp_path / "run" / "parts").glob("*.parquet")
    before = pq.read_table(part).drop_columns(["scores"])
    part.unlink()
    pq.write_table(before, part.with_name("0.parquet"))
    old = read_run(tmp_path / "run")
    assert old.rows["scores"].null_count == 5
    assert summary(old) == summary(run)
    with open_run(old.path, old.header, old.prompts, save_errors=False) as writer:
        assert writer.done == set(range(5))  # it goes on


def test_a_class_that_was_never_evaluated_scores_nothing():
    settled = settled_differences(np.array([0.0, np.nan, 0.2]), np.array([0, 2, 1]))
    assert settled.tolist() == [0, np.inf, 0.2]
    assert np.exp(log_scores(settled, 0.1))[1] == 0


def test_summary_of_a_run_by_hand(tmp_path):
    # three candidates of five classes; the last image's label is not one of them
    classes = [1, 2, 4]
    errors = np.ones((4, 3, 4), np.float32)
    for i, winner in enumerate([0, 1, 1, 2]):
        errors[i, winner] = 0.5
    other = errors[:, ::-1]
    made = write_run(
        tmp_path / "run",
        errors,
        [1, 2, 4, 3],
        classes=classes,
        n_names=5,
        also={"l1": other},
        failed=[4, 5],
    )
    result = summary(made)
    json.dumps(result, allow_nan=False)
    assert result["metrics"]["acc1"] == 0.5
    assert result["intervals"]["acc1"] == wilson(2, 4)
    assert result["metrics"]["acc5"] is None
    assert result["metrics"]["mean_per_class_recall"] == pytest.approx(0.5)
    # by l1 the predictions are 4, 2, 2, 1
    assert result["metrics"]["acc1_l1"] == 0.25
    assert (result["images"], result["failed_images"]) == (4, 2)
    assert result["labels_not_among_candidates"] == 1
    assert result["evaluations_per_image"] == 12
    assert result["seconds_per_image"] == 1
    # Δ = 0.5 and τ = 0.1: right, right, wrong among the images with a candidate label
    score = 1 / (1 + 2 * np.exp(-5))
    nll = -(2 * np.log(score) + np.log(score) - 5) / 3
    assert result["metrics"]["nll"] == pytest.approx(nll, rel=1e-5)
    assert result["metrics"]["ece"] == pytest.approx(score - 2 / 3, rel=1e-5)
    assert result["confusions"] == [
        {"label": "class 3", "prediction": "class 4", "count": 1},
        {"label": "class 4", "prediction": "class 2", "count": 1},
    ]
    assert result["dataset"] == "made" and result["pretrained"] == "0" * 16


def test_summary_without_a_good_image(tmp_path):
    none = np.ones((0, 3, 4), np.float32)
    made = write_run(tmp_path / "run", none, [], failed=[0])
    result = summary(made)
    assert set(result["metrics"].values()) == {None}
    assert (result["images"], result["failed_images"]) == (0, 1)
    assert result["seconds_per_image"] is None


def test_top_five_of_six(tmp_path):
    errors, _ = tables(50, 6, 4, gap=0.0)
    result = summary(write_run(tmp_path / "run", errors, np.zeros(50, int)))
    last = sum(table.astype(float).mean(1).argmax() == 0 for table in errors)
    assert result["metrics"]["acc5"] == pytest.approx(1 - last / 50)


def test_a_label_that_a_prefilter_left_out_is_not_among_the_top_five(tmp_path):
    errors, _ = tables(50, 6, 4, gap=0.0)
    run = write_run(tmp_path / "run", errors, np.zeros(50, int))
    left = pa.array([[1, 2], [0, 1]] * 25, pa.list_(pa.int32()))
    place = run.rows.schema.get_field_index("candidates")
    rows = run.rows.set_column(place, "candidates", left)
    result = summary(dataclasses.replace(run, rows=rows))
    last = sum(table.astype(float).mean(1).argmax() == 0 for table in errors[1::2])
    assert result["metrics"]["acc5"] == pytest.approx((25 - last) / 50)
