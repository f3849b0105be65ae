"""The sentences of a report that stand on its page and in the terminal."""

from collections.abc import Sequence

from diffjax.report.captions import CaptionGroup
from diffjax.report.charts import ends
from diffjax.report.compare import Group
from diffjax.report.crosstable import CrossTable
from diffjax.report.paired import LEVEL, Place, Standing
from diffjax.report.shifts import Shifts
from diffjax.report.tables import percent, rate_text

NAMED = 4  # runs that a sentence names
LONGEST = 60  # characters of such a name
TEST = "exact McNemar test"


def headline(group: Group) -> str:
    """Which run is the most accurate, if the images that all classified tell."""
    known = [(run, run.accuracy) for run in group.runs if run.accuracy]
    if not known:
        return "No run has a result."
    if group.standing is None:
        [(run, accuracy)] = known
        return (
            f"{ends(run.name, LONGEST)} classifies {rate_text(accuracy)} of the "
            "images correctly."
        )
    return _standing(group.standing, len(known), "image", "is the most accurate")


def caption_headline(group: CaptionGroup) -> str:
    """Which run tells captions apart best, if the examples of all of them tell."""
    known = [(run, rate) for run in group.runs if (rate := run.rate("text"))]
    if not known:
        return "No run has a result."
    if group.standing is None:
        [(run, text)] = known
        what = "the right caption" if run.choice else "the caption of both images"
        return (
            f"{ends(run.name, LONGEST)} finds {what} in {rate_text(text)} of the "
            f"examples, where chance finds {percent(run.chance['text'])}."
        )
    what = "has the best text score"
    return _standing(group.standing, len(known), "example", what)


def shift_headline(shifts: Shifts) -> str:
    """How accurate each model is on clean images and on those made worse."""
    if shifts.problem:
        return f"accuracies under shift are not compared: {shifts.problem}"
    texts = [
        f"{ends(point.model, LONGEST)} classifies {percent(point.clean)} of the clean "
        f"images correctly, and {percent(point.shifted)} of those made worse"
        for point in shifts.overall
    ]
    if len(texts) > NAMED:
        texts[NAMED:] = [f"and {len(texts) - NAMED} more models"]
    return "; ".join(texts) + "."


def cross_notes(table: CrossTable, mark: str = "Bold") -> list[str]:
    """What is marked, what mean ranks are over, and which cells do not count."""
    notes = [
        f"{mark}: told apart from every other on the same images ({TEST}, p < {LEVEL})."
    ]
    whole = sum(table.complete)
    if whole and len(table.rows) > 1:
        notes.append(
            f"Mean ranks are over the {whole} of {len(table.columns)} data sets on "
            "which every row has a finished run of the same images"
            + (f": {_list(table.columns, table.complete)}." if whole > 1 else ".")
        )
    elif len(table.rows) > 1:
        notes.append(
            "There are no mean ranks: on no data set does every row have a finished "
            "run of the same images."
        )
    going = [
        f"{name} on {column}"
        for name, cells in zip(table.rows, table.cells, strict=True)
        for column, cell in zip(table.columns, cells, strict=True)
        if cell and not cell.finished
    ]
    if going:
        more = f" and {len(going) - NAMED} more" if len(going) > NAMED else ""
        notes.append(f"Not finished: {', '.join(going[:NAMED])}{more}.")
    return notes


def _list(names: Sequence[str], chosen: Sequence[bool]) -> str:
    return "; ".join(n for n, yes in zip(names, chosen, strict=True) if yes)


def _standing(standing: Standing, n: int, what: str, best: str) -> str:
    """Who of n runs leads, with the test that tells it or does not."""
    if not standing.places:
        return f"The {n} runs have no {what} in common, so none of them {best}."
    first, *others = standing.places
    shared = f"{standing.images:,} shared {what}{'s' if standing.images != 1 else ''}"
    if not standing.tied:
        closest = max(place.p for place in others)
        return (
            f"Of {n} runs, {_named([first])} {best}, ahead of {_named(others)} on "
            f"{shared} ({TEST}, p\N{NO-BREAK SPACE}{_at('≤', others, closest)})."
        )
    least = min(place.p for place in standing.tied)
    behind = [place for place in others if place not in standing.tied]
    worse = f" Behind: {_named(behind)}." if behind else ""
    return (
        f"{_named([first, *standing.tied])} are not distinguishable on {shared} "
        f"({TEST}, p\N{NO-BREAK SPACE}{_at('≥', standing.tied, least)}).{worse}"
    )


def _named(places: Sequence[Place]) -> str:
    """Runs with their accuracy on the shared images: A (66.5 %), B (64.5 %) and C …"""
    texts = [f"{ends(p.name, LONGEST)} ({percent(p.accuracy)})" for p in places]
    if len(texts) > NAMED:
        texts[NAMED - 1 :] = [f"{len(texts) - NAMED + 1} more"]
    *before, last = texts
    return f"{', '.join(before)} and {last}" if before else last


def _at(sign: str, places: Sequence[Place], p: float) -> str:
    """The p of one comparison, or the end of those of several."""
    number = f"{p:.2g}" if p >= 0.001 else "0.001"
    if p < 0.001:
        return f"<\N{NO-BREAK SPACE}{number}"
    return f"{'=' if len(places) == 1 else sign}\N{NO-BREAK SPACE}{number}"
