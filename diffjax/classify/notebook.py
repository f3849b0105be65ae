"""What a notebook shows of a record: a small picture and a table."""

import html
import io
from base64 import b64encode
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from diffjax.classify.samples import few_shot

if TYPE_CHECKING:
    from diffjax.classify.record import Record

EDGE = 112  # of the picture, in pixels of the page
MOST = 512  # of the picture's own
SHOWN = 5  # classes


def record_html(record: "Record") -> str:
    """Show an image as the model saw it, and its best classes with their scores."""
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(entry['label'])}</td>"
        "<td style='text-align:right'>"
        f"{'≈' if entry.get('pruned') else ''}{entry['score']:.3f}</td></tr>"
        for entry in record.scores()[:SHOWN]
    )
    notes = [f"{record.evaluations:,} evaluations"]
    if more := max(0, len(record.labels) - SHOWN):
        notes.insert(0, f"and {more:,} more")
    if record.confidence is not None:
        notes.append(f"{record.confidence:.3f} sure that all samples decide alike")
    if record.calibrated is False:
        notes.append("scores are not calibrated")
    if seen := few_shot(record.settings):
        notes.append(seen)
    if record.limits is not None:
        notes.append(record.limits)
    return (
        "<div style='display:flex;gap:1em;align-items:flex-start'>"
        f"<img alt='{html.escape(record.label)}' width='{EDGE}' height='{EDGE}' "
        f"style='image-rendering:pixelated' src='{picture_address(record.pixels)}'>"
        f"<div><table><tr><th style='text-align:left'>label</th><th>score</th></tr>"
        f"{rows}</table><small>{html.escape('; '.join(notes))}</small></div></div>"
    )


def picture_address(pixels: Float[np.ndarray, "H W 3"]) -> str:
    """Pixels in [−1, 1] as the address of an image that is within a page."""
    return f"data:image/png;base64,{b64encode(_png(pixels)).decode()}"


def _png(pixels: Float[np.ndarray, "H W 3"]) -> bytes:
    seen = np.rint((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
    image = Image.fromarray(seen)
    image.thumbnail((MOST, MOST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
