"""Accuracies under shift against accuracies on clean images."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from saved_runs import write_run
from small_resnet import NAMES, small_classifier
from tiny_sets import write_folder

from diffjax.cli.commands import group
from diffjax.data.corruptions import CORRUPTIONS, every_corruption
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import wilson
from diffjax.runs.robustness import csv_text, read_points, robustness

KIND = "discriminative"


@pytest.fixture
def made(tmp_path):
    """Writes the run of a model whose answers are right or wrong, image by image."""

    def make(model, shift, right, *, kind="text", dataset="made", failed=()):
        right = np.asarray(right, bool)
        errors = np.stack([~right, right], axis=1)[:, :, None].astype(np.float32)
        return write_run(
            tmp_path / f"{model}-{shift}-{dataset}".replace(":", "-"),
            errors,
            np.zeros(len(right), int),
            header={
                "experiment": {"corrupt": shift, "dataset": dataset},
                "model": {"name": model, "kind": kind},
            },
            failed=failed,
        )

    return make


def some(accuracy, n=200):
    return np.arange(n) < round(accuracy * n)


def test_accuracies_and_intervals(made):
    random = np.random.default_rng(0)
    blur = [random.random(200) < p for p in (0.7, 0.5)]
    noise = random.random(200) < 0.2
    points = robustness(
        [
            made("a", "blur:1", blur[0]),
            made("a", None, some(0.8)),
            made("a", "noise:4", noise),
            made("a", "blur:5", blur[1]),
        ]
    )
    assert [(p.shift, p.shifts) for p in points] == [
        *(("all", 3), ("noise", 1), ("blur", 2))
    ]
    for point in points:
        assert (point.model, point.family, point.images) == ("a", "text", 200)
        assert (point.clean, point.clean_low, point.clean_high) == (
            *(0.8, *wilson(160, 200)),
        )
        assert point.effective is None
        assert point.shifted_low < point.shifted < point.shifted_high
    images = np.mean([*blur, noise], axis=0)
    half = 1.96 * images.std(ddof=1) / np.sqrt(200)
    assert points[0].shifted == pytest.approx(images.mean())
    assert points[0].shifted_high - points[0].shifted == pytest.approx(half, rel=1e-3)
    # of one shift it is about the interval of a proportion
    low, high = wilson(int(noise.sum()), 200)
    assert points[1].shifted_low == pytest.approx(low, abs=0.02)
    assert points[1].shifted_high == pytest.approx(high, abs=0.02)


def test_effective_robustness_is_what_lies_above_the_line(made, tmp_path):
    runs = []
    for name, clean, shifted in [("r1", 0.6, 0.4), ("r2", 0.75, 0.5), ("r3", 0.9, 0.7)]:
        runs.append(made(name, None, some(clean), kind=KIND))
        runs.append(made(name, "jpeg:2", some(shifted), kind=KIND))
    runs += [made("d", None, some(0.75)), made("d", "jpeg:2", some(0.65))]
    points = {p.model: p for p in robustness(runs) if p.shift == "all"}
    assert abs(sum(points[name].effective for name in ("r1", "r2", "r3"))) < 0.03
    d = points["d"]
    assert d.effective == pytest.approx(0.13, abs=0.02)
    assert d.effective_low < d.effective < d.effective_high
    # models are right on nested images, so their differences vary less than they do
    assert d.effective_high - d.effective_low < d.shifted_high - d.shifted_low
    assert 0 < d.effective_low
    rows = list(csv.DictReader(io.StringIO(csv_text([points["d"], points["r1"]]))))
    assert [row["family"] for row in rows] == ["text", KIND]
    assert float(rows[0]["effective"]) == points["d"].effective
    nothing = dict.fromkeys(("effective", "effective_low", "effective_high"))
    everything = [*points.values(), replace(d, **nothing)]
    path = tmp_path / "points.csv"
    path.write_text(csv_text(everything))
    assert read_points(path) == everything


def test_other_images_are_drawn_apart_and_close_models_make_no_sure_line(made):
    def models(clean):
        runs = [made("d", None, some(0.7, 50)), made("d", "jpeg:2", some(0.6, 50))]
        for name, x in zip(("r1", "r2"), clean, strict=True):
            runs.append(made(f"{name}-{x}", None, some(x), kind=KIND))
            runs.append(made(f"{name}-{x}", "jpeg:2", some(x - 0.2), kind=KIND))
        return {p.model: p for p in robustness(runs) if p.shift == "all"}["d"]

    far, close = models((0.5, 0.9)), models((0.88, 0.9))
    assert (far.images, close.images) == (50, 50)
    width = far.effective_high - far.effective_low
    assert 0.05 < width < close.effective_high - close.effective_low


def test_what_is_always_wrong_still_has_an_interval(made):
    runs = [made("a", None, some(0.5, 20)), made("a", "blur:1", some(0, 20))]
    for point in robustness(runs):
        assert (point.shifted_low, point.shifted_high) == wilson(0, 20)


@pytest.mark.parametrize("text", ["model,shift\na,all\n", "a,b\n1,2\n", None])
def test_a_file_without_points_is_refused(text, tmp_path):
    path = tmp_path / "points.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DiffjaxError, match=r"points\.csv"):
        read_points(path)


def test_what_cannot_be_compared(made, tmp_path):
    clean, worse = made("a", None, some(0.5)), made("a", "blur:1", some(0.4))
    with pytest.raises(DiffjaxError, match="clean images; evaluate with --corrupt"):
        robustness([clean])
    with pytest.raises(DiffjaxError, match=r"a .* has no run with the clean images"):
        robustness([worse])
    with pytest.raises(DiffjaxError, match=r"b .* has no run with --corrupt blur:1"):
        robustness([clean, worse, made("b", None, some(0.5))])
    with pytest.raises(DiffjaxError, match="same model, settings and images"):
        robustness([clean, clean, worse])
    with pytest.raises(DiffjaxError, match="different data sets"):
        robustness([clean, worse, made("a", None, some(0.5), dataset="other")])
    for key, value, what in [
        ("classes", [0], "classes"),
        ("experiment", clean.header["experiment"] | {"prefilter": "p"}, "candidates"),
    ]:
        other = replace(worse, header=worse.header | {key: value})
        with pytest.raises(DiffjaxError, match=f"about different {what}"):
            robustness([clean, other])
    half = replace(worse, rows=worse.rows.slice(0, 90))
    with pytest.raises(DiffjaxError, match=r"is in progress: 90 of 200 images"):
        robustness([clean, half])


def test_images_that_failed_are_told_of(made):
    runs = [made("a", None, some(0.9)), made("a", "blur:1", some(0.7), failed=[200])]
    done = CliRunner().invoke(group, ["robustness", *(str(run.path) for run in runs)])
    assert done.exit_code == 0, done.output
    told = " ".join(done.stderr.split())
    assert f"{runs[1].path}: 1 of 201 images failed" in told
    assert str(runs[0].path) not in told


def test_from_networks_to_a_plot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffjax.data.corruptions.SEVERITIES", (2, 3))  # quicker
    write_folder(tmp_path / "photos", dict.fromkeys(NAMES, 2))

    def call(*arguments):
        result = CliRunner().invoke(group, [*map(str, arguments)])
        assert result.exit_code == 0, result.output
        return result.stdout

    for seed in (0, 1):
        small_classifier(tmp_path / f"net{seed}", seed)
        out = call(
            *("baseline", f"net{seed}", "./photos", "--corrupt", "all"),
            *("--out", f"runs{seed}", "--json", "--quiet"),
        )
        assert len(json.loads(out)) == 1 + len(every_corruption())
    single = call("baseline", "net0", "./photos", "--corrupt", "blur:3", "--quiet")
    assert "acc1" in single
    (tmp_path / "photos" / NAMES[0] / "broken.png").write_bytes(b"no picture")
    broken = ["baseline", "net0", "./photos", "--out", "broken", "--quiet"]
    failed = CliRunner().invoke(group, broken)
    assert failed.exit_code == 2 and "1 images failed" in failed.stderr
    assert "failed" in call(*broken, "--allow-errors")
    run = read_run("runs/photos-baseline")
    assert run.header["experiment"]["corrupt"] == "blur:3"
    assert run.rows["prediction"] == read_run("runs0/blur-3").rows["prediction"]
    runs = [*tmp_path.glob("runs0/*"), *tmp_path.glob("runs1/*")]
    table = call("robustness", *runs, "--plot", "r.png", "--csv", "r.csv")
    assert table.count("net1") == 1 + len(CORRUPTIONS)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 13
    points = json.loads(call("robustness", *runs, "--json"))
    assert {point["family"] for point in points} == {KIND}
    assert {p["shifts"] for p in points} == {2, 10}
