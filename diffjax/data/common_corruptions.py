"""CIFAR-10-C, CIFAR-100-C and ImageNet-C as their archives have them.

    CIFAR-10-C/CORRUPTION.npy    uint8 [5 n, 32, 32, 3]: the n test images, 10,000, at
                                 severity 1, then at 2, and so on
    CIFAR-10-C/labels.npy        [5 n], in CIFAR's own order of classes
    ImageNet-C/CORRUPTION/SEVERITY/WNID/NAME.JPEG

from Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019 (arXiv 1903.12261). A corruption at a severity
is a data set: cifar10_c/fog/3. Images have the ids of the clean ones, and so their
noise. ImageNet-C's archives may also be unpacked in folders called after them (blur/,
noise/ and so on).
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from diffjax.data.arrays import read_npy
from diffjax.data.files import FileSource, ImageFile, load_plain
from diffjax.data.folders import open_folder
from diffjax.data.presets import WORSE, prompts_file
from diffjax.data.prompts import Prompts
from diffjax.data.sources import DataDir, Example, Source, data_root, digest
from diffjax.errors import DiffjaxError, unknown

CORRUPTIONS = (  # the benchmark's fifteen, then four to develop with
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    *("speckle_noise", "gaussian_blur", "spatter", "saturate"),
)
SEVERITIES = 5
PUBLISHED = {  # data set: folder, and where it is published
    "cifar10_c": ("CIFAR-10-C", "https://zenodo.org/records/2535967"),
    "cifar100_c": ("CIFAR-100-C", "https://zenodo.org/records/3555552"),
    "imagenet_c": ("ImageNet-C", "https://zenodo.org/records/2235448"),
}
IMAGENET = "imagenet_c"
SHAPE = (32, 32, 3)  # of CIFAR's images


class ArraySource(Source):
    """Labelled images of an array."""

    def __init__(
        self,
        *,
        name: str,
        split: str,
        class_names: tuple[str, ...],
        images: UInt8[np.ndarray, "n h w 3"],
        labels: Int32[np.ndarray, " n"],
    ) -> None:
        """Hold the images; the fingerprint covers all of them."""
        self.name, self.split = name, split
        self.class_names, self.model_classes = class_names, None
        self._images, self._labels = images, labels
        self.fingerprint = digest([*class_names, labels.tobytes(), images.tobytes()])

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        """The example at an index in [0, len)."""
        return Example(
            image=self._images[index],
            label=int(self._labels[index]),
            id=f"{self.split}_{index:05d}",
        )

    def labels(self) -> Int32[np.ndarray, " n"]:
        """The label of each example, in order."""
        return self._labels


def open_common_corruption(
    name: str, split: str | None = None, data_dir: DataDir = None
) -> Source:
    """Open one corruption at one severity.

    Args:
        name: "cifar10_c/CORRUPTION/SEVERITY", or so of cifar100_c or imagenet_c.
        split: "test" of CIFAR's, "validation" of ImageNet's; there is no other.
        data_dir: the folder that holds CIFAR-10-C, CIFAR-100-C or ImageNet-C.

    Raises:
        DiffjaxError: if there is no such corruption, severity or split, or the data are
            not there or damaged.
    """
    of, _, rest = name.partition("/")
    corruption, _, severity = rest.partition("/")
    if corruption not in CORRUPTIONS or severity not in map(str, range(1, 6)):
        raise DiffjaxError(
            f"{name} names no corruption and severity: write {of}/CORRUPTION/SEVERITY, "
            f"as in {of}/fog/3, with 1 to 5 for the severity and one of these: "
            f"{', '.join(CORRUPTIONS)}."
        )
    own = "validation" if of == IMAGENET else "test"
    if split not in (None, own):
        raise unknown(f"split of {of}", split, [own])
    if of == IMAGENET:
        return _imagenet(name, corruption, severity, own, data_root(data_dir))
    return _cifar(name, corruption, int(severity), own, data_root(data_dir))


def _cifar(
    name: str, corruption: str, severity: int, split: str, root: Path
) -> ArraySource:
    of = name.partition("/")[0]
    folder, address = PUBLISHED[of]
    place = root / folder
    for file in (f"{corruption}.npy", "labels.npy"):
        if not (place / file).is_file():
            raise _missing(name, place / file, f"{folder}.tar", address, root)
    images = read_npy(place / f"{corruption}.npy")
    labels = read_npy(place / "labels.npy")
    n = len(images) // SEVERITIES
    if (
        images.dtype != np.uint8
        or images.shape != (SEVERITIES * n, *SHAPE)
        or not np.issubdtype(labels.dtype, np.integer)
        or labels.shape != images.shape[:1]
        or not n
    ):
        raise DiffjaxError(
            f"{place}: {corruption}.npy holds {images.dtype} of shape {images.shape}, "
            f"and labels.npy {labels.dtype} of shape {labels.shape}; published are "
            f"uint8 of [{SEVERITIES} n, 32, 32, 3] and as many whole numbers. Unpack "
            f"{folder}.tar again."
        )
    names = Prompts.read_csv(prompts_file(WORSE[of])).class_names
    here = slice((severity - 1) * n, severity * n)
    chosen = labels[here].astype(np.int32)
    if chosen.min() < 0 or chosen.max() >= len(names):
        raise DiffjaxError(
            f"{place / 'labels.npy'} holds labels from {chosen.min()} to "
            f"{chosen.max()}; the classes are 0 to {len(names) - 1}."
        )
    return ArraySource(
        name=name,
        split=split,
        class_names=names,
        images=images[here].copy(),  # the other severities are let go
        labels=chosen,
    )


def _imagenet(
    name: str, corruption: str, severity: str, split: str, root: Path
) -> FileSource:
    folder, address = PUBLISHED[IMAGENET]
    top = root / folder
    places = [top / corruption, *sorted(top.glob(f"*/{corruption}"))]
    found = [place / severity for place in places if (place / severity).is_dir()]
    if not found:
        archives = "blur.tar, digital.tar, extra.tar, noise.tar or weather.tar"
        where = top / corruption / severity
        raise _missing(name, where, archives, address, top)
    source = open_folder(found[0], load=load_plain)
    if source.model_classes is None:
        raise DiffjaxError(
            f"{found[0]} holds folders that are not called by ImageNet's WordNet ids "
            f"({source.class_names[0]}, for one). Unpack the archive again."
        )
    return FileSource(
        name=name,
        split=split,
        class_names=source.class_names,
        files=[
            ImageFile(path=file.path, label=file.label, id=file.path.name)
            for file in source.files
        ],
        load=load_plain,
        model_classes=source.model_classes,
    )


def _missing(
    name: str, place: Path, archive: str, address: str, root: Path
) -> DiffjaxError:
    return DiffjaxError(
        f"There is no data set {name}: {place} is missing. Fetch {archive} from "
        f"{address} and unpack it in {root}."
    )
