"""What a record and a classifier show of themselves."""

import base64
import io
import re

import numpy as np
from PIL import Image
from small import images, text_model

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.settings import Settings
from diffjax.strategies import parse_strategy

LABELS = ["cat", "<script>alert('dog')</script>", "ship & boat", "frog", "cow", "hen"]


def test_lines_and_a_picture():
    strategy = parse_strategy("racing:n_samples=40:confidence=0.8")
    settings = Settings(strategy=strategy, loss="l1", cells=24)
    classifier = DiffusionClassifier(text_model(), settings)
    assert re.fullmatch(
        r"<DiffusionClassifier small by l1, racing:n_samples=40:confidence=0.8, "
        r"16 pixels, on \d × cpu>",
        repr(classifier),
    )
    [image] = images(1)
    record = classifier.classify(image, LABELS)
    line = repr(record)
    assert len(line.splitlines()) == 1 and len(line) < 200
    first, second, *_ = record.scores()
    assert f"of {record.label} {first['score']:.3f} ({second['label']}" in line
    assert (
        f"3 more), {record.evaluations} evaluations, {record.confidence:.3f} " in line
    )
    shown = record._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&amp;" in shown
    assert "and 1 more" in shown
    [picture] = re.findall(r"base64,([^']+)'", shown)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as seen:
        np.testing.assert_array_equal(np.asarray(seen), image)
    scores = [float(score) for score in re.findall(r"(\d\.\d{3})</td>", shown)]
    assert scores == [round(entry["score"], 3) for entry in record.scores()[:5]]
