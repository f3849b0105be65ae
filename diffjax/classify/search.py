"""An image on its way to a decision: a strategy's state, and what it asks for."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.classify.candidates import Candidates
from diffjax.classify.estimates import Estimates
from diffjax.classify.progress import Progress
from diffjax.classify.record import Record, Verdict
from diffjax.classify.seen import Encoded
from diffjax.classify.settings import Settings
from diffjax.errors import NotFiniteError
from diffjax.scoring.packing import Cells
from diffjax.strategies.base import (
    ErrorTable,
    Request,
    State,
    check_finite,
    class_decision,
    rank,
)
from diffjax.strategies.shortlist import restrict


class ImageSearch:
    """Asks for cells until the strategy has decided; see ``scoring.packing.Search``.

    Attributes:
        name: What the caller knows the image by.
        state: The state of the strategy.
        seconds: The time that the devices have spent on the image.
    """

    def __init__(
        self,
        name: Any,
        encoded: Encoded,
        candidates: Candidates,
        settings: Settings,
        n_timesteps: int,
        progress: Progress,
        described: dict[str, Any],
        estimates: Estimates | None = None,
    ) -> None:
        """Begin; with estimates, choose the classes that take part.

        Args:
            name: What the caller knows the image by.
            encoded: The image.
            candidates: The classes to choose from.
            settings: The strategy, and what the record holds.
            n_timesteps: The number of timesteps of the model's schedule.
            progress: An object that is told how many more evaluations are done.
            described: What the record is to say of model and settings, the temperature
                among it.
            estimates: Estimates of the candidates' errors, for a shortlist.

        Raises:
            DiffjaxError: If the strategy makes no sense for the candidates, or a
                prefilter left no class.
        """
        self.name = name
        self._encoded = encoded
        self.key = encoded.key
        self.z0 = encoded.z0
        self.told = encoded.told
        self.seconds = 0.0
        self.finished = 0  # evaluations of the current request
        self._candidates = candidates
        self._settings = settings
        self._strategy = settings.strategy
        self._progress = progress
        self._described = described
        self._asked: Request | None = None
        self._failure: NotFiniteError | None = None
        classidx = np.asarray(candidates.prompts.classidx)
        self.state: State = self._strategy.start(
            len(classidx), n_timesteps, classidx, settings.given
        )
        if encoded.among is not None:
            self.state = restrict(self.state, encoded.among)
        if estimates is not None:
            try:
                self.state = estimates.shorten(self.state, self.z0, self.key, self.told)
            except NotFiniteError as failure:
                self._failure = failure
        table = self.state.table
        self._tables = {
            loss: replace(table, errors=np.full_like(table.errors, np.nan))
            for loss in settings.also
        }

    @property
    def done(self) -> int:
        """The number of evaluations so far."""
        return self.state.n_evaluations + self.finished

    @property
    def remaining(self) -> int:
        """The number of evaluations still to come, at most."""
        return self._strategy.remaining(self.state) - self.finished

    @property
    def alive(self) -> int:
        """The number of classes (prompts) that are not yet pruned."""
        return int(self.state.living.sum())

    def request(self) -> Cells | None:
        """Return the cells to evaluate next; None when done, or after an overflow."""
        self.finished = 0
        if self._failure is not None:
            return None
        self._asked = self._strategy.request(self.state)
        if self._asked is None:
            return None
        samples = self.state.samples
        return Cells(
            self._asked.classes,
            samples.timesteps[self._asked.samples],
            samples.noises[self._asked.samples],
        )

    def receive(self, errors: Float[np.ndarray, "l n s"]) -> None:
        """Take the errors of the request, by the deciding and by the further losses."""
        assert self._asked is not None
        first, *others = errors
        try:
            for loss, values in zip(self._tables, others, strict=True):
                check_finite(self.state, self._asked, values, loss)
                self._tables[loss].write(self._asked, values)
            self.state = self._strategy.update(self.state, self._asked, first)
        except NotFiniteError as failure:
            self._failure = failure

    def advance(self, cells: int) -> None:
        """Note that so many more cells of the request are done."""
        self.finished += cells
        self._progress.advance(cells)

    def record(self) -> Record:
        """Return what is known of the image in the end.

        Raises:
            NotFiniteError: If the network's numbers overflowed.
        """
        if self._failure is not None:
            raise self._failure
        if self.state.table.identical():
            warnings.warn(
                "The errors of all classes are identical: the denoiser does not use "
                "its condition, or all classes say the same.",
                stacklevel=2,
            )
        return self.known()

    def known(self) -> Record:
        """Return what is known so far, after one request at least.

        Its tables are those of the search, which later requests write to.
        """
        prompts = self._candidates.prompts
        classidx = np.asarray(prompts.classidx)
        state = self.state

        def verdict(table: ErrorTable) -> Verdict:
            # what was foreseen, was of the deciding loss
            decision = rank(replace(state, table=table, foreseen=None, deficits=None))
            return Verdict(
                table=table,
                prompt_decision=decision,
                decision=class_decision(decision, classidx),
            )

        return Record(
            pixels=self._encoded.pixels,
            prompts=prompts,
            truncated=self._candidates.truncated,
            limits=self._candidates.limits,
            among=self._encoded.among,
            samples=state.samples,
            table=state.table,
            prompt_decision=self._strategy.decide(state),
            temperature=float(self._described["temperature"]),
            seconds=self.seconds,
            foreseen=state.foreseen,
            settings=self._described,
            also={loss: verdict(table) for loss, table in self._tables.items()},
        )
