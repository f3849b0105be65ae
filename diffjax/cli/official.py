"""``diffjax import``."""

import click

from diffjax.cli.completion import folders
from diffjax.cli.group import Failure, fail, group, print_json
from diffjax.cli.options import option, switch

EPILOG = """\b
Example:
  diffjax import data/pets/v2-0_1trials_5_1keep_25_250samples_l1 \\
    --prompts prompts/pets_prompts.csv --out runs/pets-official"""


@group.command(name="import", epilog=EPILOG)
@click.argument("folder", metavar="DIR", shell_complete=folders)
@option("--out", "RUN", "Folder of the new run.", required=True)
@option(
    "--prompts",
    "FILE.csv",
    "The prompts that the results were made with; of DiT, one for each class.",
    name="prompts_file",
    required=True,
)
@option(
    "--labels",
    "FILE.npy",
    "For DiT, whose results hold none: the class of each image, by its number.",
    name="labels_file",
)
@option(
    "--dataset", "NAME", "What the data set is called.", show_default="from DIR's path"
)
@option("--split", "NAME", "Split of the data set.", default="test")
@switch("--allow-errors", "Succeed although files are broken.")
@switch("--json", "JSON on standard output.", name="as_json")
def import_(
    folder: str,
    out: str,
    prompts_file: str,
    labels_file: str | None,
    dataset: str | None,
    split: str,
    allow_errors: bool,
    as_json: bool,
) -> None:
    """Read results of the authors' program into a run.

    DIR holds a .pt file for each image, as eval_prob_adaptive.py writes them, or the
    folders of classes that eval_prob_dit.py writes. Reading them takes torch, but
    runs nothing that they hold. The run can be reported, rescored and calibrated.
    """
    from pathlib import Path

    from diffjax.data.prompts import Prompts
    from diffjax.runs.metrics import summary
    from diffjax.runs.official import import_results
    from diffjax.runs.official_dit import holds_dit, import_dit, read_labels

    prompts = Prompts.read_csv(prompts_file)
    source, run_folder = Path(folder), Path(out)
    if holds_dit(source):
        if labels_file is None:
            raise Failure(f"{folder} holds results of DiT: give their --labels.")
        labels = read_labels(Path(labels_file))
        run = import_dit(
            source, run_folder, prompts, labels, dataset=dataset, split=split
        )
    elif labels_file is not None:
        raise Failure(f"{folder} does not hold results of DiT: leave out --labels.")
    else:
        run = import_results(source, run_folder, prompts, dataset=dataset, split=split)
    result = summary(run)
    if as_json:
        print_json(result)
    else:
        low, high = result["intervals"]["acc1"]
        click.echo(
            f"{result['images']:,} images written to {out}: accuracy "
            f"{100 * result['metrics']['acc1']:.1f} % "
            f"({100 * low:.1f}–{100 * high:.1f})"
        )
    broken = [error for error in run.rows["error"].to_pylist() if error is not None]
    if allow_errors:
        for error in broken:
            click.echo(f"note: {error}", err=True)
    else:
        fail(broken)
