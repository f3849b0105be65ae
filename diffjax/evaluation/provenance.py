"""Where results come from: a run's header, fingerprints, versions, the machine."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import __version__
from diffjax.choices import SPACES
from diffjax.classify.candidates import Candidates
from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.samples import file_digest
from diffjax.classify.seen import told as told_by
from diffjax.data.prompts import Prompts
from diffjax.evaluation.task import Task
from diffjax.models.network import digest
from diffjax.runs.header import FORMAT
from diffjax.scoring.cost import evaluation_flops
from diffjax.strategies import strategy_to_dict

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "pillow")
# Settings that round otherwise, or compute by other means; ``tracing`` has the rest.
VARIABLES = (
    "DIFFJAX_ATTENTION",
    "JAX_DISABLE_JIT",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_OPTIMIZATION_LEVEL",
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "XLA_FLAGS",
)


def make_header(
    task: Task,
    classifier: DiffusionClassifier,
    candidates: Candidates,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """The header of a run, as ``runs.folder`` describes it.

    Args:
        task: images and classes.
        classifier: the model and how to classify.
        candidates: of the task, ready for the model.
        asked: what else was asked for and decides.
    """
    prefilter = task.prefilter and {"prefilter": task.prefilter.describe()}
    strategy = classifier.settings.strategy.of(len(candidates.prompts.prompts))
    decides = settings_of(classifier) | {"strategy": strategy_to_dict(strategy)}
    return {
        "format": FORMAT,
        "experiment": {**asked, **decides, **(prefilter or {})},
        "data": task.describe(),
        "class_names": list(task.class_names),
        "classes": list(task.classes),
        "truncated": list(candidates.truncated),
        **({} if candidates.limits is None else {"limits": candidates.limits}),
        **where_from(classifier, _told(classifier, task.prompts, candidates)),
        **(_spaces(classifier) if asked.get("save_errors") else {}),
        **_costs(task, classifier, candidates),
    }


def _costs(
    task: Task, classifier: DiffusionClassifier, candidates: Candidates
) -> dict[str, Any]:
    """FLOPs of an evaluation, and of the prefilter for an image, where few classes are
    chosen of many: what cost so little is to be compared.
    """
    if task.prefilter is None and classifier.settings.shortlist is None:
        return {}
    edge = classifier.resolution
    evaluation = evaluation_flops(
        classifier.grid,
        candidates.conditions,
        classifier.latent_shape,
        told_by(classifier.settings, edge, edge),
    )
    prefilter = 0.0 if task.prefilter is None else task.prefilter.flops()
    return {"flops": {"evaluation": evaluation, "prefilter": prefilter}}


def _spaces(classifier: DiffusionClassifier) -> dict[str, Any]:
    """By which saved errors of each timestep are larger in other spaces, as a line."""
    schedule, spaces = classifier.model.schedule, {}
    for space in SPACES[1:]:
        factors = np.asarray(schedule.in_space(space).factor).tolist()
        spaces[space] = " ".join(f"{factor:.9g}" for factor in factors)
    return {"spaces": spaces}


def _told(
    classifier: DiffusionClassifier, prompts: Prompts, candidates: Candidates
) -> list[Any]:
    """What the model is told of the candidates: tokens of the prompts, or class ids."""
    if classifier.model.conditioner is not None:
        tokens = classifier.model.conditioner.tokenize(prompts.prompts)
        return [tokens.ids.tolist(), prompts.classidx]
    ids = np.asarray(candidates.conditions).tolist()
    return [ids, candidates.prompts.classidx]


def settings_of(classifier: DiffusionClassifier) -> dict[str, Any]:
    """The settings that decide, as JSON values."""
    settings = classifier.settings.as_dict() | classifier.calibration
    for name in ("cells", "shard_weights", "devices"):
        del settings[name]  # they change the speed alone
    if settings["noise"] not in ("image", "shared"):
        settings["noise"] = f"sha256 {file_digest(Path(settings['noise']))}"
    return settings


def where_from(classifier: DiffusionClassifier, told: object) -> dict[str, Any]:
    """The parts of a header about model, machine and time.

    Args:
        classifier: the model.
        told: tokens of all prompts, or class ids; other files of the model decide them.
    """
    model = classifier.model
    described = model.describe()
    return {
        "model": {
            **model.origin,
            "name": model.name,
            "fingerprint": digest(map(repr, described.items())),
            **described,
            "ids": digest([repr(told)]),
        },
        "environment": environment(classifier.device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and variables, beside the devices that evaluate."""
    return {
        "diffjax": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "device": device,
        "processor": processor(),
        "cores": os.cpu_count(),
        "git": git_revision(),
        **{name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
    }


def processor() -> str:
    """The name of the host's processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def git_revision() -> str | None:
    """The commit of this package's checkout, "-dirty" if changed; None if installed."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
