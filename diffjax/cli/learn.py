"""``diffjax learn``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from diffjax.cli import completion
from diffjax.cli.group import (
    fail_if_partial,
    group,
    loading,
    partial_option,
    print_json,
    start,
)
from diffjax.cli.options import (
    data_dir_option,
    new_file,
    number,
    option,
    path,
    quiet_option,
    section,
    switch,
)

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.classify.samples import LearnedSamples
    from diffjax.cli.columns import FittingTable
    from diffjax.evaluation.learning import Step
    from diffjax.runs.run import Run

EPILOG = """\b
Example:
  diffjax evaluate cifar10 --split train --per-class 40 --noise shared \\
      --save-errors --strategy exhaustive:n_samples=64 --out runs/train
  diffjax learn runs/train --out samples.json
  diffjax evaluate cifar10 --samples samples.json --out runs/few-shot"""
OF_NOISES = ("per_class", "steps", "batch", "rate", "data_dir", "model")


@group.command(
    epilog=EPILOG,
    usual=("--out", "--count", "--most", "--noises", "--plot", "--json"),
)
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@section(
    "deciding",
    number("--count", "How many samples.", show_default="as few as do as well as more"),
    number("--most", "How many are tried.", default=16),
    path("--noise", "FILE", "The file of the run's noise, if it had one."),
    switch(
        "--noises",
        "Improve the noises too, by gradient with the model, into a file beside.",
    ),
    number(
        "--teachers",
        "Images of each class that noises learn from; as many say when to stop.",
        default=8,
        name="per_class",
    ),
    number("--steps", "Of the gradient, at most.", default=200),
    number("--batch", "Images a step.", default=8),
    option("--rate", "X", "Of learning noises.", type=float, default=0.03),
)
@section(
    "data",
    option(
        "--classes", "A:B,...", "Learn from these classes of the run alone, from 0."
    ),
    data_dir_option("Where the run's images are."),
)
@section(
    "model",
    option(
        "--model",
        "NAME",
        "The run's model, if it lies elsewhere now.",
        shell_complete=completion.models,
    ),
)
@section(
    "output",
    new_file("--out", "Where the samples go.", short="-o", show_default="in RUN"),
    new_file("--plot", "Draw accuracy against the number of samples."),
    switch("--json", "JSON on standard output.", name="as_json"),
    quiet_option,
    partial_option,
)
def learn(
    run: str,
    out: Path | None,
    count: int | None,
    most: int,
    classes: str | None,
    noise: Path | None,
    noises: bool,
    plot: Path | None,
    as_json: bool,
    allow_partial: bool,
    **options: Any,
) -> None:
    """Learn which few samples decide best, from a run's labels.

    RUN has the saved errors of labelled images under shared noise. Its images are dealt
    into folds, each of which is decided by the samples of the others: that is the
    accuracy that is shown. What decides by these samples is few-shot.
    """
    from diffjax.classify.samples import write_samples
    from diffjax.data.classes import parse_classes
    from diffjax.runs.folder import read_run
    from diffjax.runs.learning import learn_samples

    console, stdout = start()
    if not noises:
        _check_unused()
    if plot is not None:
        from diffjax.report.plots import check_output

        check_output(plot)
    found = read_run(run)
    local = None
    if classes is not None:
        named = [(f"--classes {classes}", classes)]
        local = parse_classes(named, named[0][0], len(found.classes))
    samples, rows = learn_samples(
        found, count=count, most=most, classes=local, noise_file=noise
    )
    place = out or Path(run) / "samples.json"
    if noises:
        samples = _improved(samples, found, place, local, console, options)
    else:
        write_samples(place, samples)
    if plot is not None:
        from diffjax.report.plots import save_figure
        from diffjax.report.study_plots import learning_figure

        title = f"{samples.model['name']} on {samples.learned_on['data']}"
        save_figure(learning_figure(rows, title, samples.learned_on["images"]), plot)
    if as_json:
        print_json({"samples": samples.as_dict(), "curve": rows, "file": str(place)})
    else:
        stdout.print(_table(rows, len(samples)))
        stdout.print(_text(samples), highlight=False)
        stdout.print(f"written to {place}", highlight=False, soft_wrap=True)
    fail_if_partial([found.shortfall], allow_partial)


def _check_unused() -> None:
    """Refuse what only --noises would use, so that nobody believes that it did."""
    context = click.get_current_context()
    for each in context.command.params:
        given = context.get_parameter_source(each.name or "")
        if each.name in OF_NOISES and given is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"Only --noises uses {each.opts[0]}.")


def _improved(
    samples: "LearnedSamples",
    run: "Run",
    place: Path,
    classes: Any,
    console: "Console",
    options: dict[str, Any],
) -> "LearnedSamples":
    """Improve the noises with the model, tell how far it is, and write them."""
    with loading(console, options["quiet"]):
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.evaluation.learning import (
            Course,
            improve,
            settings_of,
            task_of,
            write_noises,
        )

    def watch(step: "Step") -> None:
        if options["quiet"]:
            return
        learned = "" if step.learned is None else f", {step.learned:.3f} learned from"
        click.echo(
            f"step {step.step}: −log p {step.held:.3f} on images held out{learned}"
            f"{' *' if step.best else ''}",
            err=True,
        )

    task = task_of(run, options["data_dir"])
    classifier = DiffusionClassifier.from_pretrained(
        **settings_of(run, options["model"]),
        noise=samples.noise_file or samples.noise,
        seed=samples.seed,
    )
    course = Course(**{k: options[k] for k in ("per_class", "steps", "batch", "rate")})
    learned, noises = improve(
        samples, run, task, classifier, course, classes=classes, watch=watch
    )
    return write_noises(place, learned, noises)


def _table(rows: list[dict[str, Any]], chosen: int) -> "FittingTable":
    from diffjax.cli.columns import Column, FittingTable
    from diffjax.cli.tables import stacked

    table = FittingTable(
        columns=[
            Column(title="samples"),
            Column(title="learned %"),
            Column(title="evenly spread %"),
        ]
    )
    for row in rows:
        table.add_row(
            f"{row['samples']}",
            stacked(row["learned"], *row["learned_interval"]),
            stacked(row["even"], *row["even_interval"]),
            style="bold" if row["samples"] == chosen else "",
        )
    return table


def _text(samples: "LearnedSamples") -> str:
    on, known = samples.learned_on, samples.accuracy
    how = "cross-validated" if "cross_validated" in known else "held_out"
    value = known.get("cross_validated", known.get("held_out"))
    low, high = (100 * end for end in known["interval"])
    where = {
        "cross-validated": f"images in {known.get('folds')} folds, each decided by "
        "samples of the others",
        "held_out": f"{known.get('images')} images that the gradient did not see, but "
        "which had a say in the samples and said when to stop",
    }[how]
    return (
        f"{len(samples)} samples, {100 * value:.1f} % right ({low:.1f} to {high:.1f}) "
        f"on {where}; learned on {on['images']:,} images of {on['data']}, "
        f"τ = {samples.temperature:.3g}. What decides by them is few-shot."
    )
