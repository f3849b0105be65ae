"""Interruptions, kills, damage and other processes: nothing is lost or done twice."""

import dataclasses

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import several
from noise_runs import STAGED, Made, N, assert_same, tables, task_of, variant
from saved_runs import kept
from small import conditioner, tokenize

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.progress import Progress
from diffjax.classify.settings import Settings
from diffjax.errors import DiffjaxError
from diffjax.evaluation.runner import evaluate
from diffjax.models.network import Network
from diffjax.runs import folder
from diffjax.runs.folder import read_run
from diffjax.runs.sharing import Share
from diffjax.schedules import Schedule
from diffjax.scoring.placement import block_mesh

# ---- interruptions


def test_an_interrupted_run_ends_as_an_undisturbed_one(whole, classifier, tmp_path):
    path, tallies = tmp_path / "run", []

    def interrupt(tally):
        if tally.done == 3:
            raise KeyboardInterrupt

    def go_on(source, progress=None):
        task = task_of(source)
        return evaluate(task, classifier, path, save_errors=True, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        go_on(Made(), Progress(watch=interrupt))
    assert len(read_run(path).rows) == 3
    assert not (path / "summary.json").exists()
    rows = read_run(path).rows.to_pylist()
    right = sum(row["prediction"] == row["label"] for row in rows)
    with pytest.raises(KeyboardInterrupt):
        go_on(Made(stop=11), kept(tallies))
    done = read_run(path).rows["index"].to_pylist()
    assert 3 <= len(done) <= 11
    first = tallies[0]
    assert (first.done, first.correct, first.evaluations) == (3, right, 0)

    source = Made()
    result = go_on(source)
    assert sorted(source.read) == sorted(set(range(N)) - set(done))
    assert_same(read_run(path).rows, whole[0].rows)
    assert result["images"] == N
    parts = [pq.read_metadata(p).num_rows for p in (path / "parts").iterdir()]
    assert sum(parts) == N and 3 in parts  # nothing was done twice

    source = Made()  # and once more: nothing is left to do
    again = go_on(source)
    assert source.read == [] and again == result


def test_it_goes_on_under_conditions_of_several_leaves(tmp_path):
    settings = Settings(strategy=STAGED, cells=2)
    classifier, task = DiffusionClassifier(several.model(), settings), task_of(Made())
    evaluate(task, classifier, tmp_path / "whole", save_errors=True)

    def interrupt(tally):
        if tally.done == 5:
            raise KeyboardInterrupt

    path, again = tmp_path / "run", DiffusionClassifier(several.model(), settings)
    with pytest.raises(KeyboardInterrupt):
        interrupted = Progress(watch=interrupt)
        evaluate(task, classifier, path, save_errors=True, progress=interrupted)
    assert len(read_run(path).rows) == 5
    evaluate(task, again, path, save_errors=True)
    assert_same(read_run(path).rows, read_run(tmp_path / "whole").rows)


def test_what_is_not_written_is_lost_and_nothing_else(classifier, tmp_path, whole):
    """A kill, of which ``flush`` and the end of the writer know nothing."""
    path = tmp_path / "run"

    class Killed(BaseException):
        pass

    def kill(tally):
        if tally.done == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder.RunWriter, "__exit__", lambda run, *_: run._release())
        with pytest.raises(Killed):
            evaluate(
                task_of(Made()),
                classifier,
                path,
                save_errors=True,
                flush_seconds=0.0,
                progress=Progress(watch=kill),
            )
    assert len(list((path / "parts").iterdir())) == 5
    evaluate(task_of(Made()), classifier, path, save_errors=True)
    assert_same(read_run(path).rows, whole[0].rows)


def test_one_device_goes_on_where_two_stopped(whole, classifier, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        evaluate(task_of(Made(stop=9)), classifier, path, save_errors=True)
    one = block_mesh(jax.devices()[:1])
    monkeypatch.setattr("diffjax.classify.classifier.block_mesh", lambda devices: one)
    alone = variant(classifier)
    assert alone.device.startswith("1 ×") and classifier.device.startswith("2 ×")
    evaluate(task_of(Made()), alone, path, save_errors=True)
    rows, others = read_run(path).rows, whole[0].rows
    for column in ("index", "id", "prediction", "ranking", "evaluations"):
        assert rows[column].equals(others[column])
    np.testing.assert_allclose(tables(rows, 4), tables(others, 4), rtol=1e-4)


def test_another_configuration_is_refused(classifier, tmp_path):
    path = tmp_path / "run"

    def refuse(line, classifier=classifier, indices=(0, 1), **kwargs):
        with pytest.raises(DiffjaxError, match=line):
            evaluate(task_of(Made(), indices), classifier, path, **kwargs)

    evaluate(task_of(Made(), [0, 1]), classifier, path, asked={"limit": 2})
    refuse("experiment.limit: 2 there, 3 here", asked={"limit": 3})
    refuse("experiment.loss: l2 there, l1 here", variant(classifier, loss="l1"))
    refuse("data.indices", indices=[0, 2])
    refuse("experiment.save_errors: false there", save_errors=True)
    scaled = jax.tree.map(lambda x: 2 * x, classifier.model.denoiser.state)
    other = dataclasses.replace(
        classifier.model, denoiser=Network(classifier.model.denoiser.graphdef, scaled)
    )
    refuse("model.weights", DiffusionClassifier(other, classifier.settings))
    model, betas = classifier.model, classifier.model.schedule.posterior.alpha_bar
    steeper = Schedule.ddpm(np.asarray(betas, np.float64) ** 1.01)
    for line, changes in {
        "model.schedule: ": {"schedule": steeper},
        "model.prediction_type: epsilon there, v_": {
            "schedule": dataclasses.replace(
                model.schedule, prediction_type="v_prediction"
            )
        },
        "model.scaling_factor: 0.5 there, 0.25 here": {"scaling_factor": 0.25},
        "model.ids: ": {
            "conditioner": conditioner(lambda prompts: tokenize([*prompts][::-1]))
        },
        "model.configs.vae: null there": {"configs": {"vae": {"norm_eps": 1}}},
    }.items():
        changed = dataclasses.replace(model, **changes)
        refuse(line, DiffusionClassifier(changed, classifier.settings))
    renamed = dataclasses.replace(model, name="a copy", origin={"model": "elsewhere"})
    moved = DiffusionClassifier(renamed, classifier.settings)
    evaluate(task_of(Made(), [0, 1]), moved, path, asked={"limit": 2})
    half = dataclasses.replace(
        classifier.model, origin=classifier.model.origin | {"dtype": "bfloat16"}
    )
    refuse(
        "model.dtype: .*, bfloat16 here", DiffusionClassifier(half, classifier.settings)
    )
    # what changes the speed alone may change
    faster = variant(classifier, cells=7)
    evaluate(task_of(Made(), [0, 1]), faster, path, asked={"limit": 2})


def test_a_class_by_another_number_is_another_model(class_classifier, tmp_path):
    task = task_of(Made(("class 1", "class 2", "class 3")), [0, 1])
    plain = dataclasses.replace(class_classifier.settings, also=())
    classifier = DiffusionClassifier(class_classifier.model, plain)
    evaluate(task, classifier, tmp_path / "run")
    names = tuple(reversed(classifier.model.class_names))
    other = dataclasses.replace(classifier.model, class_names=names)
    with pytest.raises(DiffjaxError, match=r"model\.ids"):
        evaluate(task, DiffusionClassifier(other, plain), tmp_path / "run")


# ---- images that fail


def test_damage_in_saved_errors_is_repaired_by_the_same_command(
    whole, classifier, tmp_path, monkeypatch
):
    path = tmp_path / "run"
    plain = pq.write_table
    monkeypatch.setattr(
        pq, "write_table", lambda *a, **kw: plain(*a, **kw | {"compression": "none"})
    )
    evaluate(task_of(Made(), range(6)), classifier, path, save_errors=True)
    [part] = (path / "parts").iterdir()
    errors = np.asarray(read_run(path).rows["errors"][2].as_py(), np.float32).tobytes()
    content = bytearray(part.read_bytes())
    content[content.index(errors[:16]) + 2] ^= 1
    part.write_bytes(content)
    source = Made()
    with pytest.warns(UserWarning, match="damaged"):
        evaluate(task_of(source, range(6)), classifier, path, save_errors=True)
    assert sorted(source.read) == list(range(6))
    rows = read_run(path).rows
    assert_same(rows, whole[0].rows.take(list(range(6))))


# ---- several processes


def test_processes_share_a_run(whole, classifier, tmp_path):
    path, tallies = tmp_path / "run", []
    task = task_of(Made())

    def part(index, count, **kwargs):
        share = Share(index, count)
        return evaluate(task, classifier, path, save_errors=True, share=share, **kwargs)

    result = part(0, 2, progress=kept(tallies))
    assert result["images"] == N / 2
    assert [t.total for t in tallies] == [N / 2] * (N // 2 + 1)
    assert not (path / "summary.json").exists()
    part(1, 3)  # another number of processes: nothing is done twice
    everything = part(0, 1)
    assert everything["images"] == N and (path / "summary.json").exists()
    assert_same(read_run(path).rows, whole[0].rows)
    parts = [pq.read_metadata(p).num_rows for p in (path / "parts").iterdir()]
    assert sum(parts) == N
