"""Whole tiles as compilers see them for accelerators that are not here, as a table.

    python scripts/compile_table.py --devices h100:1x1x1 v5e:1x1 --out table.json

Stable Diffusion 1.5 and 2 at 512 pixels, XL, 3, 3.5, FLUX.1 and PixArt at 1024, and
DiT-XL/2 at 256 and 512, with the tiles that `diffjax evaluate` would take. Nothing is
run: nothing is said of speed but bounds: what the published peaks of a device allow at
most (see `diffjax bench --compile-for`, which compiles one of these). Columns:

    memory         arguments (weights above all) + temporaries, of what JAX can use
    an evaluation  temporaries of the tile / its evaluations; what the planner reckons
    largest        evaluations of the largest tile that would fit, about
    work           TFLOP and GB an evaluation
    at most        evaluations a second by published FLOP/s, and by bandwidth
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

MODELS = {  # a random model, and its resolution
    "SD 1.5": ("sd-1.5", 512),
    "SD 2": ("sd-2-base", 512),
    "SDXL": ("sdxl", 1024),
    "SD 3": ("sd-3-medium", 1024),
    "SD 3.5 medium": ("sd-3.5-medium", 1024),
    "SD 3.5 large": ("sd-3.5-large", 1024),
    "FLUX.1 dev": ("flux-dev", 1024),
    "PixArt-Σ": ("pixart-sigma", 1024),
    "DiT-256": ("dit-256", 256),
    "DiT-512": ("dit-256", 512),
}
HEAD = (
    "| model | device | dtype | tile | memory, GB | an evaluation, MB | largest "
    "| work | at most | exchanges | compiled in |"
)


def compiled(devices: str, model: str, dtype: str, blocks: int | None) -> Any:
    """One row, as JSON values."""
    from dataclasses import asdict

    from diffjax.evaluation.ahead import Ahead

    name, resolution = MODELS[model]
    ahead = Ahead(devices=devices, model=name, random=True, dtype=dtype)
    [tile] = ahead.tiles((resolution,), (blocks,) if blocks else ())
    return {"model": model, **asdict(tile)}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    n = row["blocks"] * row["classes"]
    start = [row["model"], row["devices"], row["dtype"]]
    start += [f"{row['blocks']} × {row['classes']}"]
    if row["seconds"] is None:
        return f"| {' | '.join(start)} | does not fit |" + 6 * " |"
    share = n // _devices(row["devices"])
    cells = [
        f"{row['arguments'] / 1e9:.2f} + {row['temporaries'] / 1e9:.2f} "
        f"of {row['memory'] / 1e9:.0f}",
        f"{_mb(row['temporaries'] / share)}; {_mb(row['reckoned'])}",
        f"{row['largest']:,}",
        f"{row['flops'] / n / 1e12:.3g}, {row['bytes_accessed'] / n / 1e9:.3g}",
        f"{row['bound_by_flops']:,.0f}, {row['bound_by_bytes']:,.0f}",
        ", ".join(f"{k} {kind}" for kind, k in row["collectives"].items()) or "none",
        f"{row['seconds']:.0f} s",
    ]
    return f"| {' | '.join(start + cells)} |"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}" if size >= 1e8 else f"{size / 1e6:.3g}"


def _devices(name: str) -> int:
    product = 1
    for n in name.partition(":")[2].split("x"):
        product *= int(n)
    return product


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", nargs="+", required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument(
        "--blocks", type=int, help="of a tile, instead of the planner's"
    )
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    args = parser.parse_args()

    from diffjax.cli.ahead import ENVIRONMENT

    os.environ.update(ENVIRONMENT)  # before JAX starts
    print(f"{HEAD}\n|{(HEAD.count('|') - 1) * '---|'}", flush=True)
    rows = []
    for model in args.models:
        for devices in args.devices:
            for dtype in args.dtypes:
                rows.append(compiled(devices, model, dtype, args.blocks))
                print(line(rows[-1]), flush=True)
                if args.out:
                    args.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
