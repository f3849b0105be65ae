"""Effective robustness against the line through timm's models."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import assert_only_refused, invoke
from make_timm_table import table, text
from saved_runs import write_run
from scipy.optimize import least_squares
from scipy.special import expit, logit
from scipy.stats import linregress

from diffjax.cli.robustness import SHIFTS as OFFERED
from diffjax.data.presets import PRESETS
from diffjax.report.shift_plots import published_figure
from diffjax.runs.metrics import wilson
from diffjax.runs.published import (
    CHOSE_A,
    CLEAN,
    SHIFTS,
    TABLE,
    given,
    published,
    standings,
)

RESULTS = Path(__file__).parents[2].parent / "shared" / "data" / "timm"
# the paper's Table 4, and its Fig. 6: x among ImageNet-A's classes is read off the
# vector graphics of diffusion-classifier.github.io
TABLE_4 = {
    "ResNet-101": (77.7, 65.5, 4.7),
    "ViT-L/32": (77.9, 64.4, 11.9),
    "ViT-B/16": (81.2, 69.6, 20.8),
    "DiT-XL/2 256": (77.5, 64.6, 20.0),
    "DiT-XL/2 512": (79.1, 66.7, 30.2),
}
FIGURE_6 = {"DiT-XL/2 256": (92.0, 20.0), "DiT-XL/2 512": (92.2, 30.2)}


@pytest.fixture(scope="module")
def rows():
    return pd.read_csv(TABLE)


def test_the_table_is_what_timm_publishes():
    if not RESULTS.is_dir():
        pytest.skip(f"timm's results are not in {RESULTS}")
    made = table(RESULTS)
    assert text(made) == TABLE.read_text(encoding="utf-8")
    files = {
        name: pd.read_csv(RESULTS / f"results-{name}.csv")
        for name in ("imagenet", "sketch", "imagenet-a", "imagenet-r")
    }
    best = files["imagenet"].sort_values("top1").groupby("model").last()
    for row in made[::50]:
        size = best.loc[row["model"], "img_size"]
        assert float(row["imagenet"]) == best.loc[row["model"], "top1"]
        for name, column in (
            ("sketch", "imagenet_sketch"),
            ("imagenet-a", "imagenet_a"),
            ("imagenet-r", "imagenet_r"),
        ):
            of = files[name]
            there = of[(of.model == row["model"]) & (of.img_size == size)]
            assert [float(row[column])] == list(there.top1)


def test_accuracies_are_of_as_many_images_as_is_said(rows):
    """So `among_r`, a difference that timm publishes, is of 200 classes' images."""
    assert 900 < len(rows) < 2000 and rows.model.is_unique
    assert TABLE.stat().st_size < 100_000
    assert list(rows.model[rows.imagenet_a.isna()]) == [CHOSE_A]
    images = {"imagenet": 50_000, "among_a": 10_000, "among_r": 10_000}
    images |= {shift.name: shift.images for shift in SHIFTS.values()}
    del images["imagenet_sketch"]  # so many that three digits tell little
    for column, n in images.items():
        right = rows[column].dropna().to_numpy() / 100 * n
        assert np.abs(right - right.round()).max() <= 0.5e-5 * n + 1e-6
        assert right.min() > 0 and right.max() < n
    assert (rows.among_a > rows.imagenet).all() and (rows.among_r > rows.imagenet).all()


def test_names_are_those_of_presets():
    assert tuple(SHIFTS) == OFFERED
    assert PRESETS["imagenet"].dataset == CLEAN
    for shift in SHIFTS.values():
        assert PRESETS[shift.name].dataset in (shift.name, *shift.datasets)
        listed = PRESETS[shift.name].classes
        assert (listed is None) == (shift.classes == 1000)


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_line_is_what_scipy_fits(rows, shift):
    known = rows[(rows.more_images == 0) & rows[shift].notna()]
    x, y = (logit(known[c].to_numpy() / 100) for c in (SHIFTS[shift].among, shift))
    models = published(shift)
    at = np.array([0.75, 0.93])
    if shift != "imagenet_a":
        line = linregress(x, y)
        expected = expit(line.intercept + line.slope * logit(at))
        assert models.explained == pytest.approx(line.rvalue**2)
        # at one half, where x = 0, the line's error is the intercept's
        half = float(models.line(np.array([0.5]))[0])
        own = line.intercept_stderr * half * (1 - half)
        assert models.error(0.5, 0.0) == pytest.approx(own)
        moved = models.error(0.5, 0.1) ** 2 - own**2
        slope = line.slope * half * (1 - half) / 0.25
        assert moved == pytest.approx((0.1 * slope) ** 2)
    else:  # two lines that meet where the ResNet-50 is that chose the images
        k = logit(rows.among_a[rows.model == CHOSE_A].item() / 100)

        def bent(found, x):
            height, below, above = found
            return height + np.where(x < k, below, above) * (x - k)

        found = least_squares(lambda f: bent(f, x) - y, [0.0, 1.0, 1.0]).x
        expected = expit(bent(found, logit(at)))
        assert found[2] > 2 * found[1]
        assert models.explained > linregress(x, y).rvalue ** 2 + 0.05
    np.testing.assert_allclose(models.line(at), expected, rtol=1e-6)
    low, high = models.band(expit(x))
    inside = (expit(y) >= low) & (expit(y) <= high)
    assert inside.mean() == pytest.approx(0.95, abs=0.005)


def test_the_paper_s_points_lie_where_the_paper_says():
    points = [
        given(name, x / 100, y / 100, "imagenet_a") for name, (x, y) in FIGURE_6.items()
    ]
    small, large = (100 * each.effective for each in standings(points))
    assert 14 < small < 17 and 23 < large < 26  # "15 to 25 %"
    points = [
        given(name, x / 100, y / 100, "imagenet_a", among=False)
        for name, (x, _, y) in TABLE_4.items()
    ]
    found = {each.model: each for each in standings(points, among=False)}
    for name, each in found.items():
        outside = each.shifted > each.predicted_high
        assert outside == name.startswith("DiT") == (each.further == 0)
        assert each.effective_low < each.effective < each.effective_high
    points = [
        given(name, x / 100, y / 100, "imagenet_v2")
        for name, (x, y, _) in TABLE_4.items()
    ]  # "does not show improved effective robustness"
    assert all(-0.02 < each.effective < 0.01 for each in standings(points))


def test_the_command_on_points(tmp_path):
    points = [f"--point={name}={x},{y}" for name, (x, _, y) in TABLE_4.items()]
    line = "robustness", "--line", "timm"
    table = invoke(*line, *points, "--all-classes", "--plot", tmp_path / "a.png")
    assert table.exit_code == 0 and "of 978" in table.stdout
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    told = invoke(*line, points[0], "--shift", "imagenet_v2", "--json").stdout
    (known,) = json.loads(told)
    assert (known["shift"], known["classes"]) == ("imagenet_v2", 1000)
    assert [known["clean_low"], known["clean_high"]] == [*wilson(38_850, 50_000)]
    for bad in ("DiT", "DiT=77.5", "DiT=77.5,x", "=77,20", "DiT=0,20", "DiT=77,200"):
        assert_only_refused(invoke(*line, "--point", bad), "NAME=CLEAN,SHIFTED", bad)
    assert_only_refused(invoke("robustness", points[0]), "needs --line timm")
    assert_only_refused(invoke(*line, points[0], "--clean", "pets"), "--clean imagenet")
    assert invoke("robustness").exit_code == 2


def test_the_command_on_runs(tmp_path):
    def made(dataset, accuracy, n_classes):
        right = np.arange(100) < 100 * accuracy
        errors = np.full((100, n_classes, 1), 2.0, np.float32)
        errors[:, 0, 0] = 1.0
        errors[:, 1, 0] = np.where(right, 1.5, 0.5)
        return write_run(
            tmp_path / f"{dataset}-{n_classes}",
            errors,
            np.zeros(100, int),
            header={
                "experiment": {"dataset": dataset},
                "model": {"name": "dit-256", "kind": "class", "weights": "w"},
            },
        ).path

    line = "--line", "timm"
    runs = [made(CLEAN, 0.92, 200), made("imagenet_a", 0.2, 200)]
    found = invoke("robustness", *runs, *line, "--point=A=92,20", "--json")
    run, point = json.loads(found.stdout)
    assert (run["model"], run["family"], run["shift"]) == (
        "dit-256",
        "class",
        "imagenet_a",
    )
    for key in ("predicted", "effective", "further"):
        assert run[key] == pytest.approx(point[key])
    # of a hundred images, less is known
    for key in ("clean", "effective"):
        widths = [p[f"{key}_high"] - p[f"{key}_low"] for p in (run, point)]
        assert widths[0] > 3 * widths[1]
    few = [made(CLEAN, 0.9, 3), made("imagenet_a", 0.5, 3)]
    assert_only_refused(invoke("robustness", *few, *line), "among 3 classes", "200")
    other = [runs[0], made("objectnet", 0.5, 200)]
    assert_only_refused(
        invoke("robustness", *other, *line), "no accuracies on objectnet"
    )
    every = *line, "--all-classes"
    assert_only_refused(invoke("robustness", *runs, *every), "are of --point")
    assert_only_refused(invoke("robustness", *runs, *every, "--point=A=9,9"), "alone")


def test_the_picture_shows_every_model_and_point():
    points = [given("A", 0.8, 0.2, "imagenet_a"), given("B", 0.9, 0.3, "imagenet_r")]
    figure = published_figure(standings(points))
    for axes, shift, name in zip(
        figure.axes, ("imagenet_a", "imagenet_r"), "AB", strict=True
    ):
        models = published(shift)
        shown = sum(len(each.get_offsets()) for each in axes.collections[:2])
        assert shown == len(models.models)
        assert name in [each.get_text() for each in axes.texts]
        assert axes.get_xscale() == axes.get_yscale() == "logit"
