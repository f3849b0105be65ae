"""``diffjax study``."""

from pathlib import Path

import click

from diffjax.cli import completion
from diffjax.cli.group import fail_if_partial, group, partial_option, print_json, start
from diffjax.cli.options import path, switch

EPILOG = """\b
Studies:
  variance  spread over noises, of errors and of differences between classes;
            needs several noises a timestep
  timestep  accuracy of deciding by one timestep alone
  samples   accuracy against the number of samples: even over the timesteps,
            at the middle one, around it, and even with learned weights

\b
Example:
  diffjax evaluate cifar10 --limit 200 --save-errors --out runs/full \\
      --strategy exhaustive:n_samples=20:n_trials=8
  diffjax study samples runs/full --out docs"""


@group.command(epilog=EPILOG)
@click.argument("study", type=click.Choice(["variance", "timestep", "samples"]))
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@path("--out", "FOLDER", "Where STUDY.csv and STUDY.png go.", show_default="the run's")
@switch("--json", "The table on standard output.", name="as_json")
@partial_option
def study(
    study: str, run: str, out: Path | None, as_json: bool, allow_partial: bool
) -> None:
    """Draw a figure of the paper from a run's saved errors.

    RUN holds the errors of all classes on all samples.
    """
    import csv

    from diffjax.classify.settings import loss_name
    from diffjax.report.plots import save_figure
    from diffjax.report.study_plots import study_figure
    from diffjax.runs.folder import read_run
    from diffjax.runs.outcomes import left_out
    from diffjax.runs.studies import STUDIES, read_errors

    console, _ = start()
    found = read_run(run)
    errors = read_errors(found)
    table = STUDIES[study](errors)
    folder = Path(run) if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{study}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    n, C = errors.values.shape[:2]
    experiment = found.header["experiment"]
    title = (
        f"{found.header['model']['name']} on {experiment['dataset']}, "
        f"{loss_name(experiment)}, {n:,} images"
    )
    if found.shortfall is not None:
        title += f" of {found.header['data']['n']:,}, {found.status}"
    save_figure(study_figure(study, table, title, 1 / C), folder / f"{study}.png")
    if as_json:
        print_json(table)
    else:
        console.print(
            f"Wrote {folder / f'{study}.csv'} and {study}.png beside it.",
            markup=False,
            soft_wrap=True,
        )
    if failed := left_out(found):
        click.echo(f"note: {failed}", err=True)
    fail_if_partial([found.shortfall], allow_partial)
