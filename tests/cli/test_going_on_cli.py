"""A run goes on by the same command under the same model alone."""

import json
import shutil
from pathlib import Path

import pytest
from commands import assert_only_refused, invoke
from tiny_sets import write_folder

import diffjax
from diffjax.runs.folder import read_run

pytestmark = pytest.mark.usefixtures("no_compile_cache")

STRATEGY = "exhaustive:n_samples=2"
EMBEDDED = Path(diffjax.__file__).parent / "assets" / "tiny"


def edited(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | changes))


@pytest.fixture
def begun(tmp_path):
    """Two images of four, by a copy of the embedded model; and how to go on."""
    images, model = tmp_path / "images", tmp_path / "model"
    write_folder(images, {"cat": 2, "dog": 2})
    shutil.copytree(EMBEDDED, model)
    broken = images / "dog"
    kept = {path: path.read_bytes() for path in broken.iterdir()}
    for path in kept:
        path.write_bytes(b"not yet")

    def go_on(*args, model=model, images=images):
        return invoke(
            *("evaluate", "--dataset", images, "--model", model, "--cells", "2"),
            *("--strategy", STRATEGY, "--out", tmp_path / "run", "--quiet", *args),
        )

    assert go_on("--allow-errors").exit_code == 0
    for path, content in kept.items():
        path.write_bytes(content)
    return tmp_path, go_on


@pytest.mark.parametrize(
    ("file", "changes", "line"),
    [
        ("scheduler/scheduler_config.json", {"beta_end": 0.02}, "model.schedule"),
        ("vae/config.json", {"scaling_factor": 0.5}, "model.scaling_factor"),
        ("unet/config.json", {"norm_eps": 1e-2}, "model.configs.unet.norm_eps"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 3}, "model.ids"),
    ],
)
def test_a_run_does_not_go_on_under_another_model(begun, file, changes, line):
    place, go_on = begun
    edited(place / "model" / file, **changes)
    assert_only_refused(go_on(), line, "there, ", "choose another folder")
    assert read_run(place / "run").rows["error"].null_count == 2


def test_a_run_goes_on_with_copies_and_by_other_spellings(begun, monkeypatch):
    place, go_on = begun
    shutil.move(place / "model", place / "moved")
    (place / "mount").symlink_to(place)
    monkeypatch.chdir(place)
    result = go_on(model="moved", images="./mount/images")
    assert result.exit_code == 0, result.output
    assert read_run(place / "run").rows["error"].null_count == 4
    shutil.copytree(place / "images", place / "other name")
    assert go_on(model="./moved", images="./other name").exit_code == 0


def test_a_run_of_before_goes_on_with_a_word(begun):
    place, go_on = begun
    header = json.loads((place / "run" / "run.json").read_text())
    known = header["model"]
    before = ("model", "revision", "dtype", "elsewhere", "name", "kind", "n_timesteps")
    header["model"] = {key: known[key] for key in before}
    header["model"]["fingerprint"] = known["weights"]
    (place / "run" / "run.json").write_text(json.dumps(header))
    result = go_on()
    assert result.exit_code == 0, result.output
    assert "kept the weights of its model alone" in " ".join(result.stderr.split())
    edited(place / "model" / "vae" / "config.json", scaling_factor=0.5)
    assert_only_refused(go_on(), "model.scaling_factor")
