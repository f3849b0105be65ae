"""Memory as the classes grow: text states, tiles and errors.

    python scripts/measure_memory.py

For 10, 100, 1,000 and 10,000 classes with text states as Stable Diffusion 2 has them,
77 × 1024 numbers a class, on a small U-Net of that width.

Device: what the compiler says of a tile (`memory_analysis`): its arguments, which are
weights and text states, and what it needs besides; nothing is evaluated.
Host: the largest resident set of a process in which racing decides IMAGES images, with
errors that are drawn instead of evaluated, less that of the process before it began;
and how many images were open at once.
"""

import argparse
import json
import multiprocessing
import resource
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

TOKENS, WIDTH = 77, 1024
EDGE = 16  # of the small U-Net's latents
CELLS = 128
DRAWN = 250  # samples of a class, at most
UNET = {
    "sample_size": EDGE,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}


def device(n_classes: int, dtype: str) -> dict[str, int]:
    """Bytes of text states, of all arguments, and of what a tile needs besides."""
    import jax

    from diffjax.checkpoints.schedulers import read_schedule
    from diffjax.checkpoints.untrained import random_network
    from diffjax.models.unet import TextCondition
    from diffjax.models.unet_config import UNet2DConditionConfig
    from diffjax.scoring.grid import Blocks, tile_errors
    from diffjax.scoring.noise import SeededNoise
    from diffjax.scoring.placement import block_mesh
    from diffjax.scoring.rows import width_for

    config = UNet2DConditionConfig(**UNET)
    width = width_for(n_classes)
    blocks = CELLS // width
    states = jax.ShapeDtypeStruct((n_classes, TOKENS, WIDTH), dtype)
    tile = Blocks(
        keys=np.zeros(blocks, np.uint32),
        z0=np.zeros((blocks, EDGE, EDGE, 4), np.float32),
        timesteps=np.zeros(blocks, np.int32),
        noises=np.zeros(blocks, np.int32),
        classes=np.zeros((blocks, width), np.int32),
    )
    compiled = tile_errors.lower(
        random_network(config, dtype),
        read_schedule({"_class_name": "DDIMScheduler"}, "this script"),
        SeededNoise.of(0),
        TextCondition(states),
        tile,
        losses=("l2",),
        mesh=block_mesh(jax.local_devices()[:1]),
    ).compile()
    memory = compiled.memory_analysis()
    return {
        "states": n_classes * TOKENS * WIDTH * states.dtype.itemsize,
        "arguments": memory.argument_size_in_bytes,
        "besides": memory.temp_size_in_bytes + memory.output_size_in_bytes,
    }


@dataclass
class Drawn:
    """Stands for a grid: errors that differ by class, drawn on the host."""

    cells: int = CELLS
    devices: int = 1
    losses: tuple[str, ...] = ("l2",)
    together: bool = False

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def tile(self, classes: int, cells: int | None = None) -> Any:
        from diffjax.scoring.grid import Tile

        return Tile(
            blocks=max(1, (self.cells if cells is None else cells) // classes),
            classes=classes,
        )

    def check(self, timesteps: Any, noises: Any) -> None:
        pass

    def errors(self, conditions: Any, blocks: Any) -> Any:
        shape = blocks.classes.shape
        noise = self._rng.standard_normal(shape, np.float32)
        return Result((1 + 1e-4 * blocks.classes + 0.01 * noise)[None])


class Result(np.ndarray):
    """An array of the host with what the packer asks of one of the device."""

    def __new__(cls, values: np.ndarray) -> "Result":
        return np.asarray(values, np.float32).view(cls)

    def copy_to_host_async(self) -> None:
        pass

    def is_ready(self) -> bool:
        return True


def host(n_classes: int, n_images: int) -> dict[str, int]:
    """Of a process of its own: bytes beyond what it held before, and images open."""
    from diffjax.classify.candidates import Candidates
    from diffjax.classify.progress import Progress
    from diffjax.classify.search import ImageSearch
    from diffjax.classify.seen import Encoded
    from diffjax.classify.settings import Settings
    from diffjax.data.prompts import Prompts
    from diffjax.scoring.packing import Packer
    from diffjax.strategies.racing import Racing

    names = tuple(f"class {i}" for i in range(n_classes))
    prompts = Prompts(
        prompts=names, classidx=tuple(range(n_classes)), class_names=names
    )
    candidates = Candidates(prompts=prompts, conditions=None)  # type: ignore[arg-type]
    settings = Settings(strategy=Racing(n_samples=DRAWN))
    z0 = np.zeros((EDGE, EDGE, 4), np.float32)
    opened, done, most = 0, 0, 0

    def searches() -> Any:
        nonlocal opened, most
        for key in range(n_images):
            image = Encoded(pixels=z0, z0=z0, key=key)
            told = (candidates, settings, 1000, Progress(), {"temperature": 1.0})
            search = ImageSearch(key, image, *told)
            opened += 1
            most = max(most, opened - done)
            yield search

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packer = Packer(Drawn(), None, n_classes)
    for search in packer.run(searches()):
        done += 1
        search.record()
        del search
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"host": (after - before) * 1024, "open": most, "tiles": packer.work.tiles}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[10, 100, 1000, 10_000]
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = []
    context = multiprocessing.get_context("spawn")
    for n in args.classes:
        with context.Pool(1) as pool:  # a process each: its largest set only grows
            row = pool.apply(device, (n, args.dtype))
        with context.Pool(1) as pool:
            rows.append({"classes": n} | row | pool.apply(host, (n, args.images)))
    if args.json:
        json.dump(rows, sys.stdout, indent=1)
        return
    print(
        "| classes | text states | tile: arguments | tile: besides "
        f"| errors of an image | host, {args.images} images | open at once |\n"
        "|---|---|---|---|---|---|---|"
    )
    for row in rows:
        errors = row["classes"] * DRAWN * 4
        sizes = (row["states"], row["arguments"], row["besides"], errors, row["host"])
        cells = " | ".join(f"{size / 2**20:,.1f} MiB" for size in sizes)
        print(f"| {row['classes']:,} | {cells} | {row['open']} |")


if __name__ == "__main__":
    main()
