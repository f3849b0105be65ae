"""Decide a run again from its saved errors: no model, no evaluation.

A run with saved errors holds, for each image, the error of each prompt at each sample
(timestep, noise), where it was evaluated. From these follow the decisions by another
loss that was evaluated along, by other weights over timesteps, and by any strategy that
asks for no more than what was evaluated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffjax.choices import DEGREES, SPACES
from diffjax.classify.settings import loss_name
from diffjax.errors import DiffjaxError, unknown
from diffjax.runs.folder import (
    open_run,
    read_run,
    write_summary,
)
from diffjax.runs.header import HEADER
from diffjax.runs.metrics import summary, wilson
from diffjax.runs.outcomes import (
    check_results,
    decision_columns,
    local_numbers,
)
from diffjax.runs.rows import lists
from diffjax.runs.run import Run
from diffjax.runs.weights import (
    N_BINS,
    N_FOLDS,
    Labelled,
    Saved,
    Weights,
    weights_by_name,
)
from diffjax.strategies import strategy_to_dict
from diffjax.strategies.base import (
    NEVER,
    Decision,
    ErrorTable,
    Request,
    Samples,
    State,
    Strategy,
    best_prompts,
    rank,
    run_on,
    weigh,
)
from diffjax.strategies.shortlist import restrict

REMEDY = (
    "Evaluate again with --strategy exhaustive and --save-errors; such a run can be "
    "decided again by any strategy."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Rescored:
    """A run's images, decided again.

    Attributes:
        run: that was decided again.
        settings: how: "loss", "weights", "strategy" (as a dict, or None), and "folds"
            and "bins" where weights were learned.
        rows: as ``rows.schema`` has them, without errors; seconds are null, since
            nobody measured them.
        weights: that were used.
    """

    run: Run
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    weights: Weights

    @property
    def good(self) -> list[dict[str, Any]]:
        """The rows of images that did not fail."""
        return [row for row in self.rows if row["error"] is None]


def rescore(
    run: Run,
    *,
    loss: str | None = None,
    space: str | None = None,
    weights: str | None = None,
    strategy: Strategy | None = None,
    n_folds: int = N_FOLDS,
    n_bins: int = N_BINS,
) -> Rescored:
    """Decide the images of a run again.

    Without a strategy all saved errors count, and prompts that saw more samples rank
    above those that saw fewer, as they do in a run. With one, the image's S samples,
    sorted by timestep and noise, are its schedule of S timesteps: on 500 saved samples
    ``exhaustive:n_samples=50`` takes every tenth.

    Args:
        run: with saved errors.
        loss: the run's own, or one that was evaluated along; None for the run's own.
        space: in which l2 and l1 measure, see ``schedules``; None for the run's own.
        weights: over timesteps, by name; see ``runs.weights``. None for the run's own:
            uniform, but for learned samples, "samples".
        strategy: the strategy to simulate.
        n_folds: parts of the images for learned weights.
        n_bins: bins of timesteps for learned weights.

    Raises:
        DiffjaxError: if the run has no such errors, or not all that a strategy needs.
    """
    check_results(run)
    experiment = run.header["experiment"]
    loss = experiment["loss"] if loss is None else loss
    space = experiment.get("space", "noise") if space is None else space
    rows = _plain_rows(run)
    good = [row for row in rows if row["error"] is None]
    saved = list(saved_errors(run, loss, space))
    classidx, to_local = np.asarray(run.prompts.classidx), local_numbers(run)
    strategy = strategy and strategy.of(len(classidx))
    labelled = [
        Labelled(
            saved=image,
            rows=best_prompts(rank_saved(ErrorTable(image.errors)), classidx),
            label=int(to_local[row["label"]]),
        )
        for row, image in zip(good, saved, strict=True)
    ]
    own = own_weights(run.header)
    weights = weights or ("uniform" if own is None else "samples")
    chosen = weights_by_name(
        "uniform" if weights == "samples" else weights,
        labelled,
        int(run.header["model"]["n_timesteps"]),
        n_folds=n_folds,
        n_bins=n_bins,
    )
    if weights == "samples":
        chosen = replace(chosen, by_sample=own)
    for i, (row, image) in enumerate(zip(good, saved, strict=True)):
        if strategy is None:
            table = ErrorTable(
                image.errors, chosen.of(i, image.timesteps, image.noises)
            )
            decision = rank_saved(table)
        else:
            among = None if row["candidates"] is None else to_local[row["candidates"]]
            state = _replay(run, row["id"], image, strategy, chosen, i, among)
            table, decision = state.table, strategy.decide(state)
        row |= decision_columns(table, decision, classidx, run.classes)
        if row["prediction"] == row["label"]:
            row["thumbnail"] = None  # there only for mistakes
    settings: dict[str, Any] = {
        "loss": loss,
        **({} if space == "noise" else {"space": space}),
        "weights": weights,
        "strategy": None if strategy is None else strategy_to_dict(strategy),
    }
    if weights == "learned":
        settings |= {"folds": n_folds, "bins": n_bins}
    bad = [row for row in rows if row["error"] is not None]
    return Rescored(run=run, settings=settings, rows=good + bad, weights=chosen)


def own_weights(header: Mapping[str, Any]) -> dict[tuple[int, int], float] | None:
    """The weights of a run's learned samples, by timestep and noise; None without."""
    samples = header["experiment"].get("samples")
    if not samples:
        return None
    pairs = zip(samples["timesteps"], samples["noises"], strict=True)
    return dict(zip(pairs, samples["weights"], strict=True))


def saved_errors(run: Run, loss: str, space: str | None = None) -> Iterator[Saved]:
    """The saved errors of each image that did not fail, by index.

    Args:
        run: with saved errors.
        loss: the run's own, or one that was evaluated along.
        space: in which they are to be; None for the run's own.

    Raises:
        DiffjaxError: if the run has none of that loss, or they cannot be had in that
            space.
    """
    own = run.header["experiment"]["loss"]
    if loss != own and loss not in run.losses:
        raise unknown(f"loss in {run.path}", loss, (own, *run.losses))
    if not run.has_errors:
        raise DiffjaxError(
            f"{run.path} has no saved errors, so it cannot be decided again. Evaluate "
            "with --save-errors."
        )
    factors = _factors(run, loss, space)
    rows = run.good
    column = rows["errors" if loss == own else f"errors_{loss}"]
    for timesteps, noises, errors in zip(
        lists(rows["timesteps"]), lists(rows["noises"]), lists(column), strict=True
    ):
        table = errors.reshape(len(run.prompts.prompts), len(timesteps))
        if factors is not None:
            if not np.isfinite(factors[timesteps]).all():
                raise DiffjaxError(
                    f"{run.path} has errors of a timestep at which nothing is left of "
                    f"the image; they are infinite in the space of {space}."
                )
            table = (table * factors[timesteps]).astype(np.float32)
        yield Saved(timesteps=timesteps, noises=noises, errors=table)


def _factors(run: Run, loss: str, space: str | None) -> Float[np.ndarray, "T"] | None:
    """By which errors of each timestep are larger in a space than in the run's own."""
    own = run.header["experiment"].get("space", "noise")
    if space in (None, own):
        return None
    if space not in SPACES:
        raise unknown("space", space, SPACES)
    if loss not in DEGREES:
        raise DiffjaxError(
            f"The loss {loss} is of the noise and known in no other space; "
            f"{' and '.join(DEGREES)} are."
        )
    known = run.header.get("spaces")
    if known is None:
        raise DiffjaxError(
            f"{run.path} does not say how much larger errors are in other spaces than "
            "noise. The command that began it adds that, from the model, and evaluates "
            "nothing twice; `diffjax import` does not."
        )
    n, factors = int(run.header["model"]["n_timesteps"]), np.ones(1)
    try:
        for name, power in ((space, 1), (own, -1)):
            if name != "noise":
                read = np.array(known[name].split(), np.float64)
                factors = factors * read.reshape(n) ** power
    except (TypeError, ValueError, LookupError, AttributeError):
        raise DiffjaxError(
            f"{run.path / HEADER} is damaged: spaces must hold {n} numbers each. Take "
            "it from a copy, or repeat the command with another folder."
        ) from None
    return np.broadcast_to(factors, n) ** DEGREES[loss]


def rank_saved(table: ErrorTable) -> Decision:
    """What a table alone allows: who saw fewer samples was dropped before."""
    n = table.n_samples()
    samples = np.arange(table.errors.shape[1])
    return rank(
        State(
            samples=Samples(timesteps=samples, noises=samples),
            ends=(len(samples),),
            table=table,
            dropped=np.where(n == n.max(), NEVER, n),
            n_rounds=1,
        )
    )


def write_rescored(rescored: Rescored, path: Path) -> Run:
    """Write a run of its own, which reports can compare with the first.

    Its header is that of the first, with the settings that changed, and
    "derived_from". The errors stay with the first.

    Raises:
        DiffjaxError: if the folder exists.
    """
    if path.exists():
        raise DiffjaxError(f"{path} exists. Choose a folder that does not.")
    run, settings = rescored.run, rescored.settings
    experiment = run.header["experiment"] | settings | {"also": []}
    if "space" not in settings:
        experiment.pop("space", None)
    if "calibrated" in experiment and loss_name(experiment) != loss_name(
        run.header["experiment"]
    ):
        experiment["calibrated"] = False  # the temperature is still the first loss's
    experiment["derived_from"] = str(run.path)
    if settings["strategy"] is None:
        experiment["strategy"] = run.header["experiment"].get("strategy")
    header = run.header | {"experiment": experiment}
    with open_run(path, header, run.prompts, save_errors=False) as writer:
        for row in rescored.rows:
            writer.add(row)
    written = read_run(path)
    if len(written.rows) >= run.header["data"]["n"]:  # else the run is incomplete
        write_summary(path, summary(written))
    return written


def agreement(rescored: Rescored) -> float | None:
    """How many of the images that did not fail keep their prediction; None for none."""
    before = {row["index"]: row["prediction"] for row in _plain_rows(rescored.run)}
    same = [row["prediction"] == before[row["index"]] for row in rescored.good]
    return float(np.mean(same)) if same else None


def changes(rescored: Rescored) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run was and what it is now: "acc1", "interval", "images" and cost."""
    columns = ["label", "prediction", "evaluations", "error"]
    before = rescored.run.rows.select(columns).to_pylist()
    return (
        _accuracy([row for row in before if row["error"] is None]),
        _accuracy(rescored.good),
    )


def _accuracy(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if not rows:
        return {"acc1": None, "interval": None, "images": 0}
    n = len(rows)
    right = sum(row["prediction"] == row["label"] for row in rows)
    return {
        "acc1": right / n,
        "interval": wilson(right, n),
        "images": n,
        "evaluations_per_image": sum(row["evaluations"] for row in rows) / n,
    }


def _plain_rows(run: Run) -> list[dict[str, Any]]:
    """The columns that no decision changes, and the prediction."""
    kept = ["index", "id", "label", "prediction", "candidates", "error", "thumbnail"]
    rows: list[dict[str, Any]] = run.rows.select(kept).to_pylist()
    return rows


def _replay(
    run: Run,
    name: str,
    image: Saved,
    strategy: Strategy,
    weights: Weights,
    i: int,
    among: Int[np.ndarray, " k"] | None,
) -> State:
    """Run a strategy on one image's saved errors, among all classes or some."""
    order = np.lexsort((image.noises, image.timesteps))
    n_prompts, n_samples = image.errors.shape
    try:
        taken = strategy.start(n_prompts, n_samples).samples
    except DiffjaxError as error:
        raise DiffjaxError(
            f"{run.path}: the strategy does not fit the {n_samples} samples saved of "
            f"image {name}, which stand for its timesteps. Ask for fewer. ({error})"
        ) from error
    if len(np.unique(taken.timesteps)) < len(taken):
        raise DiffjaxError(
            "Saved samples cannot be used twice: leave out n_trials. The saved noises "
            "of a timestep count as samples of their own."
        )
    columns = order[taken.timesteps]
    timesteps = image.timesteps[columns]
    errors = image.errors[:, columns]

    def evaluate(state: State, request: Request) -> Float[np.ndarray, "k s"]:
        cells: np.ndarray = errors[np.ix_(request.classes, request.samples)]
        absent = np.argwhere(np.isnan(cells))
        if len(absent):
            prompt, sample = absent[0]
            raise DiffjaxError(
                f"{run.path}: {strategy_to_dict(strategy)['name']} asks for the prompt "
                f"{run.prompts.prompts[request.classes[prompt]]!r} at timestep "
                f"{timesteps[request.samples[sample]]} of image {name}, which the run "
                f"did not evaluate. {REMEDY}"
            )
        return cells

    classidx = np.asarray(run.prompts.classidx)
    state = strategy.start(n_prompts, n_samples, classidx)
    state = weigh(state, weights.of(i, timesteps, image.noises[columns]))
    if among is not None:
        state = restrict(state, among.tolist())
    return run_on(strategy, state, evaluate)
