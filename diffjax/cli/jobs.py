"""What ``diffjax evaluate`` does: a run for each data set, model and strategy.

A model is loaded once for all of its runs. Of several runs, one that fails does not
keep the others from being done.
"""

import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffjax.cli.dry_run import outlook, outlook_table
from diffjax.cli.group import (
    Failure,
    interrupted,
    keep,
    loading,
    meant,
    print_json,
)
from diffjax.errors import DiffjaxError

if TYPE_CHECKING:
    from rich.console import Console

    from diffjax.classify.classifier import DiffusionClassifier
    from diffjax.classify.progress import Progress
    from diffjax.evaluation.request import Request
    from diffjax.evaluation.tracking import Tracker
    from diffjax.runs.sharing import Share

LOG_EVERY = 10  # images


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to be done.

    Attributes:
        request: images and classes.
        model: a name or folder.
        settings: keyword arguments of ``DiffusionClassifier.from_pretrained``.
        out: the folder of the run.
    """

    request: "Request"
    model: str
    settings: dict[str, Any]
    out: Path


def jobs_of(
    presets: Sequence[str], options: Mapping[str, Any], out: Path | None
) -> list[Job]:
    """List the runs that are asked for: those of a model stand together.

    Args:
        presets: Names of presets.
        options: What says images and classes, and how to classify. "dataset", "model"
            and "strategy" are tuples, of which every combination is a run; a preset
            and one data set are one, in which the data set takes its place.
        out: The folder of the run, or, of several, that of their folders.

    Raises:
        DiffjaxError: If no data is named, a preset is not known, or two runs would go
            to the same folder.
    """
    from diffjax.evaluation.request import RUNS, requested

    datasets, models = options["dataset"], options["model"]
    if presets and len(presets) + len(datasets) > 2 and datasets:
        raise DiffjaxError(
            "--dataset takes the place of a preset's data: give it with one PRESET, or "
            "several of it without."
        )
    if not presets and not datasets:
        raise DiffjaxError(
            "Name a preset, as in `diffjax evaluate cifar10`, or give --dataset."
        )
    named = [(preset, *(datasets or (None,))) for preset in presets]
    named = named or [(None, dataset) for dataset in datasets]
    strategies = options["strategy"] or (None,)
    several = len(named) * len(models) * len(strategies) > 1
    jobs = []
    for model in models:
        for preset, dataset in named:
            for strategy in strategies:
                settings = {**options, "dataset": dataset, "strategy": strategy}
                del settings["model"]
                request = requested(preset, settings)
                place = request.folder(model)
                if strategy is not None and len(strategies) > 1:
                    place = place.with_name(f"{place.name}-{_flat(strategy)}")
                if out is not None:
                    place = out / place.relative_to(RUNS) if several else out
                jobs.append(
                    Job(request=request, model=model, settings=settings, out=place)
                )
    places = [job.out for job in jobs]
    if twice := [place for place in places if places.count(place) > 1]:
        raise DiffjaxError(
            f"Two of the runs would go to {twice[0]}. Ask for one of them at a time, "
            "each with its own --out."
        )
    return jobs


def _flat(strategy: str) -> str:
    """A strategy in the name of a folder."""
    return strategy.replace(":", "-").replace("/", "-")


@dataclass(kw_only=True)
class Session:
    """What the runs of a command share.

    Attributes:
        console: for progress.
        stdout: for tables.
        quiet: whether to show no progress.
        as_json: whether there are no tables.
        allow_errors: whether images may fail.
        save_errors: whether runs keep the error of every class and sample.
        latent_cache: a folder of latents, or None.
        data_dir: the folder of data sets, or None.
        share: the part of this process.
        wandb: a project, or None.
        tensorboard: a folder, or None; of several runs each has one in it.
        several: whether there are several.
    """

    console: "Console"
    stdout: "Console"
    quiet: bool
    as_json: bool
    allow_errors: bool
    save_errors: bool
    latent_cache: Path | None
    data_dir: str | None
    share: "Share"
    wandb: str | None
    tensorboard: Path | None
    several: bool
    _loaded: dict[str, Any] = field(default_factory=dict)  # the latest model or error

    def run(self, job: Job) -> dict[str, Any]:
        """Do a run, or what is missing of it, and print what it found.

        Raises:
            DiffjaxError, Failure: If it cannot be done, or not all of it.
        """
        from diffjax.classify.progress import Progress
        from diffjax.cli.tables import summary_table
        from diffjax.evaluation.bar import Bar
        from diffjax.evaluation.runner import evaluate
        from diffjax.runs.folder import read_run
        from diffjax.runs.outcomes import failures

        task = self._task(job)
        trackers = list(self._trackers(job))
        classifier = self._classifier(job)
        job.request.check(task, classifier, job.model)
        out, n = job.out, len(task.indices)
        with Bar(
            self.console, f"{job.request.name} {job.model}", quiet=self.quiet
        ) as bar:
            logged = -1

            def watch(now: Progress) -> None:
                nonlocal logged
                bar.show(now)
                due = now.done % LOG_EVERY == 0 or now.done == now.total
                if due and now.done > logged:
                    logged = now.done
                    for tracker in trackers:
                        tracker.log(now.done, _values(now))

            try:
                result = evaluate(
                    task,
                    classifier,
                    out,
                    asked=job.request.experiment.as_dict(),
                    save_errors=self.save_errors,
                    cache=self.latent_cache,
                    share=self.share,
                    progress=Progress(watch=watch),
                    opened=partial(keep, n=n),
                )
            except DiffjaxError as error:
                raise DiffjaxError(f"{error}{job.request.hint(out)}") from error
            finally:
                for tracker in trackers:
                    tracker.close()
        if not self.as_json:
            self.stdout.print(summary_table(result))
        click.echo(f"Run: {out}", err=True)
        if classifier.work.tiles and not self.quiet:
            click.echo(f"{classifier.work}", err=True)
        shortfall = read_run(out, errors=False).shortfall
        if self.share.count == 1 and shortfall:
            raise Unfinished(shortfall, result)
        if missing := n - result["images"] - result["failed_images"]:
            click.echo(f"{missing:,} images are left to other processes", err=True)
        if result["failed_images"] and not self.allow_errors:
            first, reason = failures(read_run(out, errors=False))[0]
            raise Unfinished(
                f"{result['failed_images']:,} of {n:,} images failed; the "
                f"first, {first}: {reason}\nThe same command tries them again; "
                "--allow-errors accepts them.",
                result,
            )
        return result

    def outlook(self, job: Job) -> dict[str, Any]:
        """Print what a run would be and take; raises as ``run`` does."""
        task, classifier = self._task(job), self._classifier(job)
        job.request.check(task, classifier, job.model)
        with loading(self.console, self.quiet, "timing a few tiles"):
            asked = job.request.experiment.as_dict() | {"save_errors": self.save_errors}
            hint = job.request.hint(job.out)
            found = outlook(task, classifier, job.out, asked, hint)
        if not self.as_json:
            self.stdout.print(outlook_table(found))
        return found.as_dict()

    def _task(self, job: Job) -> Any:
        offline = bool(job.settings["local_files_only"])
        return job.request.experiment.task(self.data_dir, offline=offline, run=job.out)

    def _classifier(self, job: Job) -> "DiffusionClassifier":
        """The model, loaded or as it was for the run before, with the job's settings.

        What made it fail to load is not tried again.
        """
        from diffjax.classify.classifier import PARTS, DiffusionClassifier
        from diffjax.classify.settings import settings_from

        if job.model not in self._loaded:
            self._loaded.clear()
            try:
                with loading(self.console, self.quiet, f"loading {job.model}"):
                    classifier = DiffusionClassifier.from_pretrained(
                        job.model, **job.settings
                    )
            except DiffjaxError as error:
                self._loaded[job.model] = error
                raise
            self._loaded[job.model] = classifier.model
            return classifier
        known = self._loaded[job.model]
        if isinstance(known, DiffjaxError):
            raise known
        settings = {
            name: value
            for name, value in job.settings.items()
            if value is not None and name not in (*PARTS, "dtype")
        }
        return DiffusionClassifier(known, settings_from(settings, job.model))

    def _trackers(self, job: Job) -> "Iterator[Tracker]":
        from diffjax.evaluation.tracking import tensorboard_tracker, wandb_tracker

        if self.wandb is not None:
            config = job.request.experiment.as_dict() | {"model": job.model}
            yield wandb_tracker(self.wandb, config)
        if self.tensorboard is not None:
            board = self.tensorboard
            yield tensorboard_tracker(board / job.out.name if self.several else board)


class Unfinished(Failure):
    """A run of which something is missing.

    Attributes:
        result: what it found all the same.
    """

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        """As click has it."""
        super().__init__(message)
        self.result = result


class Unforeseen(Failure):
    """Something of which there has been a traceback."""

    exit_code = 1


def run_one(session: Session, job: Job, *, dry_run: bool) -> None:
    """Do the only run."""
    try:
        result = session.outlook(job) if dry_run else session.run(job)
    except Unfinished as stop:
        if session.as_json:
            print_json(stop.result)
        raise
    if session.as_json:
        print_json(result)


def run_all(session: Session, jobs: Sequence[Job], *, dry_run: bool) -> None:
    """Do several runs; at the end, say which failed, and how to compare the others.

    Raises:
        Failure: If one failed; its exit code is 1 if that was not foreseen.
    """
    results: list[dict[str, Any]] = []
    failed: dict[Path, str] = {}
    failure: type[Failure] = Failure
    for k, job in enumerate(jobs):
        if not session.quiet:
            click.echo(f"[{k + 1}/{len(jobs)}] {job.out}", err=True)
        named = {"run": str(job.out)}
        try:
            found = session.outlook(job) if dry_run else session.run(job)
            results.append(named | found)
            continue
        except BrokenPipeError:
            raise
        except Exception as error:
            if interrupted():  # which arrives as another error
                raise
            line = meant(error)
            if line is None:
                traceback.print_exc()
                line, failure = f"{type(error).__name__}: {error}", Unforeseen
            failed[job.out] = line
            had = error.result if isinstance(error, Unfinished) else {}
            results.append(named | had | {"error": line})
            click.echo(f"error: {job.out}: {line}", err=True)
    if session.as_json:
        print_json(results)
    done = [str(job.out) for job in jobs if job.out not in failed]
    if done and not dry_run:
        click.echo(f"Compare: diffjax report {shlex.join(done)}", err=True)
    if failed:
        lines = "\n".join(f"  {path}: {line}" for path, line in failed.items())
        raise failure(
            f"{len(failed):,} of {len(jobs):,} runs failed; the same command tries "
            f"them again:\n{lines}"
        )


def _values(now: "Progress") -> dict[str, float]:
    """What is followed; of few images the accuracy once all are done, not before."""
    from diffjax.evaluation.bar import ENOUGH

    accuracy = {}
    if now.judged >= ENOUGH or (now.judged and now.done == now.total):
        accuracy["accuracy"] = (now.correct or 0) / now.judged
    return accuracy | {
        "failed": float(now.failed),
        "evaluations": float(now.evaluations),
    }
