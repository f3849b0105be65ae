"""CLIP as a prefilter."""

import dataclasses

import numpy as np
import pytest
from contrastive_models import GOLDEN, write_open_clip
from noise_runs import Made, N, variant

from diffjax.baselines.clip import load_clip
from diffjax.errors import DiffjaxError
from diffjax.evaluation import plan
from diffjax.evaluation.experiment import Experiment
from diffjax.evaluation.runner import evaluate
from diffjax.files import read_json
from diffjax.runs.folder import read_run
from diffjax.scoring.cost import Cost
from diffjax.strategies.exhaustive import Exhaustive

STRATEGY = Exhaustive(n_samples=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shapes = read_json(GOLDEN)["vit"]["shapes"]
    return write_open_clip(tmp_path_factory.mktemp("clip"), "vit", shapes)


def task_of(prefilter=None, **others):
    return Experiment(dataset="made", prefilter=prefilter, **others).task(source=Made())


def test_a_run_among_clips_best_classes(folder, classifier, tmp_path, monkeypatch):
    task = task_of(f"clip:{folder}:k=2")
    exhaustive = variant(classifier, strategy=STRATEGY)
    result = evaluate(task, exhaustive, tmp_path / "clip")
    run = read_run(tmp_path / "clip")
    rows = run.rows.to_pylist()
    clip = load_clip(str(folder)).of(task.prompts)
    pixels = np.stack([clip.pixels(task.source[i].image) for i in range(N)])
    scores = np.concatenate([clip.log_probabilities(each[None]) for each in pixels])
    best = np.sort(np.argsort(-scores, axis=1)[:, :2])
    assert [row["candidates"] for row in rows] == best.tolist()
    assert len({tuple(each) for each in best.tolist()}) > 1
    assert {row["evaluations"] for row in rows} == {8}
    filtered, costs = result["prefilter"], run.header["flops"]
    assert filtered["recall"] == np.mean([r["label"] in r["candidates"] for r in rows])
    assert filtered["flops"] == costs["prefilter"] > 1e6
    total = 8 * costs["evaluation"] + costs["prefilter"]
    assert result["flops_per_image"] == pytest.approx(total)
    monkeypatch.setattr(plan, "tile_cost", lambda *_: Cost(flops=1.0, seconds=1.0))
    assert plan.make_plan(task, exhaustive).evaluations_per_image == 8


def test_what_is_refused(folder, classifier, tmp_path):
    for k in (1, 4, 20):
        with pytest.raises(DiffjaxError, match="k must be 2 to 3"):
            task_of(f"clip:{folder}:k={k}")
    with pytest.raises(DiffjaxError, match="k must be 2 to 3"):
        task_of(f"clip:{folder}")  # 20 of 4
    with pytest.raises(DiffjaxError, match="no folder or file here"):
        task_of("clip:nowhere:k=2")
    with pytest.raises(DiffjaxError, match=r"name it \.csv"):
        task_of("clop:nowhere:k=2")
    with pytest.raises(DiffjaxError, match="foo=2 is no setting"):
        task_of(f"clip:{folder}:k=3:foo=2")
    evaluate(task_of(f"clip:{folder}:k=2"), classifier, tmp_path / "run")
    task = task_of(f"clip:{folder}:k=3")
    with pytest.raises(DiffjaxError, match="experiment\\.prefilter"):
        evaluate(task, classifier, tmp_path / "run")
    again = dataclasses.replace(task_of(f"clip:{folder}:k=2"))
    assert evaluate(again, classifier, tmp_path / "run")["images"] == N
