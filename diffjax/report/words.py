"""The sentences of a report that stand on its page and in the terminal."""

from collections.abc import Sequence

from diffjax.report.charts import short
from diffjax.report.compare import Group
from diffjax.report.paired import Place
from diffjax.report.tables import percent, rate_text

NAMED = 4  # runs that a sentence names
LONGEST = 60  # characters of such a name
TEST = "exact McNemar test"


def headline(group: Group) -> str:
    """Which run is the most accurate, if the images that all classified tell."""
    known = [(run, run.accuracy) for run in group.runs if run.accuracy]
    if not known:
        return "No run has a result."
    standing = group.standing
    if standing is None:
        [(run, accuracy)] = known
        return (
            f"{short(run.name, LONGEST)} classifies {rate_text(accuracy)} of the "
            "images correctly."
        )
    if not standing.places:
        return (
            f"The {len(known)} runs have no image in common, so none of them can be "
            "called more accurate."
        )
    first, *others = standing.places
    images = f"{standing.images:,} shared image{'s' if standing.images != 1 else ''}"
    if not standing.tied:
        closest = max(place.p for place in others)
        return (
            f"Of {len(known)} runs, {_named([first])} is the most accurate, ahead of "
            f"{_named(others)} on {images} ({TEST}, p {_at('≤', others, closest)})."
        )
    least = min(place.p for place in standing.tied)
    behind = [place for place in others if place not in standing.tied]
    worse = f" Behind: {_named(behind)}." if behind else ""
    return (
        f"{_named([first, *standing.tied])} are not distinguishable on {images} "
        f"({TEST}, p {_at('≥', standing.tied, least)}).{worse}"
    )


def _named(places: Sequence[Place]) -> str:
    """Runs with their accuracy on the shared images: A (66.5 %), B (64.5 %) and C …"""
    texts = [f"{short(p.name, LONGEST)} ({percent(p.accuracy)})" for p in places]
    if len(texts) > NAMED:
        texts[NAMED - 1 :] = [f"{len(texts) - NAMED + 1} more"]
    *before, last = texts
    return f"{', '.join(before)} and {last}" if before else last


def _at(sign: str, places: Sequence[Place], p: float) -> str:
    """The p of one comparison, or the end of those of several."""
    number = f"{p:.2g}" if p >= 0.001 else "0.001"
    if p < 0.001:
        return f"< {number}"
    return f"{'=' if len(places) == 1 else sign} {number}"
