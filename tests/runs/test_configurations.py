"""Which run goes on under which configuration."""

import json
import warnings

import pytest
from parts_of_runs import opened, write
from writing import PROMPTS, header, row

from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.runs.folder import open_run, read_run

# ---- what is refused


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"loss": "l1"}, "experiment.loss: l2 there, l1 here"),
        ({"limit": 5}, "experiment.limit: null there, 5 here"),
        ({"also": ["vlb"]}, r'experiment.also: \[\] there, \["vlb"\] here'),
        ({"strategy": {"to_keep": [5, 1]}}, "experiment.strategy: null there"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(tmp_path, change, line):
    path = write(tmp_path / "run", [0])
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(DiffjaxError, match=rf"(?s){line}.*choose another folder"):
        opened(path, **change)
    del before[path / "lock"]
    assert before == {p: p.read_bytes() for p in before}
    with opened(path) as run:
        assert run.done == {0}


def test_only_the_differences_are_shown(tmp_path):
    path = tmp_path / "run"
    with opened(path, strategy={"name": "staged", "to_keep": [5, 1]}) as run:
        run.add(row(0))
    changed = header(strategy={"name": "staged", "to_keep": [2, 1]}, template="x" * 500)
    changed["class_names"] = ["ape", "cat", "wolf"]
    with pytest.raises(DiffjaxError) as caught:
        open_run(path, changed, PROMPTS, save_errors=False)
    _, *lines, _ = str(caught.value).splitlines()
    assert lines == [
        "  experiment.strategy.to_keep: [5, 1] there, [2, 1] here",
        f"  experiment.template: null there, {'x' * 79}… here",
        '  class_names: ["ape", "cat", "dog"] there, ["ape", "cat", "wolf"] here',
    ]


def test_where_and_when_do_not_decide(tmp_path):
    path = write(tmp_path / "run", [0])
    elsewhere = header() | {"environment": {"jax": "9"}, "created": "later"}
    with open_run(path, elsewhere, PROMPTS, save_errors=False) as run:
        assert run.done == {0}
    assert read_run(path).header["created"] == header()["created"]


def test_other_prompts_are_refused(tmp_path):
    path = write(tmp_path / "run", [0])
    other = Prompts(
        prompts=("a cat", "a dog"), classidx=(0, 1), class_names=("cat", "dog")
    )
    with pytest.raises(DiffjaxError, match=r"prompts: other than in .*prompts\.csv"):
        opened(path, other)


# ---- names


@pytest.mark.parametrize(
    ("part", "key"),
    [
        *(("experiment", "dataset"), ("experiment", "prompts"), ("data", "name")),
        *(("model", "name"), ("model", "revision"), ("model", "elsewhere")),
    ],
)
def test_what_a_thing_is_called_does_not_decide(tmp_path, part, key):
    path = write(tmp_path / "run", [0])
    other = header()
    other[part] = other[part] | {key: "/elsewhere/it"}
    with open_run(path, other, PROMPTS, save_errors=False) as run:
        assert run.done == {0}
    assert read_run(path).header == json.loads(json.dumps(header()))


def test_the_name_decides_where_nothing_else_is_known(tmp_path):
    unknown = header()
    unknown["model"] = {"name": "a", "fingerprint": "unknown"}
    path = tmp_path / "run"
    with open_run(path, unknown, PROMPTS, save_errors=False) as run:
        run.add(row(0))
    unknown["model"] = {"name": "b", "fingerprint": "unknown"}
    with pytest.raises(DiffjaxError, match=r"model\.name: a there, b here"):
        open_run(path, unknown, PROMPTS, save_errors=False)


def model(**changes):
    described = {
        "weights": "3" * 16,
        "configs": {"unet": {"norm_eps": 1e-5}, "vae": {}},
        "scaling_factor": 0.18215,
        "prediction_type": "epsilon",
        "schedule": "4" * 16,
        "ids": "5" * 16,
    }
    return {"name": "sd", "fingerprint": "6" * 16, **described} | changes


CHANGES = {
    "weights: 3+ there, 7+ here": {"weights": "7" * 16},
    "configs.unet.norm_eps: 1e-05 there, 1e-06 here": {
        "configs": {"unet": {"norm_eps": 1e-6}, "vae": {}}
    },
    "configs.vae.scaling: null there, 2 here": {
        "configs": {"unet": {"norm_eps": 1e-5}, "vae": {"scaling": 2}}
    },
    "scaling_factor: 0.18215 there, 0.13025 here": {"scaling_factor": 0.13025},
    "prediction_type: epsilon there": {"prediction_type": "v_prediction"},
    "schedule: 4+ there, 8+ here": {"schedule": "8" * 16},
    "ids: 5+ there, 9+ here": {"ids": "9" * 16},
}


@pytest.mark.parametrize("line", CHANGES)
def test_all_of_the_model_decides(tmp_path, line):
    path = tmp_path / "run"

    def begin(model):
        made = header() | {"model": model}
        return open_run(path, made, PROMPTS, save_errors=False)

    with begin(model()) as run:
        run.add(row(0))
    with pytest.raises(DiffjaxError, match=rf"model\.{line}"):
        begin(model(**CHANGES[line]))
    with begin(model(fingerprint="0" * 16, name="of another version")) as run:
        assert run.done == {0}


def test_a_run_of_before_goes_on_and_knows_more_from_then_on(tmp_path):
    path = tmp_path / "run"

    def begin(model):
        made = header() | {"model": model}
        return open_run(path, made, PROMPTS, save_errors=False)

    before = {"name": "sd", "fingerprint": "3" * 16}
    with begin(before) as run:
        run.add(row(0))
    with pytest.raises(DiffjaxError, match=r"model\.fingerprint: 3+ there, 7+ here"):
        begin(model(weights="7" * 16))
    with pytest.warns(UserWarning, match="kept the weights of its model alone"):
        run = begin(model())
    with run:
        assert run.done == {0}
    assert read_run(path).header["model"] == model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin(model()).__exit__()
    with pytest.raises(DiffjaxError, match=r"model\.scaling_factor"):
        begin(model(scaling_factor=1.0))
