"""What the help says, and what it costs."""

import inspect
import re
import subprocess
import sys

import click
import pytest
from commands import assert_refused, invoke

from diffjax import choices
from diffjax.checkpoints.loading import load_model
from diffjax.checkpoints.parts import Parts
from diffjax.classify.explanation import explain
from diffjax.classify.settings import Settings
from diffjax.cli.commands import group
from diffjax.cli.help import HELP_ALL, MANY, SECTIONS
from diffjax.evaluation.bench import Bench
from diffjax.evaluation.experiment import Experiment
from diffjax.runs.official import import_results
from diffjax.runs.rescoring import rescore
from diffjax.runs.sharing import Share
from diffjax.strategies import parse_strategy
from diffjax.training.runs import run_training

HEAVY = ("jax", "flax", "transformers", "matplotlib", "torch", "tensorflow_datasets")

PARTS = (
    *("--model", "--unet", "--transformer", "--vae", "--text-encoder"),
    *("--text-encoder-2", "--text-encoder-3", "--tokenizer", "--tokenizer-2"),
    *("--tokenizer-3", "--lora", "--textual-inversion", "--shift", "--guidance"),
    *("--variant", "--revision", "--cache-dir", "--prompt-cache", "--offline"),
)
IMAGES = "--resolution", "--transform", "--interpolation", "--sizes", "--max-pixels"
WHICH = (
    *("--split", "--data-dir", "--subset", "--per-class", "--subset-seed", "--limit"),
    *("--corrupt", "--classes"),
)
ERRORS = "--loss", "--space", "--seed", "--noise"
DECIDING = (
    "--strategy",
    "--budget",
    "--shortlist",
    "--samples",
    *ERRORS,
    "--temperature",
)
DEVICE = "--dtype", "--cells", "--shard-weights"
SHARE = "--process-index", "--process-count"
TOLD = "--json", "--quiet"
HELP = {
    "app": (
        *("--max-labels", "--host", "--port", "--no-browser", "--quiet"),
        *(*DECIDING, *IMAGES, "--model", *PARTS[1:], *DEVICE),
    ),
    "audit": (
        *("--split", "--data-dir", "--subset", "--per-class", "--subset-seed"),
        *("--limit", "--classes", "--image-column", "--label-column", "--max-pixels"),
        *("--filter", "--min-size", "--min-aesthetic", "--max-unsafe"),
        *("--clip", "--aesthetic-head", "--detector"),
        *("--revision", "--cache-dir", "--offline", "--out", "--allow-errors", *TOLD),
    ),
    "baseline": (
        *("--prompts", "--classnames", "--templates", "--clip-name", "--template"),
        *("--revision", "--cache-dir", "--offline"),
        *(*WHICH, "--max-pixels", "--out", "--allow-errors", *TOLD),
    ),
    "bench": (
        *("--random", "--blocks", "--classes", "--dtype", "--resolution"),
        *("--compile-for", *PARTS, *TOLD),
    ),
    "calibrate": ("--save", "--json", "--allow-partial"),
    "classify": (
        *("--labels", "--template", "--prompts", "--merge", "--top", "--plot"),
        *(*DECIDING, *IMAGES, *PARTS, *DEVICE, *TOLD),
        *("--global-mesh", "--coordinator", *SHARE),
    ),
    "demo": (
        *("--strategy", "--loss", "--space", "--seed", "--out"),
        *(*PARTS, *DEVICE, *TOLD),
    ),
    "evaluate": (
        *("--dataset", "--image-column", "--label-column", *WHICH, *IMAGES),
        *("--prompts", "--classnames", "--templates", "--clip-name", "--template"),
        *("--prefilter", "--merge", "--latent-cache"),
        *(*DECIDING, "--also", *PARTS, *DEVICE),
        *(*SHARE, "--distributed", "--out", "--save-errors", "--allow-errors"),
        *("--paper", "--dry-run", "--wandb", "--tensorboard", *TOLD),
    ),
    "import": (
        *("--out", "--prompts", "--labels", "--dataset", "--split", "--allow-errors"),
        "--json",
    ),
    "explain": (
        *("--labels", "--template", "--n-samples", "--bands", "--out"),
        *(*ERRORS, *IMAGES, *PARTS, "--dtype", "--shard-weights", *TOLD),
    ),
    "features": (
        *("--train-split", "--train-dataset", "--train-limit", "--train-subset"),
        *("--split", "--data-dir", "--subset", "--per-class", "--subset-seed"),
        *("--limit", "--classes", "--image-column", "--label-column", *IMAGES),
        *("--latent-cache", "--layers", "--timesteps", "--heads", "--places"),
        *("--epochs", "--held-out", "--seed", "--noise", *PARTS, *DEVICE),
        *("--out", "--plot", "--zero-shot", *TOLD),
    ),
    "learn": (
        *("--count", "--most", "--noise", "--noises", "--teachers", "--steps"),
        *("--batch", "--rate", "--classes", "--data-dir", "--model", "--out", "--plot"),
        *("--allow-partial", *TOLD),
    ),
    "models": ("--json",),
    "report": ("--html", "--csv", "--table", "--json", "--allow-partial"),
    "reproduce": ("--runs", "--html", "--json"),
    "rescore": (
        *("--loss", "--space", "--weights", "--strategy", "--folds", "--bins"),
        *("--out", "--json", "--allow-partial"),
    ),
    "robustness": (
        *("--plot", "--csv", "--clean", "--line", "--point", "--shift"),
        *("--all-classes", "--json"),
    ),
    "sample": (
        *("--labels", "--template", "--prompts", "--per-class", "--steps", "--seed"),
        *("--resolution", "--batch", "--dtype", "--shard-weights"),
        *(*PARTS, "--out", "--sheet", "--dry-run", *TOLD),
    ),
    "study": ("--out", "--json", "--allow-partial"),
    "train": (
        *("--data-dir", "--data", "--resize", "--out", "--length", "--steps"),
        *("--init", "--seed"),
    ),
    "winoground": (
        *("--n-samples", "--limit", "--images", *ERRORS, *IMAGES, *PARTS, *DEVICE),
        *(*SHARE, "--distributed", "--out", "--allow-errors", *TOLD),
    ),
}


def test_every_command_is_in_the_help():
    text = invoke("--help").stdout
    assert "..." not in text.partition("Commands")[2]
    assert set(group.commands) == set(HELP)
    for name in HELP:
        assert f"\n  {name} " in text


def options_of(command):
    parameters = group.commands[command].params
    return [each for each in parameters if isinstance(each, click.Option)]


def flags(help):
    """Of the lines that begin with one, between description and listings."""
    options = re.split(r"^[A-Z].*:$", help, maxsplit=1, flags=re.MULTILINE)[1]
    options = options.partition("\nStrategies:")[0]
    return re.findall(r"^  (?:-\w, )?(--[a-z][a-z0-9-]+)", options, flags=re.MULTILINE)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("command", HELP)
def test_the_help_names_every_option(command, width):
    many = len(HELP[command]) > MANY
    more = "--help-all" if many else "--help"
    result = invoke(command, more, terminal_width=width)
    assert result.exit_code == 0
    more = {"--help", "--help-all"} if many else {"--help"}
    named = flags(result.stdout)
    assert set(named) == set(HELP[command]) | more
    assert len(named) == len(set(named))
    for option in options_of(command):
        assert set(option.opts) & set(named) and option.help
        assert not many or HELP_ALL in option.opts or option.section in SECTIONS
    wrapped = result.stdout.partition("\nExample")[0]
    if width >= 80:  # else what is to be copied is longer
        assert max(map(len, wrapped.splitlines())) <= width


@pytest.mark.parametrize("command", [c for c in HELP if len(HELP[c]) > MANY])
def test_what_is_usual_comes_first(command):
    usual = group.commands[command].usual
    shown = flags(invoke(command, "--help").stdout)
    assert set(shown) == {*usual, "--help-all", "--help"} and len(usual) <= 10


@pytest.mark.parametrize("command", ["classify", "demo"])
def test_the_help_has_strategies_to_copy(command):
    lines = [line.strip() for line in invoke(command, "--help").stdout.splitlines()]
    assert "exhaustive:n_samples=250" in lines
    assert f"{choices.STRATEGY}  [default]" in lines


@pytest.mark.parametrize(
    "command", [("classify", "cat.jpg", "--labels", "a,b"), ("evaluate", "cifar10")]
)
def test_a_shortlist_is_read_before_anything_else(command):
    result = invoke(*command, "--shortlist", "k=50:base=median")
    assert_refused(result, "no setting 'base'", "k, n_samples, directions, risk")
    result = invoke(*command, "--shortlist", "50")
    assert_refused(result, "An example: k=50:n_samples=64, or auto:risk=0.01")


# what is called with a command's options, by their names
CALLED = {
    "baseline": (Experiment,),
    "bench": (Bench.timings,),
    "classify": (Settings, load_model, Parts),
    "demo": (Settings, load_model),
    "evaluate": (Settings, load_model, Parts, Experiment, Share),
    "explain": (Settings, load_model, Parts, explain),
    "import": (import_results,),
    "rescore": (rescore,),
    "train": (run_training,),
    "winoground": (Settings, load_model, Parts),
}
# an option's name where the keyword is another
KEYWORDS = {"process_index": "index", "process_count": "count"}
NOTHING = (None, (), False)


def defaults(called):
    if called is Parts:
        return dict.fromkeys(Parts.__annotations__)
    parameters = inspect.signature(called).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


@pytest.mark.parametrize("command", CALLED)
def test_defaults_are_those_of_what_is_called(command):
    """Classes and functions have theirs; those of options must say the same."""
    known = {}
    for called in CALLED[command]:
        known |= defaults(called)
    context = click.Context(group.commands[command])
    compared = 0
    for option in options_of(command):
        name = option.name
        if name not in known:
            name = KEYWORDS.get(name, name) if command == "evaluate" else name
        if name not in known:
            continue
        given, own = option.get_default(context), known[name]
        given = None if "UNSET" in repr(given) else given  # as click says it
        if name == "strategy" and command != "rescore":
            assert given in NOTHING  # its default is in the help
            assert parse_strategy(choices.STRATEGY) == Settings().strategy
        else:
            same = (given in NOTHING and own in NOTHING) or given in (own, (own,))
            assert same, option.opts
        compared += 1
    assert compared >= 1


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
