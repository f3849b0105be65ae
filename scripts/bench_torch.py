"""diffjax against the same classification in torch, on diffusers: time and answers.

    python scripts/bench_torch.py --out runs/bench
    python scripts/bench_torch.py --random medium --images 2 --out runs/bench-medium
    python scripts/bench_torch.py --random dit-256 --contestants packed strong \\
        --cells 1 4 16 --batch 1 4 16 --images 1 --classes 4 \\
        --strategy exhaustive:n_samples=4 --out runs/bench-dit
    python scripts/bench_torch.py --random sd-2-base --device cuda --dtype bfloat16 \\
        --resolution 512 --batch 128 --compile --repeats 5 --out runs/bench-h200

All read one checkpoint folder and are given the same preprocessed images, strategy,
timesteps and noises; diffjax makes the noises. They take turns in one process:

    authors    as the authors' program: one image at a time, text states before the
               first, batches of 32 cells class by class, errors to the host after each
    strong     large batches of a round's cells, channels_last, scaled-dot-product
               attention, tuned convolutions, errors to the host after the round, and
               torch.compile where --compile is given
    single     diffjax, one image after the other, as `diffjax classify`
    packed     diffjax, all images together, as `diffjax evaluate`
    packed+    the same by another strategy (--also), for the same decisions

Several --batch or --cells make several contestants of `strong` or of diffjax's two,
named after the number. A DiT is conditioned on the first ids of its classes.

Seconds an image run from pixels to the decision, autoencoder included. Seconds an
evaluation are those of the denoiser's rounds alone, with noise, errors and the transfer
of errors. Every contestant first does all of its work once, uncounted: that compiles
and gives the answers that are compared. Then come the repeats, their order rotating.
Nothing else may run: where threads have to share cores, torch's wait for each other
and its times grow several-fold; try --threads too. Figures are medians; ratios are
medians of each repeat's ratio to the first contestant.

The authors' program and its article: https://github.com/diffusion-classifier. Today's
diffusers attends by scaled_dot_product_attention in both contestants.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import diffjax
from diffjax.cli.demo import LABELS, TEMPLATE, examples
from diffjax.errors import DiffjaxError
from diffjax.files import write_text

ASSETS = Path(diffjax.__file__).parent / "assets"
AUTHORS_BATCH = 32
CONTESTANTS = ("packed", "single", "authors", "strong")
BUSY = 0.5  # load average; torch's threads wait for each other where others compute
PUBLISHED = ("sd-1.5", "sd-2-base", "dit-256")
SIZES: dict[str, dict[str, Any]] = {  # of random models, besides published configs
    "medium": {
        "sample_size": 32,
        "block_out_channels": [128, 256, 512],
        "down_block_types": ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2,
        "layers_per_block": 2,
        "cross_attention_dim": 256,
        "attention_head_dim": [2, 4, 8],
        "use_linear_projection": True,
    },
    "small": {  # to try the script
        "sample_size": 8,
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": 2,
    },
    "small-dit": {  # likewise
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 8,
        "num_embeds_ada_norm": 10,
    },
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """One image, and the noises [S, h, w, c] of all noise indices."""

    pixels: np.ndarray
    key: int
    noises: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a contestant found for one image."""

    winner: int
    errors: np.ndarray  # [classes, samples], NaN where never evaluated
    evaluations: int


@dataclass(kw_only=True)
class Contestant:
    """One way to classify; ``run`` does all the work and says how it went."""

    name: str
    # images → their answers, and the seconds that evaluations took
    run: Callable[[Sequence[Work]], tuple[list[Answer], float]]
    answers: list[Answer] = field(default_factory=list)
    warm_up: float = 0.0
    per_image: list[float] = field(default_factory=list)
    per_evaluation: list[float] = field(default_factory=list)


def main() -> None:
    args = parse()
    # before either library starts: both are to find room on one device
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import torch

    torch.set_num_threads(args.threads)
    if args.jax_devices:
        jax.config.update("jax_num_cpu_devices", args.jax_devices)
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch finds no CUDA device here; use --device cpu.")
    if args.device == "cuda" and jax.default_backend() != "gpu":
        sys.exit("error: JAX finds no CUDA device here; install diffjax[cuda].")
    if (load := os.getloadavg()[0]) > BUSY:
        print(
            f"note: the load of this machine is {load:.1f}; do not trust the figures.",
            file=sys.stderr,
        )
    try:
        with tempfile.TemporaryDirectory() if args.random else nullcontext() as scratch:
            folder = Path(scratch or args.model)
            if args.random:
                save_random(args.random, folder)
            result = study(args, folder)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
    text = markdown(result)
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_text(args.out / "bench_torch.md", text)
        write_text(args.out / "bench_torch.json", json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default=str(ASSETS / "tiny"), help="folder in diffusers' layout")
    add(
        "--random",
        choices=[*SIZES, *PUBLISHED],
        help="instead: random weights in a temporary folder",
    )
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add("--images", type=positive, default=7, help="of the package's own, at most 7")
    add("--classes", type=positive, default=10, help="of CIFAR-10's, at most 10")
    add("--resolution", type=positive, help="pixels; default: the model's")
    add("--strategy", default="staged:to_keep=5,1:n_samples=25,250:order=nested")
    add("--also", help="another strategy for diffjax, such as racing")
    add(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS,
        default=CONTESTANTS,
        help="which of them; the first one's times are 1 in ratios",
    )
    add(
        "--batch",
        type=positive,
        nargs="+",
        default=[128],
        help="cells of `strong` at once",
    )
    add(
        "--cells",
        type=positive,
        nargs="+",
        default=[None],
        help="of diffjax's tiles; default: its own choice",
    )
    add("--compile", action="store_true", help="torch.compile in `strong`")
    add("--repeats", type=positive, default=5)
    add("--threads", type=positive, default=os.cpu_count(), help="of torch")
    add("--jax-devices", type=positive, help="simulated CPU devices of diffjax")
    add("--out", type=Path, help="folder for bench_torch.md and bench_torch.json")
    return parser.parse_args()


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def study(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all contestants in turn and compare them."""
    from diffjax.checkpoints.loading import load_model

    model = load_model(folder, dtype=args.dtype)
    tiles = {cells: Ours(args, model, args.strategy, cells) for cells in args.cells}
    ours = next(iter(tiles.values()))
    contestants = []
    for name in args.contestants:
        if name in ("packed", "single"):
            for cells, each in tiles.items():
                run = each.packed if name == "packed" else each.single
                contestants.append(
                    Contestant(name=numbered(name, cells, tiles), run=run)
                )
            continue
        theirs = Torch(args, folder, ours.strategy, ours.n_timesteps, name == "strong")
        for batch in args.batch if theirs.strong else [AUTHORS_BATCH]:
            run = partial(theirs.run, batch=batch)
            several = args.batch if theirs.strong else []
            contestants.append(Contestant(name=numbered(name, batch, several), run=run))
    if args.also:
        other = Ours(args, model, args.also, args.cells[0])
        contestants.append(Contestant(name="packed+", run=other.packed))
    works = [ours.work(path) for path in list(examples())[: args.images]]
    for each in contestants:
        start = time.perf_counter()
        each.answers, _ = each.run(works)
        each.warm_up = time.perf_counter() - start
        print(f"{each.name}: first round {each.warm_up:.1f} s", file=sys.stderr)
    for repeat in range(args.repeats):
        turn = repeat % len(contestants)
        for each in contestants[turn:] + contestants[:turn]:
            start = time.perf_counter()
            answers, seconds = each.run(works)
            each.per_image.append((time.perf_counter() - start) / len(works))
            evaluations = sum(answer.evaluations for answer in answers)
            each.per_evaluation.append(seconds / evaluations)
        print(f"repeat {repeat + 1} of {args.repeats} done", file=sys.stderr)
    first = contestants[0]
    return {
        "settings": {
            name: value
            for name, value in vars(args).items()
            if name not in ("out", "random")
        }
        | {
            "model": args.random or Path(args.model).name,
            "images": len(works),
            "resolution": ours.classifier.resolution,
            "latent": list(ours.classifier.latent_shape),
            "tile_cells": [each.classifier.grid.cells for each in tiles.values()],
            "parameters": ours.classifier.model.denoiser.parameters,
        },
        "machine": machine(ours.classifier.device, args.device),
        "contestants": {each.name: compared(each, first) for each in contestants},
    }


def numbered(name: str, size: int | None, sizes: Collection[int | None]) -> str:
    """A contestant's name, with its size where there are several."""
    return f"{name} {size}" if len(sizes) > 1 else name


def compared(each: Contestant, first: Contestant) -> dict[str, Any]:
    """A contestant's figures, and how it compares with the first."""

    def ratio(mine: list[float], other: list[float]) -> float:
        return median(a / b for a, b in zip(mine, other, strict=True))

    pairs = list(zip(each.answers, first.answers, strict=True))
    differences = [
        np.abs(a.errors - b.errors)
        for a, b in pairs
        if a.errors.shape == b.errors.shape  # else by another strategy's samples
    ]
    # classes that only one of them has pruned show as disagreement of the decisions
    shared = [d[np.isfinite(d)] for d in differences]
    same_cells = len(shared) == len(pairs) and each.name != "packed+"
    return {
        "seconds_per_image": median(each.per_image),
        "seconds_per_evaluation": median(each.per_evaluation),
        "image_ratio": ratio(each.per_image, first.per_image),
        "evaluation_ratio": ratio(each.per_evaluation, first.per_evaluation),
        "evaluations_per_image": float(np.mean([a.evaluations for a in each.answers])),
        "agree": sum(a.winner == b.winner for a, b in pairs),
        "max_error_difference": (
            float(max(d.max() for d in shared)) if same_cells else None
        ),
        "warm_up_seconds": each.warm_up,
        "all_seconds_per_image": each.per_image,
        "all_seconds_per_evaluation": each.per_evaluation,
    }


class Ours:
    """diffjax."""

    def __init__(
        self, args: argparse.Namespace, model: Any, strategy: str, cells: int | None
    ) -> None:
        from diffjax.classify.classifier import DiffusionClassifier
        from diffjax.classify.settings import Settings
        from diffjax.strategies import parse_strategy

        self.strategy = parse_strategy(strategy)
        settings = Settings(
            strategy=self.strategy, resolution=args.resolution, cells=cells
        )
        self.classifier = DiffusionClassifier(model, settings)
        self.n_timesteps = model.schedule.n_timesteps
        names = LABELS[: args.classes]
        if model.kind == "text":
            self.candidates = self.classifier.candidates(names, TEMPLATE)
        else:
            ids = [(i,) for i in range(len(names))]
            self.candidates = self.classifier.classes(ids, names)

    def work(self, path: Path) -> Work:
        """An image, and the noises that the strategy will ask for."""
        import jax

        pixels = self.classifier.pixels(path)
        key = zlib.crc32(pixels.tobytes())
        n = len(self.candidates.prompts.prompts)
        samples = self.strategy.start(n, self.n_timesteps).samples
        noise, shape = self.classifier.grid.noise, self.classifier.latent_shape
        # as the tiles have it, where the mesh lets noise be drawn by one program
        draw = jax.jit(jax.vmap(lambda k: noise.draw(np.uint32(key), k, shape)))
        indices = np.arange(int(samples.noises.max()) + 1)
        return Work(pixels=pixels, key=key, noises=np.asarray(draw(indices)))

    def single(self, works: Sequence[Work]) -> tuple[list[Answer], float]:
        """One after the other."""
        results = [self.packed([work]) for work in works]
        return [answer for [answer], _ in results], sum(s for _, s in results)

    def packed(self, works: Sequence[Work]) -> tuple[list[Answer], float]:
        """All together."""
        from diffjax.classify.seen import Encoded
        from diffjax.errors import DiffjaxError

        encoded = [
            Encoded(
                pixels=work.pixels,
                z0=np.asarray(self.classifier.model.latent(work.pixels)),
                key=work.key,
            )
            for work in works
        ]
        start = time.perf_counter()
        records = {}
        for i, record in self.classifier.score(enumerate(encoded), self.candidates):
            if isinstance(record, DiffjaxError):
                raise record
            records[i] = record
        seconds = time.perf_counter() - start
        answers = [
            Answer(
                winner=records[i].decision.winner,
                errors=records[i].table.errors,
                evaluations=records[i].evaluations,
            )
            for i in range(len(works))
        ]
        return answers, seconds


class Torch:
    """The peer, on diffusers."""

    def __init__(
        self,
        args: argparse.Namespace,
        folder: Path,
        strategy: Any,
        n_timesteps: int,
        strong: bool,
    ) -> None:
        import torch
        from diffusers import DiffusionPipeline

        # autoencoder and text encoder stay in float32, as diffjax has them
        pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        kind = pipeline.scheduler.config.prediction_type
        if kind != "epsilon":
            raise DiffjaxError(f"{folder} predicts {kind}; the peer knows only epsilon")
        self.device = torch.device(args.device)
        self.dtype = getattr(torch, args.dtype)
        self.strategy, self.n_timesteps = strategy, n_timesteps
        self.strong = strong
        self.alphas = pipeline.scheduler.alphas_cumprod.to(self.device)
        self.vae = pipeline.vae.eval().to(self.device)
        self.text = hasattr(pipeline, "unet")
        denoiser = pipeline.unet if self.text else pipeline.transformer
        self.denoiser = denoiser.eval().to(self.device, self.dtype)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # the authors' program does so too
        if strong:
            self.denoiser = self.denoiser.to(memory_format=torch.channels_last)
        if strong and args.compile:
            self.denoiser = torch.compile(self.denoiser, dynamic=False)
        labels = LABELS[: args.classes]
        if not self.text:
            self.conditions = torch.arange(len(labels), device=self.device)
            return
        ids = pipeline.tokenizer(
            [TEMPLATE.format(label) for label in labels],
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with torch.inference_mode():
            text_encoder = pipeline.text_encoder.eval().to(self.device)
            self.conditions = text_encoder(ids.to(self.device))[0].to(self.dtype)

    def run(self, works: Sequence[Work], batch: int) -> tuple[list[Answer], float]:
        """One image after the other, by the strategy's rounds, in batches of cells."""
        import torch

        from diffjax.strategies.base import run_on

        answers, seconds = [], 0.0
        for work in works:
            with torch.inference_mode():
                pixels = to_torch(work.pixels[None], self.device)
                mean = self.vae.encode(pixels).latent_dist.mean
                z0 = mean * self.vae.config.scaling_factor
                noises = to_torch(work.noises, self.device)
                self.synchronise()

                def evaluate(state, request, z0=z0, noises=noises):
                    nonlocal seconds
                    start = time.perf_counter()
                    errors = self.errors(z0, noises, state.samples, request, batch)
                    seconds += time.perf_counter() - start
                    return errors

                state = self.strategy.start(len(self.conditions), self.n_timesteps)
                state = run_on(self.strategy, state, evaluate)
            answers.append(
                Answer(
                    winner=self.strategy.decide(state).winner,
                    errors=state.table.errors,
                    evaluations=state.n_evaluations,
                )
            )
        return answers, seconds

    def errors(
        self, z0: Any, noises: Any, samples: Any, request: Any, batch: int
    ) -> np.ndarray:
        """e[c, s] of a request's cells, class by class, on the host."""
        import torch

        n, s = len(request.classes), len(request.samples)
        classes = torch.as_tensor(np.repeat(request.classes, s), device=self.device)
        order = np.tile(request.samples, n)
        timesteps = torch.as_tensor(samples.timesteps[order], device=self.device)
        rows = torch.as_tensor(samples.noises[order], device=self.device)
        if self.strong:  # as even as can be: no small batch is left over
            batch = -(-n * s // -(-n * s // batch))
        parts = []
        for start in range(0, n * s, batch):
            cells = torch.arange(start, start + batch, device=self.device)
            # strong keeps one shape: the last batch repeats its last cell
            cells = (
                cells.clamp(max=n * s - 1) if self.strong else cells[: n * s - start]
            )
            errors = self.cells(
                z0, noises[rows[cells]], timesteps[cells], classes[cells]
            )
            parts.append(errors if self.strong else errors.cpu())
        found: np.ndarray = torch.cat(parts)[: n * s].cpu().numpy()
        return found.reshape(n, s)

    def cells(self, z0: Any, noise: Any, timesteps: Any, classes: Any) -> Any:
        """Errors of one batch, float32."""
        import torch

        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noised = (alpha.sqrt() * z0 + (1 - alpha).sqrt() * noise).to(self.dtype)
        if self.strong:
            noised = noised.contiguous(memory_format=torch.channels_last)
        name = "encoder_hidden_states" if self.text else "class_labels"
        conditions = {name: self.conditions[classes]}
        predicted = self.denoiser(noised, timestep=timesteps, **conditions).sample
        predicted = predicted[:, : noise.shape[1]]  # a DiT's variances are behind
        return (predicted.float() - noise).square().mean(dim=(1, 2, 3))

    def synchronise(self) -> None:
        """Wait for the device, so that what came before is not counted."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()


def to_torch(x: np.ndarray, device: Any) -> Any:
    """[n, h, w, c] → [n, c, h, w]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))).to(device)


def save_random(size: str, folder: Path) -> None:
    """A model of some size with random weights, in diffusers' layout."""
    from make_random_pipeline import VAE, configs, save

    if size in PUBLISHED:
        save(configs(size), folder, "float32")
        return
    config = SIZES[size]
    vae = VAE | {"block_out_channels": [32, 64, 128, 128]}
    if "cross_attention_dim" not in config:
        save({"transformer": config, "vae": vae}, folder, "float32")
        return
    text = ASSETS / "tiny" / "text_encoder" / "config.json"
    width = config["cross_attention_dim"]
    text_config = json.loads(text.read_text(encoding="utf-8")) | {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 77,
    }
    parts = {"unet": config, "vae": vae, "text_encoder": text_config}
    save(parts, folder, "float32")


def machine(ours: str, device: str) -> dict[str, Any]:
    """Where it ran."""
    import diffusers
    import jax
    import torch

    from diffjax.evaluation.provenance import git_revision, processor

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load": list(os.getloadavg()),
        "jax_devices": ours,
        "torch_device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "diffjax": diffjax.__version__,
        "git": git_revision(),
        "jax": jax.__version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def markdown(result: dict[str, Any]) -> str:
    """A table, and where it is from."""
    settings, where = result["settings"], result["machine"]
    lines = [
        "| | s / image | ratio | ms / evaluation | ratio | evaluations / image "
        "| same decision | max. error difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["contestants"].items():
        difference = row["max_error_difference"]
        lines.append(
            f"| {name} | {row['seconds_per_image']:.4g} | {row['image_ratio']:.2f} "
            f"| {1e3 * row['seconds_per_evaluation']:.4g} "
            f"| {row['evaluation_ratio']:.2f} | {row['evaluations_per_image']:,.0f} "
            f"| {row['agree']} of {settings['images']} "
            f"| {'' if difference is None else f'{difference:.1e}'} |"
        )
    lines += [
        "",
        ", ".join(f"{name}: {value}" for name, value in settings.items()),
        "",
        ", ".join(f"{name}: {value}" for name, value in where.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
