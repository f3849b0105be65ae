"""Accuracy on another data set against that on the clean one."""

from dataclasses import replace

import numpy as np
import pytest
from commands import assert_refused, invoke
from saved_runs import write_run

from diffjax.errors import DiffjaxError
from diffjax.report.shift_plots import robustness_figure
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import wilson
from diffjax.runs.natural import natural_shifts
from diffjax.runs.robustness import csv_text, on_line, read_points

KIND = "discriminative"


@pytest.fixture
def made(tmp_path):
    """Writes the run of a model whose answers are right or wrong, image by image."""

    def make(model, dataset, accuracy, *, n=24, kind=KIND, **header):
        right = np.random.default_rng(0).random(n) < accuracy
        errors = np.stack([~right, right], axis=1)[:, :, None].astype(np.float32)
        experiment = {"dataset": dataset, **header.pop("experiment", {})}
        return write_run(
            tmp_path / f"{model}-{dataset}-{accuracy}",
            errors,
            np.zeros(n, int),
            header={
                "experiment": experiment,
                "model": {"name": model, "kind": kind, "weights": model},
                **header,
            },
        )

    return make


def accuracy(run):
    read = read_run(run.path, errors=False).rows
    return float((read["prediction"].to_numpy() == read["label"].to_numpy()).mean())


def test_points_and_the_line(made, tmp_path):
    clean = {"a": 0.9, "b": 0.7, "d": 0.8}
    shifted = {"a": 0.6, "b": 0.3, "d": 0.7}
    runs = [
        made(model, dataset, rate, n=n, kind="text" if model == "d" else KIND)
        for dataset, rates, n in (("in", clean, 90), ("in-a", shifted, 60))
        for model, rate in rates.items()
    ]
    points = {p.model: p for p in natural_shifts(runs, "in")}
    for run in runs[:3]:
        p = points[run.header["model"]["name"]]
        right = accuracy(run)
        assert (p.clean, p.clean_low, p.clean_high) == (
            right,
            *wilson(round(90 * right), 90),
        )
        assert (p.shift, p.images, p.shifts) == ("in-a", 60, 1)
    for run in runs[3:]:
        assert points[run.header["model"]["name"]].shifted == accuracy(run)
    # two models define the line, on which they lie; the third is above it
    for name in "ab":
        assert points[name].effective == pytest.approx(0, abs=0.02)
    above = points["d"]
    x = np.array([points[m].clean for m in "ab"])
    y = np.array([points[m].shifted for m in "ab"])
    logit = np.log((60 * x + 0.5) / (60 * (1 - x) + 0.5))
    lower = np.log((60 * y + 0.5) / (60 * (1 - y) + 0.5))
    slope = np.diff(lower)[0] / np.diff(logit)[0]
    expected = on_line((lower[0] - slope * logit[0], slope), above.clean)
    assert above.effective == pytest.approx(above.shifted - expected)
    assert above.effective_low < above.effective < above.effective_high
    assert above.effective_low > 0
    (tmp_path / "points.csv").write_text(csv_text(list(points.values())))
    assert read_points(tmp_path / "points.csv") == list(points.values())
    assert len(robustness_figure(list(points.values())).axes) == 1


def test_the_command(made, tmp_path):
    runs = [
        made(model, dataset, rate)
        for model in "ab"
        for dataset, rate in (("imagenet2012", 0.8), ("imagenet_a", 0.5))
    ]
    paths = [run.path for run in runs]
    shown = invoke("robustness", *paths, "--clean", "imagenet").stdout
    assert "imagenet_a" in shown
    assert_refused(invoke("robustness", *paths), "different data sets")
    assert_refused(invoke("robustness", *paths, "--clean", "pets"), "No run is of")


def test_what_does_not_fit_is_refused(made):
    clean, shifted = made("a", "in", 0.8), made("a", "in-a", 0.5)
    fewer = made("a", "in-r", 0.5)
    other = {"class_names": ["cat", "cow"], "classes": [0, 1]}
    fewer = replace(fewer, header=fewer.header | other)
    for runs, message in [
        ([clean], "there is no other data set"),
        ([clean, shifted, made("b", "in", 0.7)], "b has 0 runs of in-a"),
        ([clean, fewer], r"a has 0 runs of in among the 2 classes.*--classes"),
        (
            [clean, made("a", "in-v2", 0.6, experiment={"corrupt": "blur:1"})],
            "leave --clean out",
        ),
    ]:
        with pytest.raises(DiffjaxError, match=message):
            natural_shifts(runs, "in")
