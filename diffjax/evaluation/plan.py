"""What a run will cost, before it is begun."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.seen import told as told_by
from diffjax.evaluation.task import Task
from diffjax.scoring.cost import tile_cost
from diffjax.scoring.rows import most_classes, split_classes, width_for
from diffjax.strategies.base import GRADIENT_COST, Request, State, run_on
from diffjax.strategies.shortlist import restrict


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of a run on this machine.

    Attributes:
        images: of the run.
        classes: to choose from.
        prompts: that stand for them, or class ids.
        evaluations_per_image: forward passes that are asked for, at most; a gradient
            counts for three.
        fewest_evaluations_per_image: for an image that one look decides, where the
            strategy stops early; else the same.
        passes_per_image: with those that fill up blocks.
        gradients_per_image: forward and backward passes, for a shortlist.
        gradient_in_evaluations: how many evaluations take as long as one of these, as
            timed; None where there are none.
        flops_per_image: of the most evaluations, as the compiler counts them.
        seconds_per_image: of these, timed on a few tiles; without reading and encoding.
        device: they were timed on.
    """

    images: int
    classes: int
    prompts: int
    evaluations_per_image: int
    fewest_evaluations_per_image: int
    passes_per_image: int
    gradients_per_image: int
    gradient_in_evaluations: float | None
    flops_per_image: float
    seconds_per_image: float
    device: str

    @property
    def evaluations(self) -> int:
        """Of the whole run."""
        return self.images * self.evaluations_per_image

    @property
    def flops(self) -> float:
        """Of the whole run."""
        return self.images * self.flops_per_image

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.images * self.seconds_per_image

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, totals included."""
        totals = ("evaluations", "flops", "seconds")
        return asdict(self) | {name: getattr(self, name) for name in totals}


def make_plan(task: Task, classifier: DiffusionClassifier) -> Plan:
    """Plan a run: count its evaluations, and time each shape of tile that it uses.

    Strategies that stop early are planned with errors from which nothing can be
    learned, so the plan is what they need at most. How few evaluations they may need is
    found with errors that tell all classes apart at once.

    Raises:
        DiffjaxError: if the strategy or the classes do not fit the model.
    """
    candidates = task.candidates(classifier)
    grid = classifier.grid
    classidx = np.asarray(candidates.prompts.classidx)
    n_prompts = len(classidx)
    width = width_for(n_prompts, most_classes(grid.cells, grid.devices))
    blocks: Counter[int] = Counter()  # by their number of classes

    def evaluate(state: State, request: Request) -> Float[np.ndarray, "k s"]:
        n, s = len(request.classes), len(request.samples)
        for classes, rows in split_classes(n, width).items():
            blocks[classes] += len(rows) * s
        return _errors(request, apart=0.0)

    def plain(state: State, request: Request) -> Float[np.ndarray, "k s"]:
        return _errors(request, apart=1e3)

    n_timesteps = classifier.model.schedule.n_timesteps
    settings = classifier.settings
    strategy = settings.strategy
    state = strategy.start(n_prompts, n_timesteps, classidx, settings.given)
    flops, seconds, counted = 0.0, 0.0, 0.0
    told = told_by(classifier.settings, classifier.resolution, classifier.resolution)
    if task.prefilter is not None and task.prefilter.most is not None:
        state = restrict(state, range(task.prefilter.most))
        flops = task.prefilter.flops()
    at_best = state
    if (estimates := classifier.estimates(candidates)) is not None:
        at_best = estimates.outlook(state, estimates.fewest)
        state = estimates.outlook(state, estimates.most)
        cost = estimates.cost()
        counted = estimates.n_gradients + estimates.n_curved / GRADIENT_COST
        flops, seconds = flops + cost.flops, cost.seconds
    # it is written in place
    empty = replace(state.table, errors=state.table.errors.copy())
    fewest = run_on(strategy, replace(at_best, table=empty), plain).n_evaluations
    state = run_on(strategy, state, evaluate)
    shape = classifier.latent_shape
    costs = {
        width: tile_cost(grid, grid.tile(width), candidates.conditions, shape, told)
        for width in blocks
    }
    wide = max(costs)
    evaluation = costs[wide].seconds / grid.tile(wide).cells
    n_gradients = state.n_gradients
    ratio = seconds / counted / evaluation if counted else None
    tiles = {width: n / grid.tile(width).blocks for width, n in blocks.items()}
    return Plan(
        images=len(task.indices),
        classes=len(task.classes),
        prompts=n_prompts,
        evaluations_per_image=state.n_evaluations,
        fewest_evaluations_per_image=fewest,
        passes_per_image=sum(width * n for width, n in blocks.items()),
        gradients_per_image=n_gradients,
        gradient_in_evaluations=ratio,
        flops_per_image=flops + sum(costs[w].flops * n for w, n in tiles.items()),
        seconds_per_image=seconds + sum(costs[w].seconds * n for w, n in tiles.items()),
        device=classifier.device,
    )


def _errors(request: Request, apart: float) -> Float[np.ndarray, "k s"]:
    """Errors of classes whose means are so far apart, for a spread of their number."""
    # samples differ, whatever lies between them, and cancel out: Thue and Morse's signs
    signs = np.array([1 - 2 * (int(s).bit_count() % 2) for s in request.samples])
    errors = request.classes[:, None] * (apart + signs)
    return errors.astype(np.float32)
