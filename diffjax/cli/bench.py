"""``diffjax bench``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from diffjax.choices import DTYPES
from diffjax.cli.ahead import compiled
from diffjax.cli.group import group, loading, print_json, start
from diffjax.cli.options import (
    checkpoint_options,
    choice,
    json_option,
    number,
    option,
    quiet_option,
    section,
)
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from rich.table import Table

UNTRAINED = (
    *("tiny", "sd-1.5", "sd-2-base", "sdxl", "sd-3-medium", "sd-3.5-medium"),
    *("sd-3.5-large", "flux-dev", "pixart-sigma", "dit-256"),
    *("sit-s-2-256", "sit-b-2-256", "sit-xl-2-256"),
)
EPILOG = """\b
Examples:
  diffjax bench
  diffjax bench --random sd-2-base --dtype bfloat16 --dtype float32 \\
      --classes 8 --blocks 4 --blocks 16 --resolution 256 --resolution 512
  diffjax bench --random sd-2-base --compile-for v5e:2x4 \\
      --compile-for h100:1x1x8"""


@group.command(
    usual=(
        *("--model", "--random", "--blocks", "--classes", "--dtype", "--resolution"),
        *("--compile-for", "--json", "--quiet"),
    ),
    epilog=EPILOG,
)
@checkpoint_options
@section(
    "model",
    option(
        "--random",
        "SIZE",
        "Instead of a model: its denoiser at full size with random weights, which "
        f"is as fast and needs no download: {', '.join(UNTRAINED)}.",
        name="random",
        type=click.Choice(UNTRAINED),
    ),
)
@section(
    "device",
    number(
        "--blocks",
        "Samples in a tile.",
        multiple=True,
        show_default="what memory holds",
    ),
    number(
        "--classes",
        "Classes that each sample of a tile is evaluated under.",
        multiple=True,
        default=(8,),
    ),
    choice(
        "--dtype",
        DTYPES,
        "Number type of the denoiser; auto is bfloat16 on accelerators, float32 on a "
        "CPU.",
        name="dtypes",
        multiple=True,
        default=("auto",),
    ),
    number(
        "--resolution",
        "Pixels along an edge.",
        name="resolutions",
        multiple=True,
        show_default="the model's",
    ),
    option(
        "--compile-for",
        "DEVICES",
        "Time nothing; compile the tiles for devices that are not here, such as "
        "v5e:2x4, and say what their compiler tells of memory and work.",
        name="elsewhere",
        multiple=True,
    ),
)
@section("output", json_option, quiet_option)
def bench(
    model: str,
    random: str | None,
    blocks: tuple[int, ...],
    classes: tuple[int, ...],
    dtypes: tuple[str, ...],
    resolutions: tuple[int, ...],
    elsewhere: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **parts: Any,
) -> None:
    """Time tiles of evaluations on this machine, or compile them for another.

    --blocks, --classes, --dtype and --resolution may be given several times; every
    combination is timed, and compared with a large matrix product in the same dtype
    and a large copy on the same devices.

    With --compile-for, every combination is compiled for each of the devices that are
    named: v5e, v5p or v6e, and how they lie (v5e:2x4, v5p:2x2x1); or a100, h100 or
    h200, and how many (h100:1x1x4: one network, one machine, four GPUs). It needs no
    accelerator, and takes seconds to minutes.
    """
    given = {name: value for name, value in parts.items() if value}
    if random is not None and given:
        raise DiffjaxError(
            f"--random names all that there is: it goes without {next(iter(given))} "
            "and the like."
        )
    if elsewhere:
        compiled(
            elsewhere,
            random or model,
            random is not None,
            given,
            dtypes,
            (resolutions, blocks, classes),
            as_json=as_json,
            quiet=quiet,
        )
        return
    console, out = start()
    with loading(console, quiet):
        from diffjax.evaluation.bench import Bench, report

    timings: list[dict[str, Any]] = []
    peaks = []
    for dtype in dtypes:
        run = Bench(
            model=random or model,
            random=random is not None,
            dtype=dtype,
            parts=given,
        )
        with loading(console, quiet, f"timing tiles in {dtype}"):
            timings += map(asdict, run.timings(resolutions, blocks, classes))
            peaks.append(run.describe())
    # of a model there is one copy a dtype; the last one names it
    result = report(run.subject.name, run.device, peaks=peaks, timings=timings)
    if as_json:
        print_json(result)
        return
    out.print(speed_table(result))
    for peak in result["peaks"]:
        out.print(peak_text(peak), style="dim", highlight=False)


def speed_table(result: dict[str, Any]) -> "Table":
    """Make a table with a row for each tile."""
    from rich.table import Table

    title = f"{result['model']} · {result['environment']['device']}"
    table = Table(
        title=title, title_justify="left", box=None, header_style="dim", pad_edge=False
    )
    table.add_column("dtype", no_wrap=True)
    for column in (
        *("px", "blocks", "classes", "ms", "eval/s", "TFLOP/s"),
        *("% peak", "FLOP/B", "% roof"),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["timings"]:
        shape = [row["dtype"], row["resolution"], row["blocks"], row["classes"]]
        if row["seconds"] is None:
            table.add_row(*map(str, shape), "out of memory")
            continue
        known = row["intensity"] is not None
        table.add_row(
            *map(str, shape),
            f"{1e3 * row['seconds']:.4g}",
            f"{row['evaluations_per_second']:.4g}",
            f"{row['flops_per_second'] / 1e12:.3g}",
            f"{100 * row['share_of_peak']:.0f}",
            f"{row['intensity']:.3g}" if known else "?",
            f"{100 * row['share_of_roofline']:.0f}" if known else "?",
        )
    return table


def peak_text(peak: dict[str, Any]) -> str:
    """Say what was measured to compare with: the roofline."""
    ridge = peak["flops"] / peak["bandwidth"]
    return (
        f"roofline {peak['dtype']}: {peak['flops'] / 1e12:.3g} TFLOP/s in a large "
        f"matrix product, {peak['bandwidth'] / 1e9:.3g} GB/s in a large copy; below "
        f"{ridge:.3g} FLOP/byte, memory limits."
    )
