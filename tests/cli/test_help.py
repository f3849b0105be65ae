"""What the help says, and what it costs."""

import subprocess
import sys

import click
import pytest
from commands import assert_refused, invoke

from diffjax import choices
from diffjax.classify.settings import Settings
from diffjax.cli import demo
from diffjax.cli.classify import classify as classify_command
from diffjax.cli.commands import group

HEAVY = ("jax", "flax", "transformers", "matplotlib", "torch", "tensorflow_datasets")

HELP = {
    "baseline": (
        *("--split", "--data-dir", "--limit", "--corrupt", "--out", "--json"),
        *("--quiet", "--help"),
    ),
    "bench": (
        *("--model", "--random", "--blocks", "--classes", "--dtype", "--resolution"),
        *("--compile-for", "--json", "--quiet", "--help"),
    ),
    "calibrate": ("--json", "--allow-partial", "--help"),
    "classify": (
        *(
            "--labels",
            "--template",
            "--prompts",
            "--merge",
            "--strategy",
            "--loss",
            "--space",
        ),
        *("--dtype", "--seed", "--noise", "--temperature", "--cells", "--resolution"),
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        "--prompt-cache",
        *("--offline", "--variant", "--top", "--plot", "--json", "--quiet", "--help"),
        "--max-pixels",
        *("--shortlist", "--shard-weights", "--global-mesh", "--coordinator"),
        *("--process-index", "--process-count"),
    ),
    "demo": (
        *(
            "--model",
            "--strategy",
            "--loss",
            "--space",
            "--dtype",
            "--seed",
            "--out",
            "--json",
        ),
        *("--quiet", "--help"),
    ),
    "evaluate": (
        *("--dataset", "--split", "--data-dir", "--subset", "--per-class"),
        *("--subset-seed", "--limit", "--classes", "--prompts", "--classnames"),
        *("--corrupt", "--max-pixels"),
        *(
            "--templates",
            "--clip-name",
            "--template",
            "--prefilter",
            "--merge",
            "--strategy",
            "--loss",
            "--space",
            "--dtype",
        ),
        *("--seed", "--also", "--noise", "--temperature", "--cells", "--resolution"),
        "--shortlist",
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        "--prompt-cache",
        *("--offline", "--out", "--save-errors", "--latent-cache", "--allow-errors"),
        "--variant",
        *(
            "--dry-run",
            "--process-index",
            "--process-count",
            "--distributed",
            "--shard-weights",
            "--wandb",
            "--tensorboard",
            "--json",
            "--quiet",
            "--help",
        ),
    ),
    "import": (
        *("--out", "--prompts", "--labels", "--dataset", "--split", "--allow-errors"),
        *("--json", "--help"),
    ),
    "explain": (
        *(
            "--labels",
            "--template",
            "--n-samples",
            "--bands",
            "--out",
            "--loss",
            "--space",
        ),
        *("--dtype", "--seed", "--resolution", "--transform", "--interpolation"),
        *("--model", "--unet", "--transformer", "--vae", "--text-encoder"),
        *("--tokenizer", "--revision", "--cache-dir", "--offline", "--json"),
        "--prompt-cache",
        *("--variant", "--max-pixels", "--quiet", "--help"),
    ),
    "models": ("--json", "--help"),
    "report": ("--html", "--csv", "--json", "--allow-partial", "--help"),
    "rescore": (
        "--allow-partial",
        *(
            "--loss",
            "--space",
            "--weights",
            "--strategy",
            "--folds",
            "--bins",
            "--out",
            "--json",
        ),
        "--help",
    ),
    "robustness": ("--plot", "--csv", "--json", "--help"),
    "study": ("--out", "--json", "--allow-partial", "--help"),
    "train": (
        "--data-dir",
        "--out",
        "--length",
        "--steps",
        "--init",
        "--seed",
        "--help",
    ),
    "winoground": (
        *(
            "--n-samples",
            "--limit",
            "--loss",
            "--space",
            "--dtype",
            "--seed",
            "--resolution",
        ),
        *("--transform", "--interpolation", "--model", "--unet", "--transformer"),
        *("--vae", "--text-encoder", "--tokenizer", "--revision", "--cache-dir"),
        "--prompt-cache",
        *("--offline", "--cells", "--out", "--allow-errors", "--json", "--quiet"),
        "--variant",
        "--help",
    ),
}


def test_every_command_is_in_the_help():
    text = invoke("--help").stdout
    assert set(group.commands) == set(HELP)
    for name in HELP:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("command", HELP)
def test_the_help_names_every_option(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    names = {
        name
        for parameter in group.commands[command].params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }
    assert names | {"--help"} == set(HELP[command])
    for name in HELP[command]:
        assert name in result.stdout
    for parameter in group.commands[command].params:
        assert not isinstance(parameter, click.Option) or parameter.help
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "strategy"),
    [("classify", choices.STRATEGY), ("demo", demo.STRATEGY)],
)
def test_the_help_has_strategies_to_copy(command, strategy):
    lines = [line.strip() for line in invoke(command, "--help").stdout.splitlines()]
    assert "exhaustive:n_samples=250" in lines
    assert f"{strategy}  [default]" in lines


@pytest.mark.parametrize(
    "command", [("classify", "cat.jpg", "--labels", "a,b"), ("evaluate", "cifar10")]
)
def test_a_shortlist_is_read_before_anything_else(command):
    result = invoke(*command, "--shortlist", "k=50:base=median")
    assert_refused(result, "base 'median'", "mean, unconditional, clusters")
    result = invoke(*command, "--shortlist", "50")
    assert_refused(result, "An example: k=50:rounds=2")


@pytest.mark.parametrize(
    "name", ["loss", "seed", "noise", "interpolation", "merge", "temperature"]
)
def test_defaults_are_those_of_the_package(name):
    (option,) = (p for p in classify_command.params if p.name == name)
    assert option.default == getattr(Settings(), name)


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, **kwargs
    )


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["classify", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(args):
    code = (
        "import sys\n"
        "from diffjax.cli.commands import group\n"
        f"try: group({args})\n"
        "except SystemExit: pass\n"
        f"print([m for m in {(*HEAVY, 'numpy')} if m in sys.modules], file=sys.stderr)"
    )
    assert run("-c", code).stderr.splitlines()[-1] == "[]"
