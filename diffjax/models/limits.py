"""What a model has learned, where that is little enough to be said."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 3  # labels in a message


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a small model was trained on.

    Attributes:
        trained_on: In words.
        instead: The name of a model to take for all else.
        words: All words of its captions, in small letters; None for a model that knows
            classes by id.
    """

    trained_on: str
    instead: str
    words: frozenset[str] | None = None

    def unseen(self, labels: Iterable[str]) -> list[str]:
        """The labels with a word that was in no caption."""
        if self.words is None:
            return []
        return [
            label
            for label in labels
            if not set(re.findall(r"[^\W_]+", label.lower())) <= self.words
        ]

    def advice(self, name: str) -> str:
        """What to say of labels that the model, so called, has not learned."""
        return f"{name} was trained on {self.trained_on}; take {self.instead} for more."

    def warning(self, name: str, labels: Iterable[str]) -> str | None:
        """A line about labels that it never saw; None if it has seen all."""
        if not (unseen := self.unseen(labels)):
            return None
        shown = ", ".join(repr(label) for label in unseen[:SHOWN])
        if more := len(unseen) - SHOWN:
            shown += f" and {more:,} more" if more > 0 else ""
        return (
            f"{name} never saw {shown}, and what it says of that means nothing. "
            f"{self.advice('It')}"
        )
