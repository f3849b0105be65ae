"""Everything to be known of an accelerator, by one command of at most eight minutes.

    python scripts/accelerator_check.py --out runs/check
    python scripts/accelerator_check.py --rehearse --out runs/rehearsal
    JAX_PLATFORMS=cpu python scripts/accelerator_check.py --store

The parts, each in a process of its own with a deadline, so that one which fails or
hangs loses no other; what it has found until then is in OUT/PART.json, and all in
OUT/check.json:

    numbers     the embedded models' noise, latents and errors against those of a CPU,
                in float32 (which TF32 would miss by far) and bfloat16
    attention   cuDNN's or Pallas's against XLA's, of the heads and lengths of SD 1,
                SD 2 and DiT: how far each is from float32, and how long it takes
    sd-2-base   a tile with random weights: evaluations a second, share of the peak that
                a large matrix product reaches
    dit-256     likewise
    memory      peak memory of those tiles against what the planner reckons with
    idle        how long the device waited for the host while images were classified
    torch       scripts/bench_torch.py, where torch has CUDA
    training    steps a second of the recipe tiny-full

The exit code is 0 only if `numbers` and `attention` were done and agree. --rehearse
runs all parts on small sizes, wherever JAX runs, and two more: one that fails and one
that hangs. --store writes the values that `numbers` compares with, of a CPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from diffjax.files import write_text

STORED = Path(__file__).with_suffix(".json")
MINUTES = 8.0
# Largest relative difference: of float32 as in the parity tests, of which TF32 misses
# ten times as much; of bfloat16 twice what it makes on a CPU, which is stored beside
# the values. The bound counts in float32 alone: bfloat16 blurs it at small t.
FLOAT32 = 1e-4
BFLOAT16_MARGIN = 2.0
NOISE = 1e-5  # absolute, of standard normal numbers
ATTENTION = 2e-2  # of bfloat16, relative to the largest element
TILES = ("sd-2-base", "dit-256")
LAYERS = {  # heads, width of a head, queries, keys
    "sd-1 64²": (8, 40, 4096, 4096),
    "sd-1 32²": (8, 80, 1024, 1024),
    "sd-1 16²": (8, 160, 256, 256),
    "sd-2 64²": (5, 64, 4096, 4096),
    "sd-2 32²": (10, 64, 1024, 1024),
    "sd-2 16²": (20, 64, 256, 256),
    "sd-2 text": (5, 64, 4096, 77),
    "dit-256": (16, 72, 256, 256),
    "dit-512": (16, 72, 1024, 1024),
}
SMALL_LAYERS = {"self": (2, 8, 64, 64), "text": (2, 8, 64, 7)}

Row = dict[str, Any]


def main() -> None:
    args = parse()
    if args.part:
        work(args.part, args.out, rehearse=args.rehearse)
        return
    if args.store:
        store()
        return
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    report: dict[str, Any] = {"command": sys.argv[1:], "parts": {}}
    for name, share in shares(args.rehearse).items():
        seconds = min(60 * args.minutes * share, end - time.monotonic())
        report["parts"][name] = supervise(name, args.out, seconds, args.rehearse)
        report["agrees"] = agrees(report["parts"])
        write_text(args.out / "check.json", json.dumps(report, indent=1) + "\n")
        print(as_text(name, report["parts"][name]), flush=True)
    print("the numbers agree" if report["agrees"] else "the numbers do NOT agree")
    sys.exit(0 if report["agrees"] else 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/check"), help="folder of the results")
    add("--minutes", type=float, default=MINUTES, help="for all parts together")
    add("--rehearse", action="store_true", help="small sizes; a part fails, one hangs")
    add("--store", action="store_true", help=f"write {STORED.name}, on a CPU")
    add("--part", choices=PARTS, help=argparse.SUPPRESS)  # by the script itself
    return parser.parse_args()


def shares(rehearse: bool) -> dict[str, float]:
    """How much of the time each part may take at most, in the order of their worth."""
    found = {
        "numbers": 0.25,
        "attention": 0.25,
        "sd-2-base": 0.3,
        "dit-256": 0.2,
        "memory": 0.2,
        "idle": 0.2,
        "torch": 0.25,
        "training": 0.2,
    }
    return {"fails": 0.1, "hangs": 0.02} | found if rehearse else found


def supervise(name: str, out: Path, seconds: float, rehearse: bool) -> Row:
    """Run a part in a process of its own, which ends at its deadline at the latest."""
    kept = out / f"{name}.json"
    kept.unlink(missing_ok=True)
    if seconds <= 0:
        return {"state": "no time was left", "rows": []}
    command = [sys.executable, __file__, "--part", name, "--out", str(out)]
    start = time.monotonic()
    with (out / f"{name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *(["--rehearse"] if rehearse else [])],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(out / "compiled")},
            start_new_session=True,  # to end what it starts with it
        )
        try:
            code = process.wait(timeout=seconds)
            state = "done" if code == 0 else f"failed ({last_line(out / log.name)})"
        except subprocess.TimeoutExpired:
            state = f"stopped after {seconds:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if state == "done" and "skipped" in found:
        state = f"skipped: {found['skipped']}"
    return {
        "state": state,
        "seconds": round(time.monotonic() - start, 1),
        "rows": found.get("rows", []),
    }


def last_line(path: str | Path) -> str:
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def agrees(parts: dict[str, Row]) -> bool:
    """Whether the parts that decide were done, and every row of them agrees."""
    deciding = [parts.get(name) for name in ("numbers", "attention")]
    return all(
        part is not None
        and part["state"] == "done"
        and part["rows"]
        and all(row["agrees"] for row in part["rows"])
        for part in deciding
    )


def work(name: str, out: Path, *, rehearse: bool) -> None:
    """Do a part; every row is on disk as soon as it is known."""
    rows: list[Row] = []
    kept = out / f"{name}.json"
    try:
        for row in PARTS[name](rehearse):
            rows.append(row)
            write_text(kept, json.dumps({"rows": rows}, indent=1) + "\n")
    except NotHereError as skip:
        write_text(kept, json.dumps({"rows": rows, "skipped": str(skip)}) + "\n")


class NotHereError(Exception):
    """A part that cannot be done here, and why."""


def as_text(name: str, part: Row) -> str:
    """A part as lines of a table."""
    lines = [f"{name}: {part['state']}, {part.get('seconds', 0)} s"]
    for row in part["rows"]:
        cells = (
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.items()
        )
        lines.append("    " + " · ".join(cells))
    return "\n".join(lines)


# numbers


def computed(model: str, dtype: str) -> dict[str, Any]:
    """Noise, a latent and errors of an embedded model on an image, as plain values."""
    from diffjax import DiffusionClassifier, Exhaustive
    from diffjax.cli.demo import LABELS, examples
    from diffjax.scoring.noise import SeededNoise

    classifier = DiffusionClassifier.from_pretrained(
        model,
        dtype=dtype,
        strategy=Exhaustive(n_samples=8),
        also=("vlb",) if model == "tiny-dit" else (),
    )
    image = next(path for path, truth in examples().items() if truth == "ship")
    labels = LABELS if classifier.model.kind == "text" else None
    record = classifier.classify(image, labels)
    encoded = classifier.encode(image)
    noise = SeededNoise.of(0).draw(encoded.key, 3, classifier.latent_shape)
    return {
        "label": record.label,
        "noise": np.asarray(noise).ravel()[:64].tolist(),
        "latent": encoded.z0.ravel()[:256].tolist(),
        "errors": record.table.errors.tolist(),
        "also": {loss: v.table.errors.tolist() for loss, v in record.also.items()},
    }


def store() -> None:
    """Write the values of a CPU, and how far bfloat16 is from them there."""
    import jax

    if jax.default_backend() != "cpu":
        sys.exit("error: these are the values of a CPU; set JAX_PLATFORMS=cpu.")
    stored = {}
    for model in ("tiny", "tiny-dit"):
        exact, rounded = computed(model, "float32"), computed(model, "bfloat16")
        stored[model] = exact | {"bfloat16": differences(rounded, exact)["errors"]}
    write_text(STORED, json.dumps(stored) + "\n")


def differences(found: dict[str, Any], stored: dict[str, Any]) -> dict[str, float]:
    """The largest difference of each kind of value: relative, of noise absolute."""

    def relative(a: Any, b: Any) -> float:
        one, other = np.asarray(a, float), np.asarray(b, float)
        return float(np.abs(one - other).max() / np.abs(other).max())

    def by_cell(a: Any, b: Any) -> float:
        return float(np.abs(np.asarray(a, float) / np.asarray(b, float) - 1).max())

    noise = np.abs(np.subtract(found["noise"], stored["noise"])).max()
    also = [
        by_cell(found["also"][loss], stored["also"][loss]) for loss in stored["also"]
    ]
    return {
        "noise": float(noise),
        "latent": relative(found["latent"], stored["latent"]),
        "errors": by_cell(found["errors"], stored["errors"]),
        "bound": max(also, default=0.0),
    }


def numbers(rehearse: bool) -> Iterator[Row]:
    everything = json.loads(STORED.read_text(encoding="utf-8"))
    for model, stored in everything.items():
        for dtype in ("float32", "bfloat16"):
            found = computed(model, dtype)
            off = differences(found, stored)
            allowed = (
                FLOAT32
                if dtype == "float32"
                else BFLOAT16_MARGIN * float(stored["bfloat16"])
            )
            yield {
                "model": model,
                "dtype": dtype,
                **off,
                "allowed": allowed,
                "agrees": off["noise"] <= NOISE
                and off["latent"] <= FLOAT32
                and off["errors"] <= allowed
                and (dtype != "float32" or off["bound"] <= allowed)
                and (dtype != "float32" or found["label"] == stored["label"]),
            }


# attention


def attention(rehearse: bool) -> Iterator[Row]:
    import jax
    import jax.numpy as jnp

    from diffjax.models.attention import attend, chosen, unfused
    from diffjax.scoring.cost import median_seconds
    from diffjax.tracing import jit

    batch = 2 if rehearse else 8

    def timed(heads: int, arrays: list[Any], *, fused: bool) -> tuple[Any, float]:
        call = jit(jax.vmap(lambda q, k, v: attend(q, k, v, heads)))

        def run() -> Any:
            if fused:
                return jax.block_until_ready(call(*arrays))
            with unfused():
                return jax.block_until_ready(call(*arrays))

        return np.asarray(run(), np.float32), median_seconds(run)

    for name, (heads, head, length, keys) in (
        SMALL_LAYERS if rehearse else LAYERS
    ).items():
        random = np.random.default_rng(0)
        exact = [
            jnp.asarray(random.standard_normal((batch, n, heads * head)), jnp.float32)
            for n in (length, keys, keys)
        ]
        half = [x.astype(jnp.bfloat16) for x in exact]
        wanted, _ = timed(heads, [x.astype(jnp.float32) for x in half], fused=False)
        scale = np.abs(wanted).max()
        ours, ours_seconds = timed(heads, half, fused=True)
        plain, plain_seconds = timed(heads, half, fused=False)
        off = float(np.abs(ours - wanted).max() / scale)
        yield {
            "layer": name,
            "by": chosen(jnp.bfloat16, head, length, keys),
            "difference": off,
            "xla's": float(np.abs(plain - wanted).max() / scale),
            "ms": 1e3 * ours_seconds,
            "xla's ms": 1e3 * plain_seconds,
            "agrees": bool(off <= ATTENTION),
        }


# speed and memory


def tile(name: str) -> Callable[[bool], Iterator[Row]]:
    def timed(rehearse: bool) -> Iterator[Row]:
        from diffjax.evaluation.bench import Bench

        bench = Bench(model="tiny" if rehearse else name, random=True, dtype="auto")
        for timing in bench.timings(blocks=(2,) if rehearse else ()):
            yield {
                "device": bench.device,
                "dtype": timing.dtype,
                "cells": timing.blocks * timing.classes,
                "evaluations a second": timing.evaluations_per_second,
                "share of peak": timing.share_of_peak,
                "TFLOP/s of peak": bench.peak.flops / 1e12,
            }

    return timed


def memory(rehearse: bool) -> Iterator[Row]:
    """A tile as the planner chooses it; peaks only grow, so the smaller model first."""
    import jax

    from diffjax.evaluation.bench import random_subject
    from diffjax.models.conditions import take
    from diffjax.scoring.cost import tile_cost
    from diffjax.scoring.grid import Grid
    from diffjax.scoring.noise import SeededNoise
    from diffjax.scoring.placement import block_mesh, cells_that_fit, replicate

    mesh = block_mesh(jax.local_devices()[:1])
    device = mesh.local_devices[0]
    dtype = "float32" if device.platform == "cpu" else "bfloat16"
    for name in ("tiny",) if rehearse else reversed(TILES):
        subject = random_subject(name, dtype)
        shape = subject.latent_shape(subject.resolution)
        needs = subject.denoiser.module().memory(*shape[:2])
        grid = Grid(
            denoiser=replicate(subject.denoiser, mesh),
            schedule=replicate(subject.schedule, mesh),
            noise=replicate(SeededNoise.of(0), mesh),
            losses=("l2",),
            cells=8 if rehearse else cells_that_fit(needs, mesh),
            mesh=mesh,
        )
        shape_of_tile = grid.tile(8)
        weights = (
            subject.denoiser.parameters * np.dtype(subject.denoiser.dtype).itemsize
        )
        conditions = replicate(take(subject.conditions, np.zeros(8, int)), mesh)
        tile_cost(grid, shape_of_tile, conditions, shape)
        stats = device.memory_stats() or {}
        peak = stats.get("peak_bytes_in_use")
        planned = weights + shape_of_tile.cells * needs
        yield {
            "model": subject.name,
            "cells": shape_of_tile.cells,
            "weights GB": weights / 1e9,
            "planned GB": planned / 1e9,
            "peak GB": "not told by this device" if peak is None else peak / 1e9,
            "peak of planned": "?" if peak is None else peak / planned,
        }
        del grid, subject


def idle(rehearse: bool) -> Iterator[Row]:
    """Classify random latents among ten random prompts, by racing."""
    from diffjax import DiffusionClassifier, Settings, load_model
    from diffjax.checkpoints.loading import compute_dtype
    from diffjax.classify.candidates import Candidates
    from diffjax.classify.seen import Encoded
    from diffjax.cli.demo import LABELS
    from diffjax.data.prompts import Prompts
    from diffjax.evaluation.bench import random_subject
    from diffjax.models.unet import TextCondition
    from diffjax.scoring.packing import Work
    from diffjax.strategies import parse_strategy

    subject = random_subject(
        "tiny" if rehearse else "sd-2-base", str(compute_dtype("auto"))
    )
    model = replace(
        load_model("tiny"),  # whose other parts are not used
        name=subject.name,
        denoiser=subject.denoiser,
        schedule=subject.schedule,
        resolution=subject.resolution,
        downscale=subject.downscale,
        multiple=subject.multiple,
        latent_channels=subject.channels,
    )
    strategy = parse_strategy(f"racing:n_samples={8 if rehearse else 24}")
    cells = 16 if rehearse else None
    classifier = DiffusionClassifier(model, Settings(strategy=strategy, cells=cells))
    random = np.random.default_rng(0)
    [one] = subject.conditions  # states alone
    states = random.standard_normal((len(LABELS), *one.shape[1:]))
    candidates = Candidates(
        prompts=Prompts.from_labels(LABELS, "a photo of a {}."),
        conditions=TextCondition(on_device(states, subject.denoiser.dtype)),
    )

    def images(n: int) -> Iterator[tuple[int, Encoded]]:
        for key in range(n):
            z0 = random.standard_normal(classifier.latent_shape, np.float32)
            yield key, Encoded(pixels=np.zeros((1, 1, 3), np.float32), z0=z0, key=key)

    list(classifier.score(images(1), candidates))  # compiles
    classifier.work = Work()
    start = time.perf_counter()
    results = list(classifier.score(images(2 if rehearse else 16), candidates))
    seconds = time.perf_counter() - start
    work = classifier.work
    evaluations = sum(record.evaluations for _, record in results)
    yield {
        "images": len(results),
        "evaluations": evaluations,
        "evaluations a second": evaluations / seconds,
        "idle": 1 - work.busy / work.seconds,
        "waited": f"{work.late} of {work.tiles} tiles",
    }


def on_device(values: np.ndarray, dtype: Any) -> Any:
    import jax

    return jax.device_put(values.astype(dtype))


def torch(rehearse: bool) -> Iterator[Row]:
    try:
        import torch as library
    except ImportError as error:
        raise NotHereError("torch is not installed") from error
    cuda = library.cuda.is_available()
    if not cuda and not rehearse:
        raise NotHereError("torch finds no CUDA here")
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    size = ["--random", "small" if rehearse else "sd-2-base"]
    device = ["--device", "cuda", "--dtype", "bfloat16"] if cuda else []
    subprocess.run(
        [
            *(sys.executable, Path(__file__).with_name("bench_torch.py")),
            *size,
            *device,
            *("--images", "2", "--classes", "4", "--repeats", "2", "--out", str(out)),
            *("--strategy", f"exhaustive:n_samples={2 if rehearse else 16}"),
            *("--batch", "8" if rehearse else "64"),
        ],
        check=True,
    )
    result = json.loads((out / "bench_torch.json").read_text(encoding="utf-8"))
    for name, row in result["contestants"].items():
        yield {
            "contestant": name,
            "ms an evaluation": 1e3 * row["seconds_per_evaluation"],
            "of diffjax's": row["evaluation_ratio"],
            "same decisions": row["agree"],
        }


def training(rehearse: bool) -> Iterator[Row]:
    """A few steps of both phases on random images; the first row is compilation."""
    import tempfile

    from rich.console import Console

    from diffjax.training.log import read_losses
    from diffjax.training.recipes import get_recipe
    from diffjax.training.runs import train

    recipe = get_recipe("test" if rehearse else "tiny-full")
    steps = 4 if rehearse else 60

    def few(phase: Any) -> Any:
        return replace(
            phase,
            steps=steps,
            warmup=1,
            log_every=steps // 4,
            checkpoint_every=steps,
            show_every=0,
        )

    recipe = replace(
        recipe,
        autoencoder=few(recipe.autoencoder),
        denoiser=few(recipe.denoiser),
        scenes=0,
    )
    random = np.random.default_rng(0)
    n = 16 if rehearse else 1024
    images = random.integers(0, 256, (n, 32, 32, 3), np.uint8)
    labels = np.arange(len(images), dtype=np.int32) % 10
    names = [f"class {i}" for i in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        train(recipe, images, labels, names, out, seed=0, console=Console(quiet=True))
        for name in ("autoencoder", "denoiser"):
            batch = getattr(recipe, name).batch
            log = (out / name / "loss.csv").read_text(encoding="utf-8")
            speeds = [float(line.split(",")[2]) for line in log.splitlines()[2:]]
            yield {
                "phase": name,
                "batch": batch,
                "steps a second": median(speeds) / batch,
                "loss": float(read_losses(out / name / "loss.csv")[-1][1]),
            }


def fails(rehearse: bool) -> Iterator[Row]:
    yield {"row": "kept, although the next one fails"}
    raise RuntimeError("as rehearsed")


def hangs(rehearse: bool) -> Iterator[Row]:
    yield {"row": "kept, although the next one never comes"}
    time.sleep(3600)


PARTS: dict[str, Callable[[bool], Iterator[Row]]] = {
    "numbers": numbers,
    "attention": attention,
    "sd-2-base": tile("sd-2-base"),
    "dit-256": tile("dit-256"),
    "memory": memory,
    "idle": idle,
    "torch": torch,
    "training": training,
    "fails": fails,
    "hangs": hangs,
}

if __name__ == "__main__":
    main()
