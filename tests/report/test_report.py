import csv
import io
import json

import numpy as np
import pytest
from click.testing import CliRunner
from report_runs import NAMES, NASTY, N, T, toy, write_runs
from saved_runs import tables, write_run

from diffjax.cli.commands import group
from diffjax.errors import DiffjaxError
from diffjax.report.compare import read_report
from diffjax.report.run_report import strategy_text
from diffjax.runs import evidence
from diffjax.runs.calibration import calibrate, write_calibration
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import summary
from diffjax.runs.outcomes import outcomes
from diffjax.runs.spreadsheets import csv_text


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def report(paths):
    return read_report(list(paths.values()))


def invoke(*args):
    return CliRunner().invoke(group, ["report", *map(str, args)])


def by_name(report):
    return {run.name: run for run in report.runs}


# ---- the comparison


def test_runs_are_grouped_by_their_data(report):
    assert [group.title for group in report.groups] == ["toy, test", "other, test"]
    names = [[run.name for run in group.runs] for group in report.groups]
    assert names == [["whole", "staged", "part"], ["other"]]


def test_the_same_name_with_other_data_is_another_group(paths, tmp_path):
    labels = np.arange(4)
    changed = {"data": {"name": "toy", "fingerprint": "e" * 16}}
    write_run(tmp_path / "new", toy(labels), labels, names=NAMES, header=changed)
    assert len(read_report([paths["whole"], tmp_path / "new"]).groups) == 2


def test_rows_hold_what_the_metrics_say(report, paths):
    for row in report.rows:
        expected = summary(read_run(paths[row["run"]]))
        for metric, value in expected["metrics"].items():
            assert row[metric] == value
        for metric, interval in expected["intervals"].items():
            assert (row[f"{metric}_low"], row[f"{metric}_high"]) == tuple(interval)
        for key in ("images", "failed_images", "evaluations_per_image"):
            assert row[key] == expected[key]
    assert len({tuple(row) for row in report.rows}) == 1  # the same keys, in order


def test_progress_and_failures_are_told(report):
    rows = {row["run"]: row for row in report.rows}
    status = {name: row["status"] for name, row in rows.items()}
    assert status == {
        "whole": "complete",
        "staged": "in progress",
        "part": "in progress",
        "other": "complete",
    }
    notes = " ".join(report.groups[0].notes)
    assert f"part is in progress: {N // 2} of {N + 1} images" in notes
    assert f"whole: 1 of {N + 1} images failed" in notes
    assert "did not classify the same images" in notes
    assert report.groups[1].notes == ()
    assert by_name(report)["whole"].failures == [(f"image {N}", "broken")]


def test_the_comparison_rests_on_the_images_that_both_have(report, paths):
    right = {}
    for name in ("whole", "part"):
        rows = read_run(paths[name]).rows.to_pylist()
        right[name] = {
            r["index"]: r["label"] == r["prediction"] for r in rows if not r["error"]
        }
    shared = sorted(right["part"])
    expected = np.mean([right["part"][i] - right["whole"][i] for i in shared])
    row = by_name(report)["part"].row
    assert row["compared_with"] == "whole"
    assert row["compared_images"] == len(shared) == N // 2
    assert row["difference"] == pytest.approx(expected)
    assert row["difference_low"] < expected < row["difference_high"]
    assert "difference" not in by_name(report)["whole"].row


# ---- names and refusals


def test_runs_of_one_name_are_told_apart(paths, tmp_path):
    labels = np.arange(4)
    write_run(tmp_path / "whole", toy(labels), labels, names=NAMES)
    other = tmp_path / "b" / "whole"
    write_run(other, toy(labels), labels, names=NAMES)
    named = [paths["whole"], tmp_path / "whole", other]
    names = [run.name for run in read_report(named).runs]
    assert names == ["/".join(path.parts[-2:]) for path in named]


def test_a_run_is_named_once(paths):
    with pytest.raises(DiffjaxError, match="given twice"):
        read_report([paths["whole"], paths["whole"] / ".." / "whole"])


def test_a_run_without_results_is_refused(tmp_path):
    errors = np.zeros((0, len(NAMES), T), np.float32)
    write_run(tmp_path / "empty", errors, [], names=NAMES, header={"data": {"n": 3}})
    with pytest.raises(DiffjaxError, match="no results yet"):
        read_report([tmp_path / "empty"])
    write_run(tmp_path / "failed", errors, [], names=NAMES, failed=(0, 1))
    with pytest.raises(DiffjaxError, match=r"failed \(2\).*image 0: broken"):
        read_report([tmp_path / "failed"])
    with pytest.raises(DiffjaxError, match=r"failed \(2\)"):
        read_report([tmp_path / "failed", tmp_path / "empty"])
    with pytest.raises(DiffjaxError, match="at least one"):
        read_report([])
    with pytest.raises(DiffjaxError, match="holds no run"):
        read_report([tmp_path])


def test_a_run_that_failed_does_not_hide_the_others(paths, tmp_path):
    errors = np.zeros((0, len(NAMES), T), np.float32)
    failed = tuple(range(N + 1))
    header = {"data": {"name": "toy", "n": N + 1}}
    write_run(tmp_path / "bad", errors, [], names=NAMES, failed=failed, header=header)
    (group,) = read_report([tmp_path / "bad", paths["whole"], paths["part"]]).groups
    bad, _, part = group.runs
    assert bad.accuracy is None and len(bad.failures) == N + 1
    assert f"every image failed ({N + 1})" in bad.nothing and bad.nothing in group.notes
    assert part.row["compared_with"] == "whole" and "difference" not in bad.row
    assert group.standing.images == N // 2
    for command in ((), ("--html", tmp_path / "page.html"), ("--json",)):
        result = invoke(tmp_path / "bad", paths["whole"], *command)
        assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count(f"every image failed ({N + 1})") == 2  # a note, and its section
    assert f"{N + 1} failed" in invoke(tmp_path / "bad", paths["whole"]).stdout


def test_values_that_are_not_needed_may_be_missing(tmp_path):
    path = tmp_path / "poor"
    labels = np.arange(N) % len(NAMES)
    nothing = dict.fromkeys(
        ("thumbnail", "margin", "margin_error", "seconds"), [None] * N
    )
    write_run(
        path, toy(labels), labels, names=NAMES, save_errors=False, columns=nothing
    )
    (run,) = read_report([path]).runs
    assert run.mistakes
    assert {(m.margin, m.margin_error, m.thumbnail) for m in run.mistakes} == {
        (None, None, None)
    }
    assert run.row["seconds_per_image"] is None


def test_strategies_as_text():
    assert strategy_text({"name": "exhaustive", "n_samples": 9}) == (
        "exhaustive:n_samples=9"
    )
    assert strategy_text({"name": "psychic", "guesses": 3}) == "psychic:3"
    assert strategy_text("official") == "official"
    assert strategy_text(None) is None


# ---- evidence


def test_confusions_are_counted(paths):
    run = read_run(paths["whole"])
    found = outcomes(run)
    got = evidence.confusions(found, run.class_names)
    assert got.names == tuple(NAMES) and got.n_classes == len(NAMES)
    for (a, b), count in np.ndenumerate(got.counts):
        assert count == ((found.labels == a) & (found.predictions == b)).sum()
    assert not got.elsewhere.any()
    assert got.totals.tolist() == np.bincount(found.labels).tolist()
    assert [n for *_, n in got.pairs] == sorted(
        (n for *_, n in got.pairs), reverse=True
    )
    assert sum(n for *_, n in got.pairs) == (~found.correct).sum()


def test_of_many_classes_the_most_confused_are_shown(tmp_path):
    errors, labels = tables(300, 40, 4, gap=0.15)
    run = write_run(tmp_path / "many", errors, labels)
    found = outcomes(run)
    got = evidence.confusions(found, run.class_names)
    assert got.n_classes == 40
    assert len(got.names) == evidence.MOST_CONFUSED
    assert {got.pairs[0][0], got.pairs[0][1]} <= set(got.names)
    for name, row, elsewhere in zip(got.names, got.counts, got.elsewhere, strict=True):
        own = run.class_names.index(name)
        assert row.sum() + elsewhere == (found.labels == own).sum()


def test_the_sample_curve_ends_at_the_accuracy_of_the_run(report, paths):
    run = by_name(report)["whole"]
    curve = run.sample_curve
    assert curve.n_samples[0] == 1 and curve.n_samples[-1] == T
    assert curve.accuracy[-1] == run.row["acc1"]
    assert curve.low[-1] == run.row["acc1_low"]
    assert (curve.evaluations == curve.n_samples * len(NAMES)).all()
    # in between: samples spread evenly, here every fourth one
    errors, labels = toy(np.arange(N) % len(NAMES)), np.arange(N) % len(NAMES)
    (place,) = np.flatnonzero(curve.n_samples == T // 4)
    winners = errors[:, :, 2::4].astype(np.float64).mean(axis=2).argmin(axis=1)
    assert curve.accuracy[place] == np.mean(winners == labels)


def test_pruned_runs_have_no_sample_curve(report):
    runs = by_name(report)
    assert runs["staged"].sample_curve is None
    assert runs["staged"].error_curve is not None
    assert runs["part"].sample_curve is None and runs["part"].error_curve is None
    assert runs["whole"].has_errors and not runs["part"].has_errors


def test_the_error_curve_of_known_errors(tmp_path):
    """Two prompts a class: the better one of the label is below all others by t."""
    n, P = 6, 6
    labels = np.arange(n) % 3
    t = np.arange(T)
    errors = np.broadcast_to(1.0 + t, (n, P, T)).copy()
    errors += 10 * (np.arange(P) % 2)[:, None]  # each class has a bad prompt
    errors[np.arange(n), 2 * labels] -= t / 100
    run = write_run(
        tmp_path / "known",
        errors.astype(np.float32),
        labels,
        classidx=[0, 0, 1, 1, 2, 2],
        n_timesteps=T,
    )
    curve = evidence.error_curve(run, outcomes(run))
    expected = t.reshape(evidence.N_BINS, -1).mean(axis=1)
    np.testing.assert_allclose(curve.timesteps, expected)
    np.testing.assert_allclose(curve.mean, expected / 100, atol=1e-5)
    np.testing.assert_allclose(curve.high - curve.low, 0, atol=1e-5)
    assert (curve.images == n).all()


def test_mistakes_come_most_confident_first(report, paths):
    mistakes = by_name(report)["whole"].mistakes
    scores = [mistake.score for mistake in mistakes]
    assert scores == sorted(scores, reverse=True)
    rows = {r["id"]: r for r in read_run(paths["whole"]).rows.to_pylist()}
    for mistake in mistakes:
        row = rows[mistake.image]
        assert NAMES[row["label"]] == mistake.label != mistake.prediction
        assert NAMES[row["prediction"]] == mistake.prediction
        assert mistake.thumbnail == row["thumbnail"]
        assert mistake.margin == pytest.approx(row["margin"])
        assert 0 <= mistake.label_score < mistake.score <= 1


def test_a_label_that_is_no_candidate_has_no_score(tmp_path):
    errors, labels = tables(12, 3, 6)
    run = write_run(tmp_path / "few", errors, labels + 2, classes=[0, 2, 4])
    mistakes = evidence.confident_mistakes(run, outcomes(run))
    own = {mistake.label: mistake.label_score for mistake in mistakes}
    assert own["class 3"] is None
    (group,) = read_report([tmp_path / "few"]).groups
    assert any("not among its candidate classes" in note for note in group.notes)


def test_a_calibrated_run_shows_both_temperatures(tmp_path):
    errors, labels = tables(60, 4, 8)
    run = write_run(tmp_path / "fitted", errors, labels)
    write_calibration(run, calibrate(run))
    (reported,) = read_report([tmp_path / "fitted"]).runs
    before, after = reported.calibrations
    assert before.temperature == reported.row["temperature"]
    assert before.reliability.ece == reported.row["ece"]
    assert after.temperature == calibrate(run)["temperature"]


def test_further_losses_say_in_which_space_they_are(tmp_path):
    errors, labels = tables(20, 4, 8)
    for space, names in ({}, ["l1"]), ({"space": "data"}, ["l1 of data"]):
        path = tmp_path / names[0]
        header = {"experiment": space}
        write_run(path, errors, labels, also={"l1": errors}, header=header)
        assert list(read_report([path]).runs[0].other_losses) == names


# ---- the command


def test_json_and_csv_agree(paths, tmp_path, report):
    path = tmp_path / "r.csv"
    result = invoke(*paths.values(), "--json", "--csv", path, "--allow-partial")
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)
    assert entries == json.loads(json.dumps(report.rows))
    lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert lines == [
        {key: "" if value is None else str(value) for key, value in entry.items()}
        for entry in entries
    ]
    assert path.read_text(encoding="utf-8") == csv_text(report.rows)


def test_the_table_is_for_people(paths, report):
    result = invoke(*paths.values(), "--allow-partial")
    assert result.exit_code == 0, result.output
    rate = by_name(report)["whole"].rate("acc1")
    assert f"{100 * rate.value:.1f}" in result.stdout
    assert f"{100 * rate.low:.1f}–{100 * rate.high:.1f}" in result.stdout
    assert "note: part is in progress" in result.stdout
    assert "accuracy in % by l2" in result.stdout
    assert "exact McNemar test" in result.stdout
    assert "…\n" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_bad_input_is_one_message(paths, tmp_path):
    result = invoke(tmp_path / "nothing")
    assert result.exit_code == 2 and "error: " in result.stderr
    result = invoke(paths["whole"], "--html", tmp_path / "no" / "where.html")
    assert result.exit_code == 2 and "there is no folder" in result.stderr
    assert result.stdout == ""


def test_names_are_not_markup(tmp_path):
    name = "[bold]" + NASTY[0].replace("/", "")
    labels = np.arange(4)
    write_run(tmp_path / name, toy(labels), labels, names=NAMES)
    result = invoke(tmp_path / name)
    assert result.exit_code == 0, result.output
    assert "[bold]" in result.stdout
