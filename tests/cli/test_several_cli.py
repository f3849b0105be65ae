"""Several runs by one command: every data set, model and strategy."""

import functools
import json

import pytest
from commands import assert_only_refused, invoke
from tiny_sets import write_folder

from diffjax.checkpoints.loading import load_model
from diffjax.cli import jobs
from diffjax.errors import DiffjaxError
from diffjax.evaluation import runner
from diffjax.runs.folder import read_run

pytestmark = pytest.mark.usefixtures("no_compile_cache")

STRATEGIES = ("--strategy", "exhaustive:n_samples=2", "--strategy", "exhaustive")
RUNS = [
    f"{data}-{model}-{strategy}"
    for model in ("sd", "dit")
    for data in ("photos", "more")
    for strategy in ("exhaustive-n_samples=2", "exhaustive-n_samples=3")
]


@pytest.fixture
def loaded(monkeypatch):
    """Names of the models that were loaded."""
    names = []

    @functools.cache
    def load(name, **options):
        names.append(str(name).rpartition("/")[2])
        return load_model(name, **options)

    monkeypatch.setattr("diffjax.classify.classifier.load_model", load)
    return names


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    """A text model, one of ten classes, and two sets of images of two of these."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "photos", {"class 1": 1, "class 7": 1})
    write_folder(tmp_path / "more", {"class 1": 1, "class 7": 1})
    return folder


def evaluate(place, *args):
    return invoke(
        *("evaluate", "--dataset", "./photos", "--dataset", "./more", "--cells", "2"),
        *("--model", place / "sd", "--model", place / "dit", "--template", "a {}"),
        *("--strategy", "exhaustive:n_samples=2"),
        *("--strategy", "exhaustive:n_samples=3", *args),
    )


def test_every_combination_is_a_run_and_each_model_is_loaded_once(
    place, tmp_path, loaded
):
    result = evaluate(place)
    assert result.exit_code == 0, result.output
    assert loaded == ["sd", "dit"]
    places = [f"runs/{name}" for name in RUNS]
    for name in places:
        run = read_run(name)
        assert run.status == "complete" and len(run.rows) == 2
        strategy = run.header["experiment"]["strategy"]
        assert f"{strategy['name']}-n_samples={strategy['n_samples']}" in name
        assert run.header["model"]["name"] == str(place / name.split("-")[1])
        # as by a command of its own
        data, model, *_ = name.removeprefix("runs/").split("-")
        again = invoke(
            *("evaluate", "--dataset", f"./{data}", "--model", place / model),
            *("--strategy", f"exhaustive:n_samples={strategy['n_samples']}"),
            *("--template", "a {}", "--out", name, "--quiet", "--cells", "2"),
        )
        assert again.exit_code == 0, again.output
    assert len(list((tmp_path / "runs").iterdir())) == 8
    assert f"Compare: diffjax report {' '.join(places)}" in result.stderr
    assert invoke("report", *places).exit_code == 0
    # what is done is skipped
    again = evaluate(place)
    assert again.exit_code == 0 and again.stdout == result.stdout
    assert again.stderr.count("2 of 2 were done before") == 8


def test_a_run_that_fails_does_not_keep_the_others_from_being_done(
    place, tmp_path, loaded, monkeypatch
):
    started = []
    work = runner.evaluate

    def fail(task, classifier, path, **options):
        started.append(path.name)
        if path.name == RUNS[1]:
            raise DiffjaxError("the disk is gone")
        return work(task, classifier, path, **options)

    monkeypatch.setattr(runner, "evaluate", fail)
    (tmp_path / "more" / "class 1" / "0.png").write_bytes(b"no picture")
    result = evaluate(place, "--json", "--quiet", "--out", "here")
    assert started == RUNS
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    failed = RUNS[1:4] + RUNS[6:]
    last = result.stderr[result.stderr.index("error: 5 of 8 runs failed") :]
    assert [line.split(":")[0].strip() for line in last.splitlines() if "here/" in line]
    for name in failed:
        assert f"  here/{name}: " in last
    found = json.loads(result.stdout)
    assert [each["run"] for each in found] == [f"here/{name}" for name in RUNS]
    assert ["error" in each for each in found] == [name in failed for name in RUNS]
    assert "the disk is gone" in found[1]["error"]
    assert found[2]["images"] == 1  # the other one could be read
    good = " ".join(f"here/{name}" for name in RUNS if name not in failed)
    assert f"diffjax report {good}\n" in result.stderr


def test_what_nobody_foresaw_is_a_traceback_and_exit_code_1(place, loaded, monkeypatch):
    def fail(session, job):
        raise RuntimeError("a bug") if job.out.name == RUNS[0] else DiffjaxError("no")

    monkeypatch.setattr(jobs.Session, "run", fail)
    result = evaluate(place)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "RuntimeError: a bug" in result.stderr
    assert "8 of 8 runs failed" in result.stderr and "Compare" not in result.stderr


def test_a_model_that_cannot_be_loaded_is_tried_once(place, monkeypatch):
    tried = []

    def load(name, **options):
        tried.append(name)
        raise DiffjaxError(f"no {name}")

    monkeypatch.setattr("diffjax.classify.classifier.load_model", load)
    result = evaluate(place)
    assert result.exit_code == 2 and "8 of 8 runs failed" in result.stderr
    assert len(tried) == 2


def test_several_outlooks(place, loaded, monkeypatch):
    monkeypatch.setattr(jobs.Session, "outlook", lambda session, job: {"images": 2})
    result = evaluate(place, "--dry-run", "--json")
    assert [each["run"] for each in json.loads(result.stdout)] == [
        f"runs/{name}" for name in RUNS
    ]
    assert "Compare" not in result.stderr


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (("cifar10", "cifar11"), ["no preset 'cifar11'", "cifar10", "--dataset"]),
        (("cifar10", "pets", "--dataset", "x"), ["one PRESET, or several"]),
        (("cifar10", "--dataset", "x", "--dataset", "y"), ["one PRESET, or several"]),
        (("mnist", "--model", "a/sd", "--model", "b/sd"), ["runs/mnist-sd", "--out"]),
        (("mnist", "mnist"), ["Two of the runs would go to runs/mnist-tiny"]),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(args, parts):
    assert_only_refused(invoke("evaluate", *args, "--quiet"), *parts)
