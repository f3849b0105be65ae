"""Write the set of scene pairs, to be read as Winoground is, or a sheet of scenes.

    python scripts/make_scenes.py --out scene-pairs
    diffjax winoground scene-pairs --n-samples 100

The pairs are of combinations that the training scenes leave out; tags take turns.
--sheet draws the first pairs with their captions to look at; --scenes draws training
scenes instead.
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from diffjax.data.scene_pairs import scene_pair, write_scene_pairs
from diffjax.data.scenes import scene

ZOOM, COLUMNS, LINES, WIDTH = 4, 8, 4, 30  # width in letters, about 6 pixels each


def draw_sheet(pictures: list[tuple[np.ndarray, str]]) -> Image.Image:
    """Pictures above their texts, in rows."""
    side = 32 * ZOOM
    width, height = max(side, 6 * WIDTH) + 12, side + 13 * LINES + 12
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (pixels, text) in enumerate(pictures):
        x, y = k % COLUMNS * width + 6, k // COLUMNS * height + 6
        image = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(image, (x, y))
        draw.text((x, y + side), "\n".join(textwrap.wrap(text, WIDTH)), fill="black")
    return sheet


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of the pairs")
    parser.add_argument("--n", type=int, default=400, help="pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="picture of 20 pairs or 40 scenes")
    parser.add_argument("--scenes", action="store_true", help="scenes on the sheet")
    args = parser.parse_args()
    if args.out is None and args.sheet is None:
        parser.error("give --out, --sheet or both")
    if args.out is not None:
        write_scene_pairs(args.out, args.n, args.seed)
    if args.sheet is not None:
        if args.scenes:
            drawn = [scene(args.seed, k) for k in range(5 * COLUMNS)]
            pictures = [(each.image, each.caption) for each in drawn]
        else:
            pairs = [scene_pair(args.seed, k) for k in range(5 * COLUMNS // 2)]
            pictures = [
                (image, f"{pair.tag}: {caption}")
                for pair in pairs
                for image, caption in zip(pair.images, pair.captions, strict=True)
            ]
        draw_sheet(pictures).quantize(128).save(args.sheet, optimize=True)


if __name__ == "__main__":
    main()
