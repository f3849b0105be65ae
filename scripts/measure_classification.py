"""Memory and seconds of a whole classification on a CPU, stage by stage.

    python scripts/make_random_pipeline.py sd-2-base FOLDER
    python scripts/measure_classification.py FOLDER

One image of the package's own, two classes, one sample of each: two evaluations and
all that it takes to get there. `resident` is what the process holds at the end of a
stage, `peak` the most that it held during it, files that are mapped included (Linux).
Beside it stands what the weights take once in float32.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

GB = 1e9


def resident(name: str = "VmRSS") -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most since ``restart``."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("error: this needs Linux's /proc.")


def restart() -> None:
    """Count the most from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def measure(folder: str, cells: int | None, samples: int) -> dict[str, Any]:
    """Classify, in this process, and tell of every stage."""
    stages: list[dict[str, Any]] = []
    start = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal start
        now = time.perf_counter()
        stages.append(
            {
                "stage": stage,
                "seconds": now - start,
                "resident": resident(),
                "peak": resident("VmHWM"),
            }
        )
        restart()
        start = time.perf_counter()

    import jax

    jax.config.update("jax_platforms", "cpu")
    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.cli.demo import LABELS, examples
    from diffjax.strategies.exhaustive import Exhaustive

    done("import")
    classifier = DiffusionClassifier.from_pretrained(
        folder,
        dtype="float32",
        strategy=Exhaustive(n_samples=samples),
        cells=cells,
    )
    done("load")
    model = classifier.model
    networks = model.networks()
    weights = sum(network.bytes for network in networks.values())
    del networks  # else it would keep what the model lets go
    if model.kind == "text":
        candidates = classifier.candidates(LABELS[:2])
    else:
        candidates = classifier.classes([(0,), (1,)], LABELS[:2])
    jax.block_until_ready(candidates.conditions)
    done("classes")
    first = "first", classifier.encode(next(iter(examples())))
    done("image")
    [(_, record)] = classifier.score([first], candidates)
    done(f"{2 * samples} evaluations, compiled before")
    [(_, record)] = classifier.score([first], candidates)
    done(f"{2 * samples} evaluations")
    return {
        "weights": weights,
        "tile": classifier.grid.cells,
        "errors": record.table.errors.tolist(),
        "stages": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--cells", type=int, help="of a tile; default: its own choice")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(args.folder, args.cells, args.samples)
    if args.json:
        json.dump(result, sys.stdout, indent=1)
        return
    print("| stage | seconds | resident | peak |\n|---|---|---|---|")
    for row in result["stages"]:
        sizes = f"{row['resident'] / GB:.2f} GB | {row['peak'] / GB:.2f} GB"
        print(f"| {row['stage']} | {row['seconds']:.1f} | {sizes} |")
    peak = max(row["peak"] for row in result["stages"])
    print(
        f"\nweights once in float32: {result['weights'] / GB:.2f} GB; most at any "
        f"time: {peak / GB:.2f} GB; a tile has {result['tile']} evaluations"
    )


if __name__ == "__main__":
    main()
