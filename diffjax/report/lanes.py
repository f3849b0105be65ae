"""A race as a person watches it: HTML without scripts, for a page that is drawn anew.

A lane a class, best on top: how much larger its error is than the leader's, with an
interval of two standard errors to either side, from a line that stands for the leader.
An interval that crosses the line is a class that may yet win. Drawn into the place of
an earlier moment, lanes glide and intervals shrink, if elements are kept and only their
attributes change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diffjax.classify.notebook import picture_address
from diffjax.report.heatmaps import overlay
from diffjax.report.page import TEMPLATES, environment

if TYPE_CHECKING:
    from diffjax.classify.explanation import Explanation
    from diffjax.classify.race import Moment
    from diffjax.classify.record import Record

LANES = 12  # at most
ROWS = 20  # of the table of scores
UNIT = 1e-3  # of the error differences
BEFORE = 12.0  # percent of a lane that lie before the line
ROOM = 1.15  # the longest bar's length fits so often
SIDES = 2  # standard errors to either side
BANDS = 3  # of timesteps, with a map each
PREFIXES = ("", "k", "M", "G", "T", "P", "E")


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A class in the picture; places are percent of the width, from the left.

    Attributes:
        label: The name of the class.
        place: Where it stands, from 0 for the leader.
        state: "leads", "alive", "dropped" or "out": left out before the first look.
        bar: Where the bar begins and how long it is.
        interval: The same of the interval; None where nothing is known of it.
        text: The difference in words.
        fate: What became of the class; "" while it runs.
    """

    label: str
    place: int
    state: str
    bar: tuple[float, float]
    interval: tuple[float, float] | None
    text: str
    fate: str = ""


def race_html(moment: "Moment | None", flops: float, model: str = "") -> str:
    """Draw a moment of a race.

    Args:
        moment: The moment; None before there is any.
        flops: FLOPs of an evaluation, at most.
        model: The name of the model, to be told.
    """
    record = None if moment is None else moment.record
    return _drawn(
        "race",
        moment=moment,
        record=record,
        model=model,
        lanes=[] if record is None else lanes(record),
        alive=0 if record is None else int((~record.decision.pruned).sum()),
        samples=0 if record is None else int(record.decision.n_samples.max()),
        flops="" if moment is None else flops_text(moment.evaluations * flops),
        zero=BEFORE,
        ticks=[] if record is None else _ticks(_longest(record)),
        rest=0 if record is None else max(0, len(record.labels) - LANES),
    )


def lanes(record: "Record") -> list[Lane]:
    """Return the best classes, in the order of the classes: places may change."""
    decision = record.decision
    shown = decision.ranking[:LANES]
    means, errors = record.differences()
    scale = (100 - BEFORE) / _longest(record)

    def span(low: float, high: float) -> tuple[float, float]:
        left, right = np.clip(BEFORE + scale * np.array([low, high]), 0, 100)
        return round(float(left), 2), round(float(right - left), 2)

    found = []
    for place, c in enumerate(shown):
        mean, error, n = means[c], errors[c], int(decision.n_samples[c])
        known = bool(np.isfinite([mean, error]).all())
        dropped = bool(decision.pruned[c])
        state = "dropped" if dropped else "alive" if place else "leads"
        reach = SIDES * error
        lane = Lane(
            label=record.labels[c],
            place=place,
            state=state if n else "out",
            bar=span(min(mean, 0.0), max(mean, 0.0)) if known else (BEFORE, 0.0),
            interval=span(mean - reach, mean + reach) if known and place else None,
            text=_difference(mean, error) if known and place else "",
            fate=_fate(dropped, n),
        )
        found.append((int(c), lane))
    return [lane for _, lane in sorted(found, key=lambda each: each[0])]


def table_html(record: "Record") -> str:
    """The scores, as a table."""
    means, errors = record.differences()
    decision = record.decision
    rows = []
    for place, entry in enumerate(record.scores()[:ROWS]):
        c, n = decision.ranking[place], int(decision.n_samples[decision.ranking[place]])
        pruned = bool(decision.pruned[c])
        known = place and np.isfinite([means[c], errors[c]]).all()
        rows.append(
            (
                entry["label"],
                f"{'≈' if pruned and n else ''}{entry['score']:.3f}",
                _difference(means[c], errors[c]) if known else "" if place else "0",
                f"{n:,}",
                pruned,
            )
        )
    rest = max(0, len(record.labels) - ROWS)
    return _drawn("table", record=record, rows=rows, rest=rest)


def evidence_html(explanation: "Explanation") -> str:
    """Maps of the evidence for one label over another, by bands of timesteps."""
    [whole], bands = explanation.bands(1), explanation.bands(BANDS)
    maps = [("all timesteps", whole)]
    maps += [(f"t = {band.first} … {band.last}", band) for band in bands]
    panels = [("the image", picture_address(explanation.pixels), "")]
    for name, band in maps:
        image, strongest = overlay(explanation.pixels, band.evidence)
        address = picture_address(2 * image - 1)
        panels.append((name, address, f"± {strongest / UNIT:.3g}"))
    return _drawn(
        "evidence",
        explanation=explanation,
        panels=panels,
        difference=f"{explanation.difference / UNIT:+.3g}",
        samples=len(explanation.timesteps),
    )


def words_html(words: Sequence[str], *, problem: bool = False) -> str:
    """Notes, or one line that says what is wrong or under way."""
    return _drawn("notes", words=words, problem=problem)


def style() -> str:
    """The style sheet of all of these."""
    return (TEMPLATES / "race.css").read_text(encoding="utf-8")


def flops_text(flops: float) -> str:
    """FLOPs with three digits, as "12.3 GFLOP"."""
    step = int(np.clip(np.log10(max(flops, 1)) // 3, 0, len(PREFIXES) - 1))
    return f"{flops / 1000**step:.3g} {PREFIXES[step]}FLOP"


@cache
def _macros() -> Any:
    return environment().get_template("race.html.j2").module


def _drawn(what: str, **values: Any) -> str:
    return str(getattr(_macros(), what)(**values))


def _ticks(longest: float) -> list[tuple[float, str]]:
    """Round differences above zero, in units, and where they are in a lane."""
    most = longest / UNIT
    step = 10 ** np.floor(np.log10(most))
    step *= next(factor for factor in (0.2, 0.5, 1, 2) if most / (factor * step) < 5)
    values = np.arange(1, int(most / step) + 1) * step
    places = BEFORE + (100 - BEFORE) * values / most
    return [(round(p, 2), f"+{v:g}") for p, v in zip(places, values, strict=True)]


def _longest(record: "Record") -> float:
    """The difference that is as long as a lane."""
    shown = record.differences()[0][record.decision.ranking[:LANES]]
    return float(np.nanmax(shown, initial=0.0)) * ROOM or UNIT


def _difference(mean: float, error: float) -> str:
    return f"{mean / UNIT:+.2f} ± {error / UNIT:.2f}"


def _fate(dropped: bool, n: int) -> str:
    if not n:
        return "left out"
    return f"dropped after {n:,}" if dropped else ""
