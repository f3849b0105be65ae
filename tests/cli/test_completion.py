"""What a shell offers: asked as click's scripts for bash, zsh and fish ask."""

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from diffjax.checkpoints.catalog import MODELS
from diffjax.choices import LOSSES
from diffjax.cli.commands import group
from diffjax.data.presets import PRESETS
from diffjax.strategies import STRATEGIES, parse_strategy


def offered(*words):
    """Names, and the kinds of files that the shell is to offer itself."""
    shell = ShellComplete(group, {}, "diffjax", "_DIFFJAX_COMPLETE")
    items = shell.get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in items]


@pytest.mark.parametrize("command", ["classify", "demo", "evaluate", "bench"])
def test_models_are_offered_or_else_folders(command):
    assert offered(command, "--model", "") == list(MODELS)
    assert offered(command, "--model", "tiny") == ["tiny", "tiny-dit", "tiny-flow"]
    assert offered(command, "--model", "./tiny") == ["dir"]


def test_presets_strategies_and_losses_are_offered():
    assert offered("evaluate", "") == list(PRESETS)
    assert offered("evaluate", "imagenet_") == [
        name for name in PRESETS if name.startswith("imagenet_")
    ]
    assert offered("evaluate", "--dataset", "oxford_i") == ["oxford_iiit_pet"]
    assert offered("evaluate", "--dataset", "./photos") == ["file"]
    assert offered("evaluate", "--prompts", "food") == ["food101"]
    for command in ("classify", "evaluate", "rescore"):
        assert offered(command, "--strategy", "") == list(STRATEGIES)
    assert [parse_strategy(name) for name in offered("demo", "--strategy", "r")]
    assert offered("winoground", "--loss", "") == list(LOSSES)
    assert offered("eval") == ["evaluate"]
    assert "--help-all" in offered("classify", "--h")


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/pets", "runs/pets-2", "runs/cifar10", "runs/deep/er", "alone"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").touch()
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "runs.txt").touch()


@pytest.mark.parametrize(
    "words",
    [
        *(("report",), ("rescore",), ("calibrate",), ("robustness",)),
        *(("study", "timestep"), ("classify", "--temperature")),
    ],
)
def test_folders_with_a_run_are_offered(runs, tmp_path, words):
    assert offered(*words, "") == ["alone", "runs/cifar10", "runs/pets", "runs/pets-2"]
    assert offered(*words, "ru") == ["runs/cifar10", "runs/pets", "runs/pets-2"]
    assert offered(*words, "runs/p") == ["runs/pets", "runs/pets-2"]
    assert offered(*words, "runs/d") == ["runs/deep/er"]
    absolute = f"{tmp_path}/runs/c"
    assert offered(*words, absolute) == [f"{tmp_path}/runs/cifar10"]
    assert offered(*words, "nowhere/") == offered(*words, "runs/no") == ["dir"]


def test_files_are_left_to_the_shell():
    for words in (("classify", ""), ("explain", ""), ("evaluate", "--unet", "")):
        assert offered(*words) == ["file"]
    assert offered("winoground", "") == ["dir"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_has_the_scripts_that_the_docs_name(shell):
    done = subprocess.run(
        [sys.executable, "-m", "diffjax"],
        env={"_DIFFJAX_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
    )
    if shell == "bash" and "bash" in done.stderr.lower():
        pytest.skip("no bash here that click knows")
    assert done.returncode == 0 and f"{shell}_complete" in done.stdout
