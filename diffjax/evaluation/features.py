"""Features of a data set's images, extracted once and kept in a folder.

    FOLDER/ab12…/about.json                of what they are features
    FOLDER/ab12…/LAYER-T-00000.npy         maps of the first images at timestep T,
                                           float32 [n, h, w, d]

The name of the folder is a digest of all that decides them but layer, timestep and how
many images there are: model, data, noise. A file is written whole or not at all, so
what was interrupted goes on, and further layers, timesteps and images are added: images
come in an order in which a smaller limit takes the first of a larger one.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from diffjax.classify.classifier import DiffusionClassifier
from diffjax.classify.seen import told
from diffjax.data.sources import digest
from diffjax.data.subsets import spread
from diffjax.errors import DiffjaxError, overflowed
from diffjax.evaluation.latents import Latents
from diffjax.evaluation.provenance import settings_of
from diffjax.evaluation.runner import encoded
from diffjax.evaluation.task import Task
from diffjax.files import atomic, json_text, write_json
from diffjax.models.conditions import take
from diffjax.models.taps import check_layers, middle_layer
from diffjax.scoring.features import Images, features
from diffjax.scoring.placement import replicate, split_blocks
from diffjax.tracing import eval_shape, pinned

PART = 256  # images a file
SEES = ("resolution", "transform", "interpolation", "sizes", "noise", "seed")

Cell = tuple[str, int]  # layer and timestep


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which features.

    Attributes:
        layers: as ``models.taps`` names them.
        timesteps: in [0, T).
        places: along an edge of a map, at most; larger ones are averaged down.
    """

    layers: tuple[str, ...]
    timesteps: tuple[int, ...]
    places: int = 8

    @property
    def cells(self) -> list[Cell]:
        """Every layer at every timestep."""
        return [(layer, t) for layer in self.layers for t in self.timesteps]


@dataclass(frozen=True, kw_only=True)
class KeptMaps:
    """The maps of a set of images in files, which are mapped and not read.

    Attributes:
        parts: an array of ``PART`` images each, the last one of fewer.
        places: where each image is among them.
        shape: h, w and d of a map.
    """

    parts: Sequence[np.ndarray]
    places: Int[np.ndarray, " n"]
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.places)

    def take(self, images: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b h w d"]:
        """Those of some images."""
        out = np.empty((len(images), *self.shape), np.float32)
        for row, place in enumerate(self.places[images]):
            out[row] = self.parts[place // PART][place % PART]
        return out


def wanted(
    classifier: DiffusionClassifier,
    layers: Sequence[str] = (),
    timesteps: Sequence[int] = (),
    places: int = 8,
) -> Wanted:
    """Which features, by default those of the paper's kind.

    Args:
        classifier: of the model.
        layers: names; by default the one in the middle.
        timesteps: by default a tenth of the schedule, 100 of 1,000.
        places: along an edge of a map, at most.

    Raises:
        DiffjaxError: if the model has no such layer or timestep.
    """
    model = classifier.model
    denoiser, T = model.denoiser.module(), model.schedule.n_timesteps
    chosen = tuple(layers) or (middle_layer(denoiser, model.name),)
    check_layers(denoiser, chosen, model.name)
    times = tuple(timesteps) or (T // 10,)
    if wrong := [t for t in times if not 0 <= t < T]:
        raise DiffjaxError(
            f"{model.name} has timesteps 0 to {T - 1}, and not {wrong[0]}."
        )
    if len(set(times)) < len(times):
        raise DiffjaxError(
            f"The timesteps {', '.join(map(str, times))} name one twice."
        )
    if not model.unguided:
        raise DiffjaxError(
            f"{model.name} has no condition that stands for no class, and features "
            "that are told a class know it."
        )
    return Wanted(layers=chosen, timesteps=times, places=places)


@pinned()
def extract(
    task: Task,
    classifier: DiffusionClassifier,
    asked: Wanted,
    folder: Path,
    *,
    cache: Path | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Cell, KeptMaps]:
    """Features of a task's images, in the order of its indices.

    Args:
        task: which images.
        classifier: the model, and how it sees images.
        asked: which features.
        folder: that keeps them.
        cache: a folder of latents, or None.
        watch: is told how many of how many images are done.

    Raises:
        DiffjaxError: if an image cannot be read, numbers overflow, or the folder cannot
            be written.
    """
    about = describe(task, classifier, asked)
    place = folder / digest([json_text(about, indent=None)])
    extractor = _Extractor.of(classifier, asked)
    latents = Latents(classifier, cache)
    order = _order(task)
    n = len(order)
    _check_room(folder, extractor, asked, n)
    found: dict[Cell, list[np.ndarray]] = {cell: [] for cell in asked.cells}
    for number, start in enumerate(range(0, n, PART)):
        watch(start, n)
        indices = [int(i) for i in order[start : start + PART]]
        paths = {cell: place / _name(*cell, number) for cell in asked.cells}
        shapes = {cell: (len(indices), *extractor.shapes[cell[0]]) for cell in paths}
        missing = [c for c, path in paths.items() if _mapped(path, shapes[c]) is None]
        if missing:
            _make(place, about)
            images = _seen(task, classifier, latents, indices)
            for cell, maps in extractor.maps(images, missing):
                _write(paths[cell], maps)
        for cell, path in paths.items():
            part = _mapped(path, shapes[cell])
            if part is None:
                raise DiffjaxError(f"{path} has vanished, or was changed meanwhile.")
            found[cell].append(part)
    watch(n, n)
    places = np.argsort(order)  # of the ascending indices
    return {
        cell: KeptMaps(parts=parts, places=places, shape=extractor.shapes[cell[0]])
        for cell, parts in found.items()
    }


def _order(task: Task) -> Int[np.ndarray, " n"]:
    """The task's images, those of smaller limits first."""
    if task.pool is None:
        return task.indices
    every = task.pool[spread(len(task.pool))]
    order: np.ndarray = every[np.isin(every, task.indices)]
    return order


def _check_room(
    folder: Path, extractor: "_Extractor", asked: Wanted, images: int
) -> None:
    """Warn where the maps would take more than half of what is free on the disk."""
    each = sum(int(np.prod(extractor.shapes[layer])) for layer, _ in asked.cells)
    needs = 4 * each * images
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if 2 * needs > (free := shutil.disk_usage(place).free):
        warnings.warn(
            f"Features of {images:,} images take {needs / 2**30:,.1f} GiB in {folder}, "
            f"of {free / 2**30:,.1f} that are free. Fewer places, layers or timesteps "
            "take less.",
            stacklevel=3,
        )


def describe(
    task: Task, classifier: DiffusionClassifier, asked: Wanted
) -> dict[str, Any]:
    """All that decides features but layer, timestep and limit; plain JSON values."""
    model, settings = classifier.model, settings_of(classifier)
    data = task.describe()
    # all images that there might be, and not how many there are
    order = "ascending" if task.pool is None else "spread"
    data |= {"order": order, **data.pop("pool", {})}
    return {
        "model": {
            "fingerprint": model.fingerprint,
            "dtype": str(model.denoiser.dtype),
        },
        "data": data,
        **{name: settings.get(name) for name in SEES},
        "places": asked.places,
        "condition": "of no class",
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Extractor:
    """A model ready to compute features."""

    classifier: DiffusionClassifier
    condition: Any  # of no class, on the devices
    places: int
    shapes: Mapping[str, tuple[int, int, int]]  # h, w and d by layer

    @classmethod
    def of(cls, classifier: DiffusionClassifier, asked: Wanted) -> "_Extractor":
        grid, edge = classifier.grid, classifier.resolution
        condition = take(classifier.model.unconditional(), 0)
        sizes = told(classifier.settings, edge, edge)
        image = Images(
            keys=np.zeros(1, np.uint32),
            z0=np.zeros((1, *classifier.latent_shape), np.float32),
            told={name: np.asarray(each)[None] for name, each in sizes.items()},
        )
        maps = eval_shape(
            lambda *given: features(
                *given, image, np.int32(0), layers=asked.layers, most=asked.places
            ),
            *(grid.denoiser, grid.schedule, grid.noise, condition),
        )
        shapes = zip(asked.layers, (each.shape[1:] for each in maps), strict=True)
        return cls(
            classifier=classifier,
            condition=replicate(condition, grid.mesh),
            places=asked.places,
            shapes=dict(shapes),
        )

    def maps(
        self, images: Images, cells: Sequence[Cell]
    ) -> Iterator[tuple[Cell, np.ndarray]]:
        """The features of some images, one timestep after the other."""
        grid, n = self.classifier.grid, len(images.keys)
        at_once = max(grid.devices, grid.cells // grid.devices * grid.devices)
        for t in dict.fromkeys(t for _, t in cells):
            layers = tuple(layer for layer, other in cells if other == t)
            parts: list[list[np.ndarray]] = []
            for k in range(0, n, at_once):
                # filled up with the last image: another number would be compiled anew
                places = np.minimum(np.arange(k, k + at_once), n - 1)
                batch = features(
                    grid.denoiser,
                    grid.schedule,
                    grid.noise,
                    self.condition,
                    split_blocks(take(images, places), grid.mesh),
                    np.int32(t),
                    layers=layers,
                    most=self.places,
                )
                parts.append([np.asarray(each) for each in batch])
            for layer, each in zip(layers, zip(*parts, strict=True), strict=True):
                maps = np.concatenate(each)[:n]
                if not np.isfinite(maps).all():
                    raise overflowed(f"A feature of {layer} at t = {t} is not finite")
                yield (layer, t), maps


def _seen(
    task: Task,
    classifier: DiffusionClassifier,
    latents: Latents,
    indices: Sequence[int],
) -> Images:
    """Images as their features are computed."""
    rows = []
    for row, known in encoded(task, classifier, latents, indices):
        if isinstance(known, DiffjaxError):
            raise DiffjaxError(
                f"{task.source.name}, {row['id']}: {known} Leave the image out, by "
                "--subset, for one."
            )
        rows.append(known)
    return Images(
        keys=np.array([each.key for each in rows], np.uint32),
        z0=np.stack([each.z0 for each in rows]),
        told=jax.tree.map(lambda *each: np.stack(each), *(dict(r.told) for r in rows)),
    )


def _name(layer: str, t: int, part: int) -> str:
    return f"{layer}-{t}-{part:05d}.npy"


def _make(place: Path, about: Mapping[str, Any]) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "about.json").exists():
            write_json(place / "about.json", about)
    except OSError as error:
        raise DiffjaxError(
            f"The folder {place} for features cannot be made ({error.strerror}). "
            "Choose another one."
        ) from error


def _write(path: Path, maps: np.ndarray) -> None:
    try:
        with atomic(path) as partial, partial.open("wb") as file:
            np.save(file, maps, allow_pickle=False)
    except OSError as error:
        raise DiffjaxError(
            f"{path} cannot be written ({error.strerror}): features of {len(maps)} "
            f"images take {maps.nbytes / 2**20:,.1f} MiB. The same command goes on; "
            "fewer places, layers or timesteps take less."
        ) from error


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array of a file, not read yet; None if there is none of this shape.

    A file may hold further images: those of a larger limit.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.float32:
        return None
    good = found.ndim == len(shape) and found.shape[1:] == shape[1:]
    good = good and len(found) >= shape[0]
    return found[: shape[0]] if good else None
