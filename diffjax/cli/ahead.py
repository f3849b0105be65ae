"""``diffjax bench --compile-for``: tiles compiled for devices that are not here."""

import os
from dataclasses import asdict
from itertools import product
from typing import Any

from diffjax.cli.group import loading, print_json, start

# for JAX, which has not started: that it stays away from this machine's accelerators,
# the TPU's compiler from the network; kept programs would hide what compiling takes
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any: without one it complains
}


def compiled(
    elsewhere: tuple[str, ...],
    model: str,
    random: bool,
    parts: dict[str, Any],
    dtypes: tuple[str, ...],
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compile tiles for devices that are not here, and print what the compiler says.

    Args:
        elsewhere: The names of the devices.
        model: A model, or the name of one with random weights.
        random: Whether the model is one with random weights.
        parts: Where other parts of the model come from.
        dtypes: The number types of the denoiser.
        shapes: Resolutions, blocks and classes, of which every combination is compiled.
        as_json: Whether to print JSON instead of a table.
        quiet: Whether to show no progress.
    """
    os.environ.update(ENVIRONMENT)
    console, out = start()
    with loading(console, quiet):
        from diffjax.evaluation.ahead import Ahead
        from diffjax.evaluation.bench import report

    tiles: list[dict[str, Any]] = []
    name = model
    for devices, dtype in product(elsewhere, dtypes):
        ahead = Ahead(
            devices=devices, model=model, random=random, dtype=dtype, parts=parts
        )
        with loading(console, quiet, f"compiling for {devices} in {ahead.dtype}"):
            tiles += map(asdict, ahead.tiles(*shapes))
            name = ahead.subject.name
    result = report(name, "none: compiled ahead of time", tiles=tiles)
    if as_json:
        print_json(result)
        return
    for row in result["tiles"]:
        out.print(f"{result['model']} · {heading(row)}", highlight=False)
        for name, text in lines(row).items():
            out.print(f"  {name:<12}{text}", highlight=False, soft_wrap=True)
    sources = sorted({row["source"] for row in result["tiles"]})
    out.print("published peaks: " + ", ".join(sources), style="dim", soft_wrap=True)


def heading(row: dict[str, Any]) -> str:
    """Say which tile it is, and for what."""
    return (
        f"{row['devices']} · {row['dtype']} · {row['resolution']} px · "
        f"{row['blocks']} blocks × {row['classes']} classes"
    )


def lines(row: dict[str, Any]) -> dict[str, str]:
    """Return what the compiler says of a tile, by name."""
    memory = row["memory"] / 1e9
    if row["seconds"] is None:
        return {"memory": f"the {memory:.0f} GB of a device do not hold it"}
    size = row["bytes_accessed"]
    most = {
        f"by {what}": row[f"bound_by_{what}"]
        for what in ("flops", "bytes")
        if row[f"bound_by_{what}"] is not None
    }
    exchanges, kernels = (
        ", ".join(f"{n} {kind}" for kind, n in sorted(row[counts].items())) or "none"
        for counts in ("collectives", "kernels")
    )
    return {
        "memory": f"{row['arguments'] / 1e9:.2f} + {row['temporaries'] / 1e9:.2f} of "
        f"{memory:.0f} GB a device" + ("" if row["fits"] else ": it does not fit"),
        "largest": f"{row['largest']:,} evaluations would fit, about; "
        f"diffjax evaluate takes {row['planned']:,}, "
        f"at {row['reckoned'] / 1e6:.3g} MB each",
        "work": f"{row['flops'] / 1e12:.3g} TFLOP"
        + ("" if size is None else f", {size / 1e9:.3g} GB"),
        "at most": ", ".join(f"{n:,.0f} {by}" for by, n in most.items())
        + " evaluations/s"
        if most
        else "unknown",
        "exchanges": exchanges,
        "kernels": kernels,
        "compiled in": f"{row['seconds']:.1f} s",
    }
