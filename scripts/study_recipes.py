"""Which recipe of ``tiny`` learns most in some minutes: short trials before long runs.

    python scripts/study_recipes.py --data-dir data --out runs/recipes --minutes 10
    python scripts/study_recipes.py --data-dir data --out runs/recipes wide velocity

Every variant is trained on the same images and scenes with the same autoencoder for the
same time, as many steps as the machine makes in it, learning rate down to zero. Then,
of CIFAR-10's first test images and of composed scenes held out of training:

- accuracy: of all classes by the mean error, in the space of noise and of velocity
- gap: how much larger the error is without the caption, by t, in percent of it
- pairs: of two captions of a scene pair, how often an image's own has the smaller error
  (chance 50 %), by whether things exchange what they are or nothing but their places

OUT/NAME has the run, OUT/recipes.json and OUT/recipes.md what was found.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.data.prompts import CIFAR10_TEMPLATE, Prompts
from diffjax.data.scene_pairs import scene_pair
from diffjax.data.tfds import open_tfds
from diffjax.errors import DiffjaxError
from diffjax.files import write_json, write_text
from diffjax.training import configs
from diffjax.training.recipes import RECIPES, Recipe, TextToImage, get_recipe
from diffjax.training.runs import run_training, train

PLACE = ("Noun Phrase", "Preposition")  # tags whose scenes hold the same things
N_SAMPLES = 10
TINY = get_recipe("tiny")
SHARED: dict[str, Any] = {"crops": 1, "scenes": 80_000}
VELOCITY = {"scheduler": configs.STABLE_DIFFUSION | {"prediction_type": "v_prediction"}}
LARGE_T = {"scenes_logit_normal": (1.5, 1.0)}


def unet(
    widths: tuple[int, ...], attends: tuple[bool, ...], text: int
) -> dict[str, Any]:
    """Settings of a U-Net and of a text encoder of this width."""
    return {
        "unet": configs.unet_config(widths, attends, condition=text),
        "text_encoder": configs.text_config(text, layers=3 if text > 64 else 2),
    }


NARROW = unet((32, 64, 128), (False, False, True), 64)
WIDE = unet((64, 128, 192), (False, True, True), 128)
VARIANTS: dict[str, dict[str, Any]] = {
    "former": {**NARROW, "scenes_logit_normal": (0.3, 1.2)},
    "large-t": {**NARROW, **LARGE_T},
    "velocity": {**NARROW, **LARGE_T, **VELOCITY},
    "text-at-8": {
        **unet((32, 64, 128), (False, True, True), 64),
        **LARGE_T,
        **VELOCITY,
    },
    "wide": {**WIDE, **LARGE_T, **VELOCITY},
    "wide-noise": {**WIDE, **LARGE_T},
    "wide-text-at-16": {
        **unet((64, 128, 192), (True, True, True), 128),
        **LARGE_T,
        **VELOCITY,
    },
}


def variant(name: str) -> TextToImage:
    """The recipe of this name."""
    settings: dict[str, Any] = SHARED | VARIANTS[name]
    assert isinstance(TINY, TextToImage)
    return replace(TINY, name=name, **settings)


def steps_in(
    recipe: TextToImage, class_names: Sequence[str], minutes: float, out: Path
) -> int:
    """How many steps the machine makes in that time; measured once."""
    kept = out / "speed.json"
    if not kept.exists():
        short = replace(recipe, scenes=64, crops=0)
        denoiser = replace(
            recipe.denoiser, steps=60, warmup=1, log_every=20, show_every=0
        )
        autoencoder = replace(recipe.autoencoder, steps=20, warmup=1)
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (256, 32, 32, 3), np.uint8)
        labels = np.zeros(256, np.int32)
        train(
            replace(short, denoiser=denoiser, autoencoder=autoencoder),
            images,
            labels,
            class_names,
            out / "speed",
            seed=0,
            console=Console(stderr=True),
        )
        with (out / "speed" / "denoiser" / "loss.csv").open(encoding="utf-8") as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        write_json(kept, {"images_per_second": max(speeds)})
    speed = json.loads(kept.read_text(encoding="utf-8"))["images_per_second"]
    return max(100, int(60 * minutes * speed / recipe.denoiser.batch))


def run(recipe: Recipe, data: Path, out: Path) -> Path:
    """Train; the folder of the model."""
    RECIPES[recipe.name] = recipe
    return run_training(recipe.name, data, out)


def share_autoencoder(first: Path, out: Path) -> None:
    """Give a run the autoencoder and the latents of another."""
    if (first / "latents.npy").exists() and not (out / "latents.npy").exists():
        out.mkdir(parents=True, exist_ok=True)
        os.link(first / "latents.npy", out / "latents.npy")
        (out / "autoencoder").symlink_to(first.resolve() / "autoencoder")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a trained model does; shares in [0, 1], gaps relative, by t."""

    accuracy: dict[str, float]
    timesteps: list[int]
    gap: list[float]
    scene_gap: list[float]
    attributes: dict[str, float]
    place: dict[str, float]


def measure(model: Path, data: Path, n_images: int, n_pairs: int) -> Found:
    """Classify images and scene pairs with all of a few samples."""
    clf = DiffusionClassifier.from_pretrained(
        model, strategy=f"exhaustive:n_samples={N_SAMPLES}"
    )
    source = open_tfds("cifar10", "test", data)
    names = source.class_names
    prompts = (*(CIFAR10_TEMPLATE.format(name) for name in names), "")
    classes = each_its_own(prompts)
    examples = [source[i] for i in range(n_images)]
    records = clf.classify([each.image for each in examples], classes)
    labels = np.array([each.label for each in examples])
    errors = np.stack([record.table.errors for record in records])  # [n, 11, S]
    t = np.asarray(records[0].samples.timesteps)
    signal = np.asarray(clf.model.schedule.signal)[t]
    spaces = {"noise": np.ones(len(t)), "velocity": signal**-2.0}
    accuracy = {
        space: float(((errors[:, :-1] * w).mean(2).argmin(1) == labels).mean())
        for space, w in spaces.items()
    }
    own = errors[np.arange(n_images), labels]
    right: dict[str, dict[bool, list[bool]]] = {
        space: {True: [], False: []} for space in spaces
    }
    scene_gaps = []
    for index in range(n_pairs):
        pair = scene_pair(0, index)
        three = each_its_own((*pair.captions, ""))
        for k, record in enumerate(clf.classify(list(pair.images), three)):
            found = record.table.errors
            scene_gaps.append((found[2] - found[k]) / found[2])
            for space, w in spaces.items():
                mine, other = ((found[c] * w).mean() for c in (k, 1 - k))
                right[space][pair.tag in PLACE].append(bool(mine < other))
    return Found(
        accuracy=accuracy,
        timesteps=t.tolist(),
        gap=relative(errors[:, -1], own),
        scene_gap=np.mean(scene_gaps, axis=0).tolist(),
        attributes={space: float(np.mean(right[space][False])) for space in spaces},
        place={space: float(np.mean(right[space][True])) for space in spaces},
    )


def each_its_own(prompts: tuple[str, ...]) -> Prompts:
    """A class for each prompt."""
    places = tuple(range(len(prompts)))
    return Prompts(prompts=prompts, classidx=places, class_names=prompts)


def relative(
    without: Float[np.ndarray, "n s"], own: Float[np.ndarray, "n s"]
) -> list[float]:
    """How much larger errors are without the caption, by sample."""
    return [float(gap) for gap in ((without - own) / without).mean(0)]


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown of all that was found."""
    head = "| variant | images | accuracy | attributes | place | gap by t, % |\n"
    lines = [head + "|---|---|---|---|---|---|"]
    for name, each in found.items():
        both = (
            " / ".join(f"{100 * each[key][space]:.1f}" for space in each[key])
            for key in ("accuracy", "attributes", "place")
        )
        gaps = " ".join(f"{100 * gap:.2f}" for gap in each["gap"])
        lines.append(f"| {name} | {each['images']:,} | {' | '.join(both)} | {gaps} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, measure, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=120)
    args = parser.parse_args()
    names = args.variants or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"no variant {sorted(unknown)[0]!r}")
    results = args.out / "recipes.json"
    found = json.loads(results.read_text("utf-8")) if results.exists() else {}
    try:
        names_of_classes = open_tfds("cifar10", "test", args.data_dir).class_names
        for name in names:
            recipe, out = variant(name), args.out / name
            if found:
                share_autoencoder(args.out / next(iter(found)), out)
            out.mkdir(parents=True, exist_ok=True)
            steps = steps_in(recipe, names_of_classes, args.minutes, out)
            phase = replace(recipe.denoiser, steps=steps, show_every=0)
            recipe = replace(recipe, denoiser=phase)
            start = time.monotonic()
            model = run(recipe, args.data_dir, out)
            seconds = time.monotonic() - start
            of_model = measure(model, args.data_dir, args.images, args.pairs)
            numbers = {"images": steps * phase.batch, "seconds": seconds}
            found[name] = numbers | vars(of_model)
            write_json(results, found)
            write_text(args.out / "recipes.md", table(found))
            print(table({name: found[name]}), flush=True)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
