"""``diffjax evaluate``."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffjax.choices import LOSSES, STRATEGY
from diffjax.cli.group import Failure, group, keep, loading, print_json, start
from diffjax.cli.options import (
    Decorator,
    checkpoint_options,
    cost_options,
    image_options,
    max_pixels_option,
    merge_option,
    scoring_options,
    strategy_epilog,
    together,
)
from diffjax.data.presets import PRESETS, Preset
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from diffjax.classify.progress import Progress
    from diffjax.evaluation.experiment import Experiment
    from diffjax.evaluation.tracking import Tracker


def _preset_line(preset: Preset) -> str:
    """A line of the help; all presets are staged, in the official order."""
    data = f"{preset.dataset.partition('/')[0]} {preset.split}"
    stages = (part.rpartition("=")[2] for part in preset.strategy.split(":")[1:3])
    return f"  {preset.name:15} {data:23} {preset.loss} {' / '.join(stages)}"


PRESET_LINES = "\n".join(map(_preset_line, PRESETS.values()))
EPILOG = f"""{strategy_epilog(STRATEGY, "default without PRESET")}

\b
Examples:
  diffjax evaluate cifar10 --data-dir data --limit 100
  diffjax evaluate pets --model sd-2-base --out runs/pets
  diffjax evaluate imagenet --model dit-256 --also vlb --dry-run
  diffjax evaluate cifar10 --corrupt blur:3
  diffjax evaluate --dataset ./photos --template "a photo of a {{}}."

\b
Presets, with data, loss, and classes kept / samples seen after each stage:
{PRESET_LINES}"""
LOG_EVERY = 10  # images

data_options: Decorator = together(
    click.option(
        "--dataset",
        metavar="NAME|PATH",
        help="A prepared tensorflow-datasets set, aircraft, objectnet; ./a/folder with "
        "a folder a class; a .csv or .jsonl of paths and labels.",
    ),
    click.option("--split", metavar="SPLIT", help="Split of the data set."),
    click.option(
        "--data-dir",
        metavar="DIR",
        show_default="TFDS_DATA_DIR or ~/tensorflow_datasets",
        help="Where data sets are.",
    ),
    click.option(
        "--subset",
        metavar="FILE.npy|RANGES",
        help="Images by their index: a file, or 0:100,200:300.",
    ),
    click.option(
        "--per-class",
        type=click.IntRange(min=1),
        metavar="N",
        help="Take so many images of each class.",
    ),
    click.option(
        "--subset-seed",
        type=click.IntRange(min=0),
        metavar="N",
        default=0,
        show_default=True,
        help="Seed of the draw of --per-class.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help="Take so many images, spread evenly.",
    ),
    max_pixels_option,
    click.option(
        "--corrupt",
        metavar="KIND:SEVERITY",
        help="Make the images worse: noise, blur, contrast, jpeg or shift, 1 to 5.",
    ),
    click.option(
        "--classes",
        metavar="FILE.txt|NAME",
        help="Numbers of the classes to choose from; they keep their numbers.",
    ),
)
class_options: Decorator = together(
    click.option(
        "--prompts",
        metavar="FILE.csv|NAME",
        help="Columns prompt, classname, classidx; or a preset's.",
    ),
    click.option(
        "--classnames",
        metavar="FILE",
        help="File of class names, as CLIP_benchmark has it.",
    ),
    click.option(
        "--templates",
        metavar="FILE",
        help="File of templates, as CLIP_benchmark has it; without --classnames for "
        "the set's own names.",
    ),
    click.option(
        "--clip-name",
        metavar="KEY",
        help="What these files call the data set, where they are tables of several.",
    ),
    click.option(
        "--template",
        multiple=True,
        metavar="TEXT",
        help="Prompt with a {} for the data set's class name; may be repeated.",
    ),
    click.option(
        "--prefilter",
        metavar="FILE",
        help="Candidate classes of each image, as CLIP may have chosen them: a .csv or "
        ".parquet with the columns id and classes. Reported apart.",
    ),
    merge_option,
)
run_options: Decorator = together(
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        metavar="RUN",
        show_default="runs/DATASET-MODEL",
        help="Folder of the run; a run that is there goes on.",
    ),
    click.option(
        "--save-errors",
        is_flag=True,
        help="Keep all errors, for `diffjax rescore` and more of `diffjax report`.",
    ),
    click.option(
        "--latent-cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder that keeps the images' latents for other runs.",
    ),
    click.option(
        "--allow-errors",
        is_flag=True,
        help="End well even if some images could not be read.",
    ),
    click.option(
        "--dry-run", is_flag=True, help="Print what it would cost; evaluate nothing."
    ),
    click.option(
        "--process-index",
        type=click.IntRange(min=0),
        metavar="K",
        default=0,
        show_default=True,
        help="Which of several processes on one run this is, from 0.",
    ),
    click.option(
        "--process-count",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="How many there are; each does its part of the images.",
    ),
    click.option(
        "--distributed",
        is_flag=True,
        help="Take both from what launched the processes: Slurm, MPI or a TPU pod.",
    ),
    click.option("--wandb", metavar="PROJECT", help="Follow it on Weights & Biases."),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Follow it in TensorBoard.",
    ),
    click.option("--json", "as_json", is_flag=True, help="JSON on standard output."),
    click.option("--quiet", "-q", is_flag=True, help="No progress on standard error."),
)


@group.command(epilog=EPILOG)
@click.argument("preset", required=False, metavar="[PRESET]")
@data_options
@class_options
@scoring_options
@click.option(
    "--also",
    multiple=True,
    type=click.Choice(LOSSES),
    help="A further loss, of the same evaluations; may be repeated.",
)
@cost_options
@image_options
@checkpoint_options
@run_options
@click.pass_context
def evaluate(ctx: click.Context, /, preset: str | None, **options: Any) -> None:
    """Evaluate a model on a data set.

    PRESET is a data set with all of its settings; what is given besides takes their
    place. The run goes to a folder; the same command again goes on where it stopped.
    """
    console, stdout = start()
    quiet, as_json = options.pop("quiet"), options.pop("as_json")
    dry_run, allow_errors = options.pop("dry_run"), options.pop("allow_errors")
    trackers_asked = options.pop("wandb"), options.pop("tensorboard")
    out, cache = options.pop("out"), options.pop("latent_cache")
    save_errors, model = options.pop("save_errors"), options.pop("model")
    process = options.pop("process_index"), options.pop("process_count")
    distributed = options.pop("distributed")
    with loading(console, quiet):
        from diffjax.evaluation.launchers import launched
        from diffjax.evaluation.plan import make_plan
        from diffjax.evaluation.runner import evaluate as run_evaluation
        from diffjax.runs.folder import read_run
        from diffjax.runs.outcomes import failures
        from diffjax.runs.sharing import Share
    if distributed and process != (0, 1):
        raise DiffjaxError(
            "--distributed finds out what --process-index and --process-count say: "
            "give one or the other."
        )
    share = launched() if distributed else Share(*process)
    experiment = _experiment(ctx, preset, options)
    task = experiment.task(options.pop("data_dir"))
    name = preset or _short(experiment.dataset)
    if experiment.corrupt is not None:
        name += f"-{experiment.corrupt.replace(':', '-')}"
    out = out or Path("runs") / f"{name}-{_short(model.rpartition('/')[2] or model)}"
    trackers = [] if dry_run else _trackers(*trackers_asked, experiment, model)

    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.classify.progress import Progress
    from diffjax.cli.progress import Bar
    from diffjax.cli.tables import plan_table, summary_table

    with loading(console, quiet, f"loading {model}"):
        classifier = DiffusionClassifier.from_pretrained(model, **options)
    ways = ("prompts", "classnames", "templates", "template")
    given = any(ctx.params[way] for way in ways)
    if classifier.model.kind == "class" and given:
        warnings.warn(
            f"{model} knows classes by id: prompts are not used.", stacklevel=1
        )
    numbers = all(name.isdecimal() for name in task.class_names)
    if classifier.model.kind == "text" and numbers and not (preset or given):
        warnings.warn(
            f"The classes of {experiment.dataset} are numbers, and so prompts are such "
            f"as {task.prompts.prompts[0]!r}. Name them: with --prompts, or with "
            "--classnames and --templates.",
            stacklevel=1,
        )
    if dry_run:
        with loading(console, quiet, "timing a few tiles"):
            plan = make_plan(task, classifier)
        print_json(plan.as_dict()) if as_json else stdout.print(plan_table(plan))
        return

    with Bar(console, f"{name} {model}", quiet=quiet) as bar:
        logged = -1

        def watch(now: Progress) -> None:
            nonlocal logged
            bar.show(now)
            due = now.done % LOG_EVERY == 0 or now.done == now.total
            if due and now.done > logged:
                logged = now.done
                for tracker in trackers:
                    tracker.log(now.done, _values(now))

        try:
            result = run_evaluation(
                task,
                classifier,
                out,
                asked=experiment.as_dict(),
                save_errors=save_errors,
                cache=cache,
                share=share,
                progress=Progress(watch=watch),
                opened=lambda run: keep(run.flush),
            )
        finally:
            for tracker in trackers:
                tracker.close()
    if as_json:
        print_json(result)
    else:
        stdout.print(summary_table(result))
    click.echo(f"Run: {out}", err=True)
    if classifier.work.tiles and not quiet:
        click.echo(f"{classifier.work}", err=True)
    if share.count == 1 and (shortfall := read_run(out, errors=False).shortfall):
        raise Failure(shortfall)
    if missing := len(task.indices) - result["images"] - result["failed_images"]:
        click.echo(f"{missing:,} images are left to other processes", err=True)
    if result["failed_images"] and not allow_errors:
        first, reason = failures(read_run(out, errors=False))[0]
        raise Failure(
            f"{result['failed_images']:,} of {len(task.indices):,} images failed; the "
            f"first, {first}: {reason}\nThe same command tries them again; "
            "--allow-errors accepts them."
        )


def _experiment(
    ctx: click.Context, preset: str | None, options: dict[str, Any]
) -> "Experiment":
    """The preset with what was given; strategy and loss stay in ``options``."""
    from diffjax.evaluation.experiment import (
        Experiment,
        overridden,
        preset_experiment,
    )
    from diffjax.strategies import parse_strategy

    names = (
        *("dataset", "split", "subset", "per_class", "subset_seed", "limit"),
        *("classes", "prompts", "classnames", "templates", "clip_name", "template"),
        "prefilter",
        "corrupt",
        "max_pixels",
    )
    given = {name: options.pop(name) for name in names}
    if preset is not None:
        experiment, strategy, loss = preset_experiment(preset)
        options["strategy"] = options["strategy"] or strategy
        if ctx.get_parameter_source("loss") == ParameterSource.DEFAULT:
            options["loss"] = loss
    elif given["dataset"] is not None:
        experiment = Experiment(dataset=given["dataset"])
    else:
        raise DiffjaxError(
            "Name a preset, as in `diffjax evaluate cifar10`, or give --dataset."
        )
    if options["strategy"] is None:
        del options["strategy"]
    else:
        options["strategy"] = parse_strategy(options["strategy"])
    return overridden(experiment, given)


def _short(name: str) -> str:
    """What a folder can be called after a data set or a model."""
    from diffjax.data.tables import SUFFIXES

    is_table = name.lower().endswith(SUFFIXES)
    if not (is_table or name.startswith((".", "/", "~"))):
        return name.replace("/", "-").replace(":", "-")
    path = Path(name).expanduser().resolve()  # "." has no name
    return path.stem if is_table else path.name


def _trackers(
    wandb: str | None, tensorboard: Path | None, experiment: "Experiment", model: str
) -> "list[Tracker]":
    from diffjax.evaluation.tracking import TensorBoardTracker, WandbTracker

    trackers: list[Tracker] = []
    if wandb is not None:
        trackers.append(WandbTracker(wandb, experiment.as_dict() | {"model": model}))
    if tensorboard is not None:
        trackers.append(TensorBoardTracker(tensorboard))
    return trackers


def _values(now: "Progress") -> dict[str, float]:
    """What is followed."""
    accuracy = {"accuracy": (now.correct or 0) / now.judged} if now.judged else {}
    return accuracy | {
        "failed": float(now.failed),
        "evaluations": float(now.evaluations),
    }
