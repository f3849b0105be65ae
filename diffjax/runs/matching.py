"""Which runs on disk have measured a number of the paper's, and what they found.

A finished run has, if its header says

    data        the data set and split of the preset, with as many classes, images as
                they are and none left out beforehand
    prompts     the preset's, where a model reads any
    model       the same by a name of ``diffjax models`` or its id on the Hub, whole,
                with the published sizes of its network, at its resolution; a folder of
                one's own is not known to be the same
    decision    the strategy and loss of the command; nothing learned from labels, but
                for a head on features: a ResNet's on the middle layer at t = 100

An audit has, if it is of the data set and split, by the limits of Stable Diffusion 2,
and but for the filter of size by CLIP's ViT-L/14, LAION's second aesthetic head and its
detector as they are published.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from diffjax.checkpoints.catalog import MODELS
from diffjax.data.classes import parse_classes, read_classes
from diffjax.data.presets import PRESETS, classes_file, prompts_file
from diffjax.errors import DiffjaxError
from diffjax.files import read_csv, read_json_object
from diffjax.runs import audit
from diffjax.runs.exhibits import PAIRS, PAPER, SCENES, Measure
from diffjax.runs.folder import read_run
from diffjax.runs.header import HEADER, read_header
from diffjax.runs.studies import read_errors, timestep
from diffjax.runs.winoground import TASK, read_caption_run, summarise
from diffjax.strategies import (
    parse_strategy,
    strategy_from_dict,
    strategy_to_dict,
    strategy_to_text,
)
from diffjax.strategies.base import Strategy

EXAMPLES = {PAIRS: 400}
SAME, NEAR = "same", "near"
# of an experiment: what makes it another, where it is there and not empty
CHANGED = (
    *("corrupt", "prefilter", "shortlist", "samples", "derived_from", "space"),
    *("classnames", "templates", "template"),
)
MODEL_CHANGED = ("elsewhere", "lora", "textual_inversion", "shift", "guidance")
SIZES: dict[str, dict[str, Any]] = {  # of a denoiser, but for what is so by default
    "sd-2-base": {
        "sample_size": 64,
        "cross_attention_dim": 1024,
        "attention_head_dim": [5, 10, 20, 20],
        "use_linear_projection": True,
    },
    "dit-256": {"out_channels": 8},
    "dit-512": {"out_channels": 8, "sample_size": 64},
}
HEAD = {"head": "resnet", "layer": "mid_block", "timestep": 100}
# fingerprints of LAION's head, as the package has it, and of its published detector
JUDGES = {"aesthetic": "66abcced6a632598", "unsafe": "21e77efc686e5707"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A number that a finished run has measured.

    Attributes:
        run: its folder.
        value, low, high: in [0, 1], with a 95 % interval.
        of: how many images or examples.
        how: how it decided, where that is not as the paper did.
    """

    run: str
    value: float
    low: float
    high: float
    of: int
    how: str | None = None


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs and audits below a folder, by their headers.

    Attributes:
        headers: of runs, by folder.
        audits: of audits, by folder.
        unread: what is wrong with those that cannot be read.
    """

    headers: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    audits: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


def find_runs(folder: Path) -> Runs:
    """Look for runs in a folder, at any depth; those of training are none.

    Raises:
        DiffjaxError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DiffjaxError(f"{folder} is no folder, so there are no runs in it.")
    headers, audits, unread = {}, {}, []
    for name in (HEADER, audit.HEADER):
        for path in sorted(folder.rglob(name)):
            try:
                told = read_json_object(path)
                if name == audit.HEADER:
                    audits[path.parent] = told
                elif "recipe" not in told:
                    headers[path.parent] = read_header(path.parent)
            except DiffjaxError as error:
                unread.append(str(error))
    return Runs(headers=headers, audits=audits, unread=tuple(unread))


def found_by(
    measure: Measure, runs: Runs, unread: dict[str, None], *, every: bool = False
) -> list[Found]:
    """What runs have found, those of the most images first.

    Args:
        measure: what they are to have measured.
        runs: that there are.
        unread: is told what is wrong with runs that count and cannot be read.
        every: whether to tell of all of them how they decided, not of others alone.
    """
    found: list[Found] = []
    for path, header in runs.audits.items() if measure.kind == "filter" else ():
        try:
            found += _left(measure, path, header)
        except (AttributeError, KeyError, TypeError, ValueError):
            unread[f"{path / audit.HEADER} is damaged; audit again."] = None
    if measure.kind == "filter":
        return sorted(found, key=lambda each: -each.of)
    for path, header in runs.headers.items():
        how = agreement(measure, header)
        if how is None or (how == NEAR and measure.kind == "timestep"):
            continue  # the latter may lack samples at the timestep
        told = _decided(header) if every or how == NEAR else None
        try:
            found += _read(measure, path, told)
        except DiffjaxError as error:
            unread[str(error)] = None
    return sorted(found, key=lambda each: -each.of)


def agreement(measure: Measure, header: Mapping[str, Any]) -> str | None:
    """Whether a run has measured a number: ``SAME``; by another strategy, loss or
    head, ``NEAR``; or something else, None.
    """
    if not (_same_data(measure, header) and _same_model(measure, header)):
        return None
    experiment = header["experiment"]
    head = experiment.get("trained")
    if (measure.kind == "head") != bool(head):
        return None
    if isinstance(head, Mapping):
        same = all(head.get(key) == value for key, value in HEAD.items())
        return SAME if same else NEAR
    strategy = strategy_of(measure)
    wanted: list[Any] = [None, None]
    if strategy is not None:
        loss = measure.loss or PRESETS[measure.data].loss
        wanted = [strategy_to_dict(strategy), loss]
    found = [experiment.get(key) for key in ("strategy", "loss")]
    return SAME if found == wanted else NEAR


def _same_data(measure: Measure, header: Mapping[str, Any]) -> bool:
    experiment = header["experiment"]
    if any(experiment.get(key) for key in CHANGED):
        return False
    if of_pairs(measure):
        named = header["data"].get("name") == measure.data
        return bool(named and experiment.get("task") == TASK)
    preset = PRESETS[measure.data]
    known = MODELS.get(measure.model)
    reads = measure.model.startswith("clip:") if known is None else known.kind == "text"
    reads = reads and measure.kind == "decision"
    return bool(
        experiment.get("task") is None
        and experiment.get("dataset") == preset.dataset
        and experiment.get("split") in (None, preset.split)
        and header["data"].get("split") in (None, preset.split)
        and len(header["classes"]) == classes_of(measure)
        and (not reads or experiment.get("prompts") == preset.prompts)
    )


def _same_model(measure: Measure, header: Mapping[str, Any]) -> bool:
    model, known = header["model"], MODELS.get(measure.model)
    if known is None:  # a baseline, which is called as it was asked for
        return bool(model.get("name") == measure.model)
    if model.get("model") not in (known.name, known.hub_id):
        return False
    if any(model.get(key) for key in MODEL_CHANGED) or model.get("kind") != known.kind:
        return False
    if header["experiment"].get("resolution") != known.resolution:
        return False
    networks = model.get("configs")  # runs of earlier versions have none
    if networks is None or known.name not in SIZES:
        return True
    if not isinstance(networks, Mapping):
        return False
    denoiser = networks.get("unet", networks.get("transformer"))
    return bool(denoiser == SIZES[known.name])


def _read(measure: Measure, folder: Path, how: str | None) -> Iterator[Found]:
    """What a run has found; nothing if it is not finished, or failed."""
    place = str(folder)
    if of_pairs(measure):
        run = read_caption_run(folder)
        scores = summarise(run.good)
        of = scores["overall"]
        if measure.metric:
            of = scores["by_collapsed_tag"].get(measure.metric, {"n": 0})
        n = of["n"]
        if run.shortfall is not None or not n:
            return
        if len(run.good) != EXAMPLES.get(measure.data, len(run.good)):
            return
        value, (low, high) = of["text"]["score"], of["text"]["interval"]
    elif measure.kind == "timestep":
        saved = read_run(folder)
        if saved.shortfall is not None:
            return
        table, t = timestep(read_errors(saved)), int(measure.metric)
        known = np.asarray(table["timestep"])
        nearest = int(np.abs(known - t).argmin())
        names = ("accuracy", "low", "high")
        value, low, high = (float(table[name][nearest]) for name in names)
        place, n = f"{folder} (t = {known[nearest]})", len(saved.good)
    else:
        found = read_run(folder, errors=False)
        summary = found.summary
        value, n = summary["metrics"].get(measure.metric), summary["images"]
        if found.shortfall is not None or value is None:
            return
        low, high = summary["intervals"][measure.metric]
    yield Found(run=place, value=value, low=low, high=high, of=n, how=how)


def _left(measure: Measure, path: Path, header: Mapping[str, Any]) -> Iterator[Found]:
    """The share that an audit's filters leave; nothing if it is another audit's."""
    preset, names = PRESETS[measure.data], measure.metric.split("+")
    data, result = header.get("data", {}), header.get("result", {})
    limits, usual = result.get("limits", {}), audit.Limits()
    same = (data.get("name"), data.get("split")) == (preset.dataset, preset.split)
    same = same and all(limits.get(name) == getattr(usual, name) for name in names)
    if judged := [name for name in names if name in audit.SCORES]:
        models = header.get("models", {})
        same = same and header.get("names", {}).get("clip") == measure.model
        same = same and all(models.get(name) == JUDGES[name] for name in judged)
    gone = result.get("filters", {}).get(measure.metric)
    if same and isinstance(gone, Mapping):
        low, high = gone["interval"]
        n = result["images"]
        yield Found(
            run=str(path), value=1 - gone["share"], low=1 - high, high=1 - low, of=n
        )


def _decided(header: Mapping[str, Any]) -> str | None:
    """How a run decided, in words; None where a model sees an image once."""
    experiment = header["experiment"]
    if isinstance(head := experiment.get("trained"), Mapping):
        kind, layer, t = (head.get(key) for key in HEAD)
        return f"a {kind} head on {layer} at t = {t}"
    strategy = experiment.get("strategy")
    if not isinstance(strategy, Mapping):
        return None
    try:
        text = strategy_to_text(strategy_from_dict(strategy))
    except DiffjaxError:  # of an earlier version
        text = str(strategy.get("name"))
    return f"{text}, {experiment.get('loss')}"


def of_pairs(measure: Measure) -> bool:
    """Whether captions and images are matched, and no classes chosen."""
    return measure.data in (PAIRS, SCENES)


def strategy_of(measure: Measure) -> Strategy | None:
    """The strategy; None where a model sees an image once."""
    text = measure.strategy
    if text is None:
        return None
    if text == PAPER:
        text = PRESETS[measure.data].paper
    strategy = parse_strategy(text)
    return strategy if of_pairs(measure) else strategy.of(classes_of(measure))


@cache
def classes_of(measure: Measure) -> int:
    """How many classes a number is among: as many as prompts, one a class."""
    preset = PRESETS[measure.data]
    prompts: Sequence[Any] = list(read_csv(prompts_file(preset.prompts), ["classidx"]))
    chosen = measure.classes or preset.classes
    if chosen is None:
        return len(prompts)
    if chosen[0].isdigit():
        return len(parse_classes([("", chosen)], chosen, len(prompts)))
    return len(read_classes(classes_file(chosen), len(prompts)))
