"""Evaluations against agreement and accuracy, for all strategies, on saved errors.

    diffjax evaluate cifar10 --data-dir data --strategy exhaustive:n_samples=250 \\
        --save-errors --out runs/full
    python scripts/study_strategies.py runs/full --out study --live --data-dir data

Each strategy is simulated on the errors of each RUN, whose samples stand for its
timesteps; with --classes 10 30 100 also among so many of its classes, drawn at random,
whatever the images show. With --live the run's own model estimates the errors of the
run's images from gradients, and races among the shortlists are simulated too; a
gradient counts for three evaluations. So are races after a tree of labels: classes are
grouped by k-means of their conditions, the class nearest each group's middle speaks for
it, and the classes of the best groups race. Without --live no model is needed.

Agreement is with what all samples decide. A decision that differs is "as good" if the
class is not surely worse than the best: its mean error over all samples is larger by
less than two standard errors. OUT gets strategies.md (tables), strategies.csv and
strategies.png. Intervals are Wilson's, 95 %.
"""

import argparse
import csv
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.progress import track
from scipy.cluster.vq import kmeans2

from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.estimates import Estimates
from diffjax.data.prompts import Prompts
from diffjax.errors import DiffjaxError
from diffjax.evaluation.experiment import Experiment
from diffjax.evaluation.task import Task
from diffjax.files import atomic, write_text
from diffjax.models.conditions import floating, take
from diffjax.report.charts import BLUE, COLOURS, GRID, MARKERS, MUTED
from diffjax.runs.folder import read_run
from diffjax.runs.metrics import wilson
from diffjax.runs.outcomes import local_numbers
from diffjax.runs.rescoring import saved_errors
from diffjax.runs.run import Run
from diffjax.scoring.gradients import condition_vectors
from diffjax.strategies import shortlist_to_text, strategy_to_text
from diffjax.strategies.base import (
    Decision,
    ErrorTable,
    Samples,
    State,
    Strategy,
    best_prompts,
    class_decision,
    drop,
    run_on,
)
from diffjax.strategies.exhaustive import Exhaustive
from diffjax.strategies.racing import Racing
from diffjax.strategies.shortlist import (
    DIRECTIONS,
    FEWEST,
    Shortlist,
    enough,
    shorten,
    to_check,
)
from diffjax.strategies.staged import Staged

MANY = 100  # classes, from which on they are long lists
CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)
# the authors' stages for so many classes and more: classes kept, shares of all samples
STAGES = {
    0: ((5, 1), (1 / 10, 1)),  # CIFAR-10: 50 500
    100: ((20, 10, 5, 1), (1 / 25, 1 / 10, 1 / 5, 1)),  # Food-101: 20 50 100 500
    300: ((500, 50, 10, 1), (1 / 20, 1 / 10, 1 / 2, 1)),  # ImageNet: 50 100 500 1000
}
ESTIMATES = (
    {"n_samples": 16},
    {"n_samples": 16, "directions": DIRECTIONS},
)


def strategies(n_classes: int, N: int) -> Iterator[tuple[str, Strategy]]:
    """What is compared on N samples: the family's name, and the strategy."""
    yield "exhaustive", Exhaustive(n_samples=N)
    for part in (2, 5, 10):
        if N >= part:
            yield "exhaustive, fewer samples", Exhaustive(n_samples=N // part)
    keep, shares = STAGES[max(least for least in STAGES if least <= n_classes)]
    stages = tuple(int(share * N) for share in shares)
    while keep[0] >= n_classes:  # a stage that keeps all is none
        keep, stages = keep[1:], stages[1:]
    if 0 < stages[0] and len(set(stages)) == len(stages):
        for order in ("official", "nested"):
            staged = Staged(to_keep=keep, n_samples=stages, order=order)
            yield f"staged, {order}", staged
    for confidence in CONFIDENCES:
        yield "racing", Racing(n_samples=N, confidence=confidence)


def shortlists(n_classes: int, N: int) -> Iterator[tuple[str, Shortlist]]:
    """Shortlists of a few lengths by each estimate: the family's name, and the list."""
    many = n_classes >= MANY
    lengths = (10, 20, 50) if many else (2, 3, 5)
    whole = [{"n_samples": N}, {"n_samples": N, "directions": DIRECTIONS}]
    for settings in (*ESTIMATES, *(whole if many else [])):
        for k in lengths:
            if k < n_classes and settings["n_samples"] <= N:
                shortlist = Shortlist(k=k, **settings)
                name = shortlist_to_text(shortlist).partition(":")[2] or "n_samples=16"
                yield f"shortlist {name}, racing", shortlist
    for risk in (0.1, 0.01, 0.001):
        for directions in (0, DIRECTIONS):
            shortlist = Shortlist(risk=risk, directions=directions)
            if shortlist.useful(n_classes):
                yield f"shortlist auto, {directions} directions, racing", shortlist


@dataclass(frozen=True, kw_only=True, eq=False)
class Tables:
    """A run's images that did not fail.

    Attributes:
        run: name of its folder, and of how many of its classes.
        rows: of the run's prompts, those that these tables have: P of them.
        errors: [n, P, S], samples by timestep.
        timesteps: of the samples.
        classidx: the local class of each of the P rows.
        labels: local class of each image; −1 for no candidate.
        indices: of the images in the data set.
    """

    run: str
    rows: np.ndarray
    errors: np.ndarray
    timesteps: np.ndarray
    classidx: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Result:
    """A strategy on a run.

    Attributes:
        run: name of its folder.
        family: of strategies, for the plot.
        strategy: as text, with the shortlist before it.
        images: that did not fail.
        evaluations: an image, on average.
        most: the evaluations that 95 % of the images need no more than.
        agree: images decided as by all samples.
        as_good: these, and images whose decision is not surely worse.
        right: images decided as labelled.
        sure: mean of what the strategy says of its confidence, if anything.
    """

    run: str
    family: str
    strategy: str
    images: int
    evaluations: float
    most: float
    agree: int
    as_good: int
    right: int
    sure: float | None


def read_tables(run: Run, loss: str | None) -> Tables:
    """The errors of an exhaustive run, complete or not.

    Raises:
        DiffjaxError: if it has no saved errors, or not all of them.
    """
    loss = loss or run.header["experiment"]["loss"]
    saved = list(saved_errors(run, loss))
    if len({image.errors.shape for image in saved}) != 1:
        raise DiffjaxError(
            f"{run.path}: {'no image was' if not saved else 'not all images were'} "
            "evaluated on the same number of samples."
        )
    orders = [np.lexsort((image.noises, image.timesteps)) for image in saved]
    pairs = zip(saved, orders, strict=True)
    errors = np.stack([image.errors[:, order] for image, order in pairs])
    if np.isnan(errors).any():
        raise DiffjaxError(f"{run.path} is not exhaustive: errors are missing.")
    good = run.rows.filter(run.rows["error"].is_null())
    return Tables(
        run=run.path.name,
        rows=np.arange(errors.shape[1]),
        errors=errors,
        timesteps=saved[0].timesteps[orders[0]],
        classidx=np.asarray(run.prompts.classidx),
        labels=local_numbers(run)[good["label"].to_numpy()],
        indices=good["index"].to_numpy(),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Guess:
    """An estimate of a run's images.

    Attributes:
        errors: ê [P, s] of each, samples by timestep.
        n_gradients: that it took, an image.
        n_extra: evaluations that it took besides.
        own: whether its samples are the run's.
    """

    errors: list[np.ndarray]
    n_gradients: int
    n_extra: int
    own: bool


def among(tables: Tables, n: int) -> Tables:
    """The same among n of the classes; fewer ones are among more."""
    n_classes = int(tables.classidx.max()) + 1
    classes = np.sort(np.random.default_rng(0).permutation(n_classes)[:n])
    new = np.full(n_classes + 1, -1)  # the last for no candidate
    new[classes] = np.arange(len(classes))
    rows = np.flatnonzero(np.isin(tables.classidx, classes))
    return replace(
        tables,
        run=f"{tables.run}, {n} classes",
        rows=rows,
        errors=tables.errors[:, rows],
        classidx=new[tables.classidx[rows]],
        labels=new[tables.labels],
    )


def play(
    strategy: Strategy,
    errors: np.ndarray,
    classidx: np.ndarray,
    shorten: Callable[[State], State] = lambda state: state,
) -> Decision:
    """A strategy's decision about the P rows of an image.

    Args:
        strategy: to simulate.
        errors: of all samples, [P, S].
        classidx: the class of each row.
        shorten: what a shortlist does to the state.
    """
    state = shorten(strategy.start(*errors.shape, classidx))
    columns = errors[:, state.samples.timesteps]
    state = run_on(
        strategy,
        state,
        lambda _, request: columns[np.ix_(request.classes, request.samples)],
    )
    return strategy.decide(state)


def shortened(
    state: State, shortlist: Shortlist, guess: Guess, image: int, errors: np.ndarray
) -> State:
    """The state of an image after a shortlist, which is checked on its saved errors."""
    found, k, n_extra = guess.errors[image], shortlist.k, guess.n_extra
    N = errors.shape[1]
    # the same cells as the run's: columns of its errors
    samples = Samples(timesteps=np.arange(N), noises=np.arange(N))
    if k is None and shortlist.risk is not None:
        rows, columns = to_check(state, found, samples)
        checks = errors[np.ix_(rows, columns)]
        k = enough(state, found, samples, rows, columns, checks, shortlist.risk)
        n_extra += checks.size
    same = samples if guess.own else None
    return shorten(state, k or len(errors), found, guess.n_gradients, same, n_extra)


def judge(
    tables: Tables,
    full: Sequence[Decision],
    decisions: Sequence[Decision],
    family: str,
    strategy: str,
) -> Result:
    """Compare decisions about rows with those of all samples."""
    classes = [class_decision(each, tables.classidx) for each in decisions]
    found = np.array([each.winner for each in classes])
    truth = np.array([class_decision(d, tables.classidx).winner for d in full])
    as_good = 0
    for errors, decision, a, b in zip(tables.errors, full, found, truth, strict=True):
        best = best_prompts(decision, tables.classidx)
        paired = ErrorTable(errors[best]).difference(int(b))
        as_good += bool(a == b or paired.mean[a] < 2 * paired.standard_error[a])
    evaluations = [each.n_evaluations for each in decisions]
    said = [each.confidence for each in decisions if each.confidence is not None]
    return Result(
        run=tables.run,
        family=family,
        strategy=strategy,
        images=len(found),
        evaluations=float(np.mean(evaluations)),
        most=float(np.quantile(evaluations, 0.95)),
        agree=int((found == truth).sum()),
        as_good=as_good,
        right=int((found == tables.labels).sum()),
        sure=float(np.mean(said)) if said else None,
    )


def study(run: Run, args: argparse.Namespace) -> Iterator[Result]:
    """All strategies on one run, and among fewer of its classes.

    Raises:
        DiffjaxError: if its errors were not saved, or its model is another by now.
    """
    tables = read_tables(run, args.loss)
    for n in (*args.classes, len(run.classes)):
        yield from compare(
            run, among(tables, n) if n < len(run.classes) else tables, args
        )


def compare(run: Run, tables: Tables, args: argparse.Namespace) -> Iterator[Result]:
    """All strategies; with ``--live`` also after shortlists."""
    N, C = tables.errors.shape[2], int(tables.classidx.max()) + 1
    full: list[Decision] = []
    todo = list(strategies(C, N))
    for family, strategy in track(todo, description=f"{run.path}, simulated"):
        decisions = [play(strategy, each, tables.classidx) for each in tables.errors]
        full = full or decisions  # the first is the exhaustive strategy
        yield judge(tables, full, decisions, family, strategy_to_text(strategy))
    if not args.live:
        return
    racing = Racing(n_samples=N)
    lists = list(shortlists(C, N))
    live = open_model(run, tables, args)
    estimates = estimate(run, tables, [each for _, each in lists], live)
    for family, shortlist in track(lists, description=f"{run.path}, shortlists"):
        guess = estimates[_key(shortlist, N)]
        decisions = [
            play(
                racing,
                errors,
                tables.classidx,
                partial(
                    shortened, shortlist=shortlist, guess=guess, image=i, errors=errors
                ),
            )
            for i, errors in enumerate(tables.errors)
        ]
        text = f"{shortlist_to_text(shortlist)}, {strategy_to_text(racing)}"
        yield judge(tables, full, decisions, family, text)
    if C < MANY:
        return
    for tree in (
        Tree(share=share, n_samples=n) for share in (1 / 4, 1 / 2) for n in (4, 8)
    ):
        find = partial(branch, tree, *branches(live.vectors(), tree.groups(C)))
        decisions = [
            play(racing, errors, tables.classidx, partial(find, errors=errors))
            for errors in tables.errors
        ]
        text = f"{tree}, {strategy_to_text(racing)}"
        yield judge(tables, full, decisions, "label tree, racing", text)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Groups of classes that are alike to the model; one of each speaks for it.

    Attributes:
        share: of the groups, whose classes go on.
        n_samples: on which those who speak are judged.
    """

    share: float
    n_samples: int

    def groups(self, n_classes: int) -> int:
        """As many as make both levels equally wide."""
        return round(n_classes**0.5)

    def __str__(self) -> str:
        return f"tree:share={self.share:g}:n_samples={self.n_samples}"


def branches(vectors: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row, by k-means, and the row nearest the middle of each."""
    centres, groups = kmeans2(vectors, n, 20, minit="++", rng=0)
    filled, groups = np.unique(groups, return_inverse=True)
    off = np.linalg.norm(vectors - centres[filled][groups], axis=1)
    speakers = [
        np.flatnonzero(groups == g)[off[groups == g].argmin()]
        for g in range(len(filled))
    ]
    return groups, np.array(speakers)


def branch(
    tree: Tree,
    groups: np.ndarray,
    speakers: np.ndarray,
    state: State,
    errors: np.ndarray,
) -> State:
    """The state of an image with the classes of the best groups alone."""
    columns = (
        (2 * np.arange(tree.n_samples) + 1) * errors.shape[1] // (2 * tree.n_samples)
    )
    seen = errors[np.ix_(speakers, columns)].mean(axis=1)
    kept = np.argsort(seen)[: round(tree.share * len(speakers))]
    state = replace(state, n_extra=len(speakers) * tree.n_samples)
    return drop(state, np.flatnonzero(~np.isin(groups, kept)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Live:
    """A run's own model, its images, and the candidates of some tables."""

    classifier: DiffusionClassifier
    task: Task
    candidates: Candidates

    def vectors(self) -> np.ndarray:
        """The conditions, a row each."""
        of = condition_vectors(
            self.classifier.grid.denoiser, self.candidates.conditions
        )
        leaves = [np.asarray(leaf) for leaf in floating(of)]
        return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def open_model(run: Run, tables: Tables, args: argparse.Namespace) -> Live:
    """Load what a run was made with.

    Raises:
        DiffjaxError: if its model is another by now.
    """
    header = run.header["experiment"]
    known = {field.name for field in fields(Experiment)}
    asked = {name: value for name, value in header.items() if name in known}
    task = Experiment(**asked | {"template": tuple(asked["template"])}).task(
        args.data_dir
    )
    names = ("seed", "noise", "resolution", "transform", "interpolation", "merge")
    classifier = DiffusionClassifier.from_pretrained(
        args.model or run.header["model"]["model"],
        dtype=run.header["model"]["dtype"],
        loss=args.loss or header["loss"],
        **{name: header[name] for name in names},
    )
    made = run.header["model"]
    if classifier.model.weights != made.get("weights", made["fingerprint"]):
        raise DiffjaxError(f"{run.path} is of a model with other weights.")
    every = task.candidates(classifier)
    prompts = every.prompts
    candidates = replace(
        every,
        prompts=Prompts(
            prompts=tuple(prompts.prompts[row] for row in tables.rows),
            classidx=tuple(tables.classidx.tolist()),
            class_names=tuple(
                prompts.class_names[c]
                for c in dict.fromkeys(prompts.classidx[row] for row in tables.rows)
            ),
        ),
        conditions=take(every.conditions, tables.rows),
    )
    return Live(classifier=classifier, task=task, candidates=candidates)


def estimate(
    run: Run, tables: Tables, shortlists: Sequence[Shortlist], live: Live
) -> dict[Shortlist, Guess]:
    """Estimates of all images of a run by its own model."""
    classifier, task, candidates = live.classifier, live.task, live.candidates
    model, grid, shape = classifier.model, classifier.grid, classifier.latent_shape
    N = tables.errors.shape[2]
    own, _ = Racing(n_samples=N).plan(run.header["model"]["n_timesteps"])
    makers = {
        key: Estimates(key, candidates, model, grid, shape, own)
        for key in dict.fromkeys(_key(each, N) for each in shortlists)
    }
    found: dict[Shortlist, list[np.ndarray]] = {key: [] for key in makers}
    for index in track(tables.indices, description=f"{run.path}, gradients"):
        example = task.source[int(index)]
        z0 = np.asarray(model.latent(classifier.pixels(example.image)))
        number = zlib.crc32(example.id.encode())  # as a run has it
        for key, maker in makers.items():
            found[key].append(maker.of(z0, number))
    return {
        key: Guess(
            errors=each,
            n_gradients=makers[key].n_gradients,
            n_extra=makers[key].n_curved,
            own=key.n_samples == N,
        )
        for key, each in found.items()
    }


def _key(shortlist: Shortlist, N: int) -> Shortlist:
    """What an estimate depends on: it serves all lengths, and any risk."""
    return Shortlist(
        k=FEWEST,
        n_samples=shortlist.n_samples or N,
        directions=shortlist.directions or None,
    )


def markdown(results: Sequence[Result]) -> str:
    """A table a run."""
    lines = []
    for name in dict.fromkeys(result.run for result in results):
        own = [result for result in results if result.run == name]
        full = own[0].evaluations
        staged = [r.evaluations for r in own if r.family == "staged, official"]
        lines += [
            f"## {name}",
            "",
            f"{own[0].images} images.",
            "",
            "| strategy | evaluations an image | 95 % need at most | of exhaustive "
            "| of Algorithm 2 | agrees with exhaustive | as good | accuracy "
            "| says it is sure |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for r in own:
            sure = "" if r.sure is None else f"{100 * r.sure:.1f} %"
            part = f"1/{staged[0] / r.evaluations:.1f}" if staged else ""
            lines.append(
                f"| `{r.strategy}` | {r.evaluations:,.0f} | {r.most:,.0f} "
                f"| 1/{full / r.evaluations:.1f} | {part} "
                f"| {_rate(r.agree, r.images)} | {100 * r.as_good / r.images:.1f} % "
                f"| {_rate(r.right, r.images)} | {sure} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(results: Sequence[Result]) -> Figure:
    """Agreement and accuracy against evaluations; a row a run."""
    names = list(dict.fromkeys(result.run for result in results))
    figure = Figure(figsize=(11, 0.6 + 3.8 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 2, squeeze=False)
    families = list(dict.fromkeys(result.family for result in results))
    for row, name in zip(panels, names, strict=True):
        own = [result for result in results if result.run == name]
        for axes, what in zip(row, ("agree", "right"), strict=True):
            for number, family in enumerate(families):
                mine = [r for r in own if r.family == family]
                if not mine:
                    continue
                p = np.array([getattr(r, what) / r.images for r in mine])
                ends = np.array([wilson(getattr(r, what), r.images) for r in mine])
                axes.errorbar(
                    [r.evaluations for r in mine],
                    100 * p,
                    100 * np.abs(ends.T - p),
                    marker=MARKERS[number % len(MARKERS)],
                    color=(*COLOURS, MUTED)[number % (len(COLOURS) + 1)],
                    linestyle="--" if family.startswith("shortlist") else "-",
                    linewidth=1,
                    elinewidth=0.8,
                    capsize=2,
                    label=family,
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel("evaluations an image")
            axes.grid(color=GRID, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("agrees with exhaustive, %")
        row[0].axhline(99, color=BLUE, linewidth=0.8, linestyle=":")
        row[1].set_ylabel("accuracy, %")
        row[0].set_title(f"{name}: {own[0].images} images", loc="left", fontsize=10)
    figure.legend(
        *_labels(panels), fontsize=8, frameon=False, loc="outside lower center", ncols=4
    )
    return figure


def _labels(panels: np.ndarray) -> tuple[list[object], list[str]]:
    """Each family once, for the legend."""
    found: dict[str, object] = {}
    for axes in panels[:, 0]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def write(results: Sequence[Result], out: Path) -> None:
    """strategies.md, strategies.csv and strategies.png."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "strategies.md", markdown(results))
    with (
        atomic(out / "strategies.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(vars(results[0])))
        writer.writeheader()
        writer.writerows(vars(result) for result in results)
    with atomic(out / "strategies.png") as partial:
        plot(results).savefig(partial, dpi=120, format="png")


def _rate(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{100 * k / n:.1f} % ({100 * low:.1f} … {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loss", help="one that was saved; the run's own by default")
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[], metavar="N", help="also of fewer"
    )
    parser.add_argument("--live", action="store_true", help="with shortlists")
    parser.add_argument(
        "--data-dir", metavar="DIR", help="of the data sets; for --live"
    )
    parser.add_argument("--model", help="where it is now, if elsewhere; for --live")
    args = parser.parse_args()
    try:
        results = [each for run in args.runs for each in study(read_run(run), args)]
        write(results, args.out)
    except DiffjaxError as error:
        sys.exit(f"error: {error}")
    print(markdown(results))


if __name__ == "__main__":
    main()
