"""Effective robustness against a line through models that others published: timm's.

    x, y     logits of top-1 on ImageNet and on another data set, of m models
    line     y = a + b x + c max(0, x − k)
    band     line + the 2.5 and the 97.5 % quantile of y − line(x): 95 % of the models
    ρ        accuracy − the line's at the same accuracy on ImageNet

The m models are those trained on no images besides ImageNet-1k's, as far as their names
tell. c is zero but for ImageNet-A: its images are those that a ResNet-50 got wrong, so
the line has a knee at k, the accuracy of that ResNet (Taori et al. 2020). For
ImageNet-A and -R, x is among their 200 classes, unless asked otherwise. The interval
of ρ, 95 %, is that of a sum of three independent errors: those of both accuracies, by
their own intervals, and that of the line, as least squares has it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, logit

from diffjax.data.presets import ASSETS
from diffjax.errors import DiffjaxError
from diffjax.files import read_csv
from diffjax.runs.metrics import Z, wilson
from diffjax.runs.robustness import Point
from diffjax.runs.run import Run

TABLE = ASSETS / "timm" / "imagenet.csv"
CHOSE_A = "resnet50.tv_in1k"  # by whose mistakes ImageNet-A was chosen
CLEAN = "imagenet2012"  # the data set of x, as runs have it
GIVEN = "given"  # in place of a point's family: its numbers come from a person


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A data set that timm has accuracies on.

    Attributes:
        name: its preset and its column.
        title: how people call it.
        datasets: what runs may call it.
        images: how many it has.
        classes: of ImageNet, that it has images of.
        among: the column of x: top-1 on ImageNet among these classes.
    """

    name: str
    title: str
    datasets: tuple[str, ...] = ()
    images: int
    classes: int = 1000
    among: str = "imagenet"


SHIFTS = {
    shift.name: shift
    for shift in (
        Shift(
            name="imagenet_v2",
            title="ImageNet-V2",
            datasets=("imagenet_v2/matched-frequency",),
            images=10_000,
        ),
        Shift(
            name="imagenet_a",
            title="ImageNet-A",
            images=7_500,
            classes=200,
            among="among_a",
        ),
        Shift(
            name="imagenet_r",
            title="ImageNet-R",
            images=30_000,
            classes=200,
            among="among_r",
        ),
        Shift(name="imagenet_sketch", title="ImageNet-Sketch", images=50_889),
    )
}
PER_CLASS = 50  # validation images of ImageNet


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """Models on ImageNet and on another data set, and the line through them.

    Attributes:
        shift: the other data set.
        among: whether x is among its classes, where these are not all.
        models: names.
        more: whether a name tells of images besides ImageNet-1k's.
        clean, shifted: accuracies in [0, 1].
        knee: the accuracy k; None where the line has none.
    """

    shift: Shift
    among: bool
    models: tuple[str, ...]
    more: Bool[np.ndarray, " n"]
    clean: Float[np.ndarray, " n"]
    shifted: Float[np.ndarray, " n"]
    knee: float | None = None

    @property
    def count(self) -> int:
        """How many models the line is fitted to: m."""
        return int((~self.more).sum())

    @property
    def classes(self) -> int:
        """How many classes x is among."""
        return self.shift.classes if self.among else 1000

    @cached_property
    def _fit(self) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, "p p"]]:
        """The line's coefficients a, b and c, and their covariance."""
        known = ~self.more
        basis, y = self._basis(self.clean[known]), logit(self.shifted[known])
        found, *_ = np.linalg.lstsq(basis, y, rcond=None)
        m, p = basis.shape
        variance = float(((y - basis @ found) ** 2).sum()) / (m - p)
        return found, variance * np.linalg.inv(basis.T @ basis)

    def _basis(self, clean: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m p"]:
        x = logit(clean)
        terms = [np.ones_like(x), x]
        if self.knee is not None:
            terms.append(np.maximum(0, x - logit(self.knee)))
        return np.stack(terms, axis=1)

    def line(self, clean: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """The accuracies that the line has at accuracies on ImageNet."""
        at: np.ndarray = expit(self._basis(clean) @ self._fit[0])
        return at

    @cached_property
    def residuals(self) -> Float[np.ndarray, " m"]:
        """y − line(x) of the models that the line is fitted to."""
        known = ~self.more
        r: np.ndarray = logit(self.shifted[known]) - logit(self.line(self.clean[known]))
        return r

    @property
    def explained(self) -> float:
        """R²: the share of y's variance among these models that the line explains."""
        y = logit(self.shifted[~self.more])
        return 1 - float(self.residuals.var() / y.var())

    def band(
        self, clean: Float[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """Between which accuracies 95 % of the models lie."""
        low, high = np.quantile(self.residuals, (0.025, 0.975))
        y = logit(self.line(clean))
        return expit(y + low), expit(y + high)

    def error(self, clean: float, spread: float) -> float:
        """The standard error of the line at an accuracy that has one itself."""
        x = np.array([clean])
        basis, p = self._basis(x), float(self.line(x)[0])
        found, covariance = self._fit
        beyond = self.knee is not None and clean > self.knee
        slope = float(found[1:].sum()) if beyond else float(found[1])
        own = sqrt(float((basis @ covariance @ basis.T)[0, 0])) * p * (1 - p)
        moved = spread * slope * p * (1 - p) / (clean * (1 - clean))
        return float(np.hypot(own, moved))


@dataclass(frozen=True, kw_only=True)
class Standing(Point):
    """A point beside published models.

    Attributes:
        predicted: the line at its accuracy on ImageNet.
        predicted_low, predicted_high: between which 95 % of the models lie there.
        further: how many of the models that the line is fitted to are as far above it
            or further, in logits.
        models: how many these are.
        classes: how many classes its accuracy on ImageNet is among.
    """

    predicted: float
    predicted_low: float
    predicted_high: float
    further: int
    models: int
    classes: int


def published(shift: str, *, among: bool = True) -> Published:
    """The models of timm that have accuracies on a data set.

    Args:
        shift: a key of ``SHIFTS``.
        among: whether x is among the classes of the data set.
    """
    about = SHIFTS[shift]
    column = about.among if among else "imagenet"
    rows = [row for _, row in read_csv(TABLE, ["model", "more_images", shift, column])]
    there = [row for row in rows if row[shift]]
    knees = [row[column] for row in rows if row["model"] == CHOSE_A]
    return Published(
        shift=about,
        among=among,
        models=tuple(row["model"] for row in there),
        more=np.array([row["more_images"] == "1" for row in there]),
        clean=np.array([float(row[column]) for row in there]) / 100,
        shifted=np.array([float(row[shift]) for row in there]) / 100,
        knee=float(knees[0]) / 100 if shift == "imagenet_a" else None,
    )


def given(
    name: str, clean: float, shifted: float, shift: str, *, among: bool = True
) -> Point:
    """A point of accuracies in [0, 1] that a person gives.

    Its intervals are Wilson's, as if of all images of the data sets.
    """
    about = SHIFTS[shift]
    n = PER_CLASS * (about.classes if among else 1000)
    x, y = (
        wilson(round(of * rate), of)
        for rate, of in ((clean, n), (shifted, about.images))
    )
    return Point(
        model=name,
        family=GIVEN,
        shift=shift,
        shifts=1,
        images=about.images,
        clean=clean,
        clean_low=x[0],
        clean_high=x[1],
        shifted=shifted,
        shifted_low=y[0],
        shifted_high=y[1],
    )


def parse_given(text: str) -> tuple[str, float, float]:
    """A name and two accuracies, in [0, 1], of NAME=CLEAN,SHIFTED in percent.

    Raises:
        DiffjaxError: if it is something else, or an accuracy is none or all.
    """
    name, _, numbers = text.rpartition("=")
    try:
        clean, shifted = (float(each) / 100 for each in numbers.split(","))
    except ValueError:
        clean = shifted = -1.0
    if not name.strip() or not (0 < clean < 1 and 0 < shifted < 1):
        raise DiffjaxError(
            f"A point is NAME=CLEAN,SHIFTED, with accuracies between 0 and 100 %, as "
            f"in 'DiT-XL/2=77.5,20.0', and not {text!r}."
        )
    return name.strip(), clean, shifted


def shift_of(dataset: str) -> str:
    """The key of ``SHIFTS`` that stands for a run's data set; DiffjaxError if none."""
    for shift in SHIFTS.values():
        if dataset in (shift.name, *shift.datasets):
            return shift.name
    raise DiffjaxError(
        f"timm has no accuracies on {dataset}; it has them on {', '.join(SHIFTS)}."
    )


def check_runs(runs: Iterable[Run]) -> None:
    """Raise DiffjaxError unless runs are of ImageNet and data sets that timm has.

    With all of the classes that these have.
    """
    for run in runs:
        dataset = str(run.header["experiment"].get("dataset"))
        if dataset == CLEAN:
            continue
        wanted, found = SHIFTS[shift_of(dataset)].classes, len(run.header["classes"])
        if found != wanted:
            raise DiffjaxError(
                f"{run.path} is among {found:,} classes, and timm's accuracies on "
                f"{dataset} among {wanted:,}; evaluate it with all of them."
            )


def standings(points: Sequence[Point], *, among: bool = True) -> list[Standing]:
    """Where points lie beside the published models of their data sets.

    Raises:
        DiffjaxError: if timm has no accuracies on a data set, or a point's are 0 or 1.
    """
    made = []
    for point in points:
        models = published(shift_of(point.shift), among=among)
        if not (0 < point.clean < 1 and 0 < point.shifted < 1):
            raise DiffjaxError(
                f"{point.model} has all or no images right; the line is in logits, "
                "which are infinite there."
            )
        x = np.array([point.clean])
        at = float(models.line(x)[0])
        low, high = (float(each[0]) for each in models.band(x))
        spreads = [
            (getattr(point, f"{name}_high") - getattr(point, f"{name}_low")) / (2 * Z)
            for name in ("clean", "shifted")
        ]
        half = Z * float(np.hypot(models.error(point.clean, spreads[0]), spreads[1]))
        effective = point.shifted - at
        above = logit(point.shifted) - logit(at)
        known = asdict(point) | {"shift": models.shift.name}
        known |= {"effective": effective}
        known |= {"effective_low": effective - half, "effective_high": effective + half}
        made.append(
            Standing(
                **known,
                predicted=at,
                predicted_low=low,
                predicted_high=high,
                further=int((models.residuals >= above).sum()),
                models=models.count,
                classes=models.classes,
            )
        )
    return made
