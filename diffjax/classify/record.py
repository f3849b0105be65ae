"""What is known of one image after its classification.

    Δ_c     = mean of e[c, s] − e[b, s] over the samples s that c has seen (by their
              weights, where they have some),
              b the class that is best on them
    score_c = exp(−Δ_c / τ) / Σ_c′ exp(−Δ_c′ / τ)

For a class that has seen all that the winner has, b is the winner. For one that was
pruned, Δ_c is what that rested on: b led when c was dropped, and may have lost to the
winner later; the standard error of Δ_c is then the one by which a race was sure. Before
Δ becomes a score it is raised to that of whoever ranks above: few samples may make a
pruned class look better than one that outlived it.

τ, the temperature, is in units of the error. The order of classes does not depend on
it, and nor is a score a calibrated probability unless τ has been fitted on labelled
images, which ``Record.calibrated`` says.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax

from diffjax.classify.notebook import record_html
from diffjax.classify.samples import few_shot
from diffjax.data.prompts import Prompts
from diffjax.strategies.base import (
    Decision,
    ErrorTable,
    Samples,
    best_prompts,
    class_decision,
    class_differences,
)

# what a decision's confidence is about, said beside it
SURE_OF = "that all samples would decide alike; not that the answer is right"


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What a further loss says of the same evaluations.

    Attributes:
        table: The errors, float32 [P, S], NaN where not evaluated.
        prompt_decision: The decision about the rows of the table.
        decision: The decision about the classes.
    """

    table: ErrorTable
    prompt_decision: Decision
    decision: Decision


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Record:
    """What is known of one image after its classification.

    Attributes:
        pixels: What the model saw, in [−1, 1].
        prompts: The C classes and the P rows that stood for them; the rows of a model
            that takes no prompts are called as its classes are.
        truncated: The prompts that were too long and have been cut.
        limits: A line about classes that the model never saw, if that is known.
        among: The classes that a prefilter left to choose from; None for all.
        samples: The S (timestep, noise) pairs in the order of their use.
        table: The errors, float32 [P, S], NaN where not evaluated.
        prompt_decision: The decision about the rows of the table.
        temperature: The temperature τ of the scores.
        foreseen: What a shortlist's estimates foresaw of the errors, less its mean;
            the decision is about the rest. None for nothing.
        seconds: The image's part of the time that its tiles took, without loading and
            without the text encoder. Compilation is part of the first images' tiles.
        settings: Model, strategy, loss and whatever else decides the errors.
        also: The verdicts of further losses on the same evaluations; the deciding loss
            decided who was pruned.
    """

    pixels: Float[np.ndarray, "h w 3"]
    prompts: Prompts
    truncated: tuple[str, ...] = ()
    limits: str | None = None
    among: tuple[int, ...] | None = None
    samples: Samples
    table: ErrorTable
    prompt_decision: Decision
    temperature: float
    seconds: float
    foreseen: Float[np.ndarray, "P S"] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    also: dict[str, Verdict] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool | None:
        """Whether the temperature was fitted to labels; None if it was asked for."""
        return self.settings.get("calibrated")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the C classes."""
        return self.prompts.class_names

    @cached_property
    def classidx(self) -> Int[np.ndarray, "P"]:
        """The class of each prompt."""
        return np.asarray(self.prompts.classidx)

    @cached_property
    def decision(self) -> Decision:
        """The decision about the classes; the best prompt of each represents it."""
        return class_decision(self.prompt_decision, self.classidx)

    @property
    def label(self) -> str:
        """The name of the winner."""
        return self.labels[self.decision.winner]

    @property
    def confidence(self) -> float | None:
        """How sure the strategy is, at least, that all samples would decide alike.

        It is not how sure the model is that the answer is right. None if the strategy
        does not say; 1 if all samples were evaluated.
        """
        return self.decision.confidence

    @property
    def evaluations(self) -> int:
        """The forward passes that were asked for; a gradient counts for three."""
        return self.decision.n_evaluations

    @cached_property
    def errors(self) -> Float[np.ndarray, "C S"]:
        """The errors of each class (of its best prompt), NaN where not evaluated."""
        best = best_prompts(self.prompt_decision, self.classidx)
        errors: np.ndarray = self.table.errors[best]
        return errors

    @property
    def compared(self) -> ErrorTable:
        """What the decision compares: the errors, less what was foreseen of them."""
        if self.foreseen is None:
            return self.table
        return replace(self.table, errors=self.table.errors - self.foreseen)

    def differences(self) -> tuple[Float[np.ndarray, "C"], Float[np.ndarray, "C"]]:
        """Return Δ of each class and its standard error; zero for the winner.

        NaN and infinite for a class that was never evaluated.
        """
        best = best_prompts(self.prompt_decision, self.classidx)
        return class_differences(self.compared.rows(best), self.decision)

    def by_timestep(
        self,
    ) -> tuple[Int[np.ndarray, "T"], Float[np.ndarray, "C T"]]:
        """Return evaluated timesteps, ascending, and each class's mean error there."""
        seen = ~np.isnan(self.errors)
        used = seen.any(axis=0)  # a race may end before all samples are
        errors, seen = self.errors[:, used].astype(np.float64), seen[:, used]
        timesteps, column = np.unique(self.samples.timesteps[used], return_inverse=True)
        totals = np.zeros((len(self.labels), len(timesteps)))
        counts = np.zeros_like(totals)
        np.add.at(totals.T, column, np.where(seen, errors, 0).T)
        np.add.at(counts.T, column, seen.T)
        means = np.where(counts == 0, np.nan, totals / np.maximum(counts, 1))
        return timesteps, means

    def scores(self) -> list[dict[str, Any]]:
        """Return {"score", "label"} of each class, best first; scores sum to 1.

        A class that was pruned has "pruned": True and "n_samples" besides, on which its
        score rests; it does not exceed that of a class that outlived it. Classes that a
        prefilter or a shortlist left out have seen no sample, and score 0.
        """
        decision = self.decision
        settled = settled_differences(self.differences()[0], decision.ranking)
        odds = np.exp(log_scores(settled, self.temperature))
        entries = []
        for c in decision.ranking:
            entry: dict[str, Any] = {"score": float(odds[c]), "label": self.labels[c]}
            if decision.pruned[c]:
                entry |= {"pruned": True, "n_samples": int(decision.n_samples[c])}
            entries.append(entry)
        return entries

    def _weights(self) -> dict[str, Any]:
        """The samples with their weights, where they have some."""
        samples = self.samples
        if samples.weights is None:
            return {}
        columns = (samples.timesteps, samples.noises, samples.weights)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        names = ("timestep", "noise", "weight")
        return {"samples": [dict(zip(names, row, strict=True)) for row in rows]}

    def __repr__(self) -> str:
        """One line: the best classes and their scores, evaluations, confidence."""
        best, *others = [
            f"{entry['label']} {entry['score']:.3f}" for entry in self.scores()[:3]
        ]
        more = len(self.labels) - 1 - len(others)
        rest = [*others, *([f"{more:,} more"] if more else [])]
        facts = [f"{best} ({', '.join(rest)})" if rest else best]
        facts.append(f"{self.evaluations:,} evaluations")
        if self.confidence is not None:
            facts.append(f"{self.confidence:.3f} sure that all samples decide alike")
        if seen := few_shot(self.settings):
            facts.append(seen)
        return f"<Record of {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        """The image and its ranking, for notebooks."""
        return record_html(self)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values: scores, cost, settings, all errors by timestep."""
        timesteps, errors = self.by_timestep()
        deltas = np.stack(self.differences(), axis=1)
        gradients = self.decision.n_gradients
        also = {
            loss: self.labels[verdict.decision.winner]
            for loss, verdict in self.also.items()
        }
        among = None if self.among is None else [self.labels[c] for c in self.among]
        seen = few_shot(self.settings)
        return {
            "label": self.label,
            **({"also": also} if also else {}),
            **({"few_shot": seen} if seen else {}),
            **({} if among is None else {"among": among}),
            **({} if self.limits is None else {"limits": self.limits}),
            "scores": self.scores(),
            "temperature": self.temperature,
            **({} if self.calibrated is None else {"calibrated": self.calibrated}),
            "confidence": self.confidence,
            **({} if self.confidence is None else {"confidence_of": SURE_OF}),
            "evaluations": self.evaluations,
            **({"gradients": gradients} if gradients else {}),
            "seconds": self.seconds,
            "settings": self.settings,
            "prompts": [
                {"prompt": prompt, "label": self.labels[c]}
                | ({"truncated": True} if prompt in self.truncated else {})
                for prompt, c in zip(self.prompts.prompts, self.classidx, strict=True)
            ],
            **self._weights(),
            "timesteps": timesteps.tolist(),
            "errors": [  # a list, since two classes may share a name
                {
                    "label": label,
                    "difference": _known(difference),
                    "standard_error": _known(standard_error),
                    "by_timestep": [_known(e) for e in row],
                }
                for label, row, (difference, standard_error) in zip(
                    self.labels, errors, deltas, strict=True
                )
            ],
        }


def _known(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def settled_differences(
    differences: Float[np.ndarray, "*n C"], ranking: Int[np.ndarray, "*n C"]
) -> Float[np.ndarray, "*n C"]:
    """Raise Δ of each class to that of any class that ranks above it.

    A pruned class may look better on its few samples than one that outlived it; its
    score shall not. A class without samples (NaN) is infinitely far from the winner,
    and so is whatever ranks below.

    Args:
        differences: Δ to the winner, in class order.
        ranking: The classes, best first.
    """
    ranked = np.take_along_axis(differences, ranking, axis=-1)
    ranked = np.maximum.accumulate(np.nan_to_num(ranked, nan=np.inf), axis=-1)
    settled = np.empty_like(differences)
    np.put_along_axis(settled, ranking, ranked, axis=-1)
    return settled


def log_scores(
    settled: Float[np.ndarray, "*n C"], temperature: float
) -> Float[np.ndarray, "*n C"]:
    """Return the logarithms of the scores: the log-softmax of −Δ/τ over the classes."""
    scores: np.ndarray = log_softmax(-settled / temperature, axis=-1)
    return scores
