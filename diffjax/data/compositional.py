"""Compositional sets as their authors publish them: JSON files, and images beside.

    ARO          visual_genome_relation.json, visual_genome_attribution.json: a list of
                 {"image_path", "bbox_x", …, "true_caption", "false_caption",
                 "relation_name" or "attributes"}; the box is what a model sees
    SugarCrepe   add_att.json, …, seven files: {number: {"filename", "caption",
                 "negative_caption"}} on COCO's val2017
    VALSE        existence.json, …, eleven files: {id: {"image_file", "caption", "foil",
                 "mturk": {"caption": votes}, "dataset", "linguistic_phenomena"}}; those
                 count that two annotators of three found right
    COLA         COLA_multiobjects_matching_benchmark.json: a list of [address of image
                 1, caption 1, address of image 2, caption 2], to be matched as in
                 Winoground
    others       NAME.choices.jsonl, a line an image: {"image", "captions" (the right
                 one first), "tag"}; COCO-Order and Flickr30k-Order, whose wrong
                 captions are drawn by their authors' program, can be written so

Sources: Yuksekgonul et al. 2023 (arXiv 2210.01936), Hsieh et al. 2023 (2306.14610),
Parcalabescu et al. 2022 (2112.07566), Ray et al. 2023 (2305.03689), and the
repositories that these name.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from diffjax.data.choices import Box, ChoiceExample, ImageFolder, text_of
from diffjax.data.presets import ASSETS
from diffjax.data.winoground import WinogroundExample, read_winoground
from diffjax.errors import DiffjaxError
from diffjax.files import PathLike, read_json, read_json_lines, read_lines, user_path

Example = WinogroundExample | ChoiceExample

RELATION, ATTRIBUTION = "VG-Relation", "VG-Attribution"
FEWEST = 25  # examples of a pair of attributes that counts in the macro accuracy
VOTES = 2  # of three annotators, for a valid example of VALSE
OWN = ".choices.jsonl"
GITHUB = "https://github.com/"
ARO = ("visual_genome_relation.json", "visual_genome_attribution.json")
SUGAR_CREPE = tuple(
    f"{name}.json"
    for name in (
        *("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel"),
        *("swap_att", "swap_obj"),
    )
)
VALSE = tuple(
    f"{name}.json"
    for name in (
        *("existence", "plurals", "counting-hard", "counting-small-quant"),
        *("counting-adversarial", "relations", "action-replacement", "actant-swap"),
        *("coreference-standard", "coreference-hard", "foil-it"),
    )
)
COLA = ("COLA_multiobjects_matching_benchmark.json",)


def read_captions(
    place: PathLike, images: PathLike | None = None
) -> tuple[Example, ...]:
    """Read a set of images and captions; images stay on disk.

    Args:
        place: a folder with the files of one set, itself or in its folder data; or one
            of the files, which may then be called otherwise.
        images: the folder that images are in or below; by default the folder images
            beside the files or above, or else that of the files.

    Returns:
        Winoground's and COLA's examples have two images, all others one.

    Raises:
        DiffjaxError: if there is no such set, it is malformed, or an image is missing.
    """
    path = user_path(place)
    files = [path] if path.is_file() else _files(path)
    if not files:
        return read_winoground(path)
    found: list[Example] = []
    for file in files:
        folders = (file.parent / "images", file.parent.parent / "images", file.parent)
        root = next(folder for folder in folders if folder.is_dir())
        if images is not None:
            root = user_path(images)
            if not root.is_dir():
                raise DiffjaxError(f"There is no folder {root} of images.")
        some = tuple(_examples(file, ImageFolder(root)))
        if not some:
            raise DiffjaxError(f"{file} holds no examples. Fetch it again.")
        found += some
    if len({type(each) for each in found}) > 1:
        raise DiffjaxError(f"{path} holds files of several sets; name one of them.")
    return tuple(found)


def counts(collapsed_tag: str, tag: str, n: int) -> bool:
    """Whether n examples of a tag count in the mean over tags, as for ARO's authors.

    Relations that hold both ways do not, nor pairs of attributes with few examples.
    """
    if collapsed_tag == RELATION:
        return tag not in symmetric_relations()
    return collapsed_tag != ATTRIBUTION or n >= FEWEST


@cache
def symmetric_relations() -> frozenset[str]:
    """The relations that VG-Relation's macro accuracy leaves out."""
    lines = read_lines(ASSETS / "symmetric_relations.txt")
    return frozenset(line for line in lines if line and not line.startswith("#"))


def _files(folder: Path) -> list[Path]:
    """The files of a set in a folder, in the order of its authors."""
    for place in (folder / "data", folder):
        if (place / "examples.jsonl").is_file():
            return []
        for names in (ARO, SUGAR_CREPE, VALSE, COLA):
            if found := [place / name for name in names if (place / name).is_file()]:
                return found
        if found := sorted(place.glob(f"*{OWN}")):
            return found
    # the form of Winoground that is not read, of which its reader tells
    packed = [*folder.glob("test-*.parquet"), *folder.glob("data/*.parquet")]
    if folder.is_dir() and not packed:
        raise DiffjaxError(
            f"{folder} holds no file of Winoground (data/examples.jsonl), of ARO "
            f"({ARO[0]}, by {GITHUB}mertyg/vision-language-models-are-bows), of "
            f"SugarCrepe ({SUGAR_CREPE[-1]}, in {GITHUB}RAIVNLab/sugar-crepe), VALSE "
            f"({VALSE[0]}, in {GITHUB}Heidelberg-NLP/VALSE) or COLA ({COLA[0]}, in "
            f"{GITHUB}arijitray1993/COLA)."
        )
    return []


def _examples(file: Path, images: ImageFolder) -> Iterator[Example]:
    """Those of a file, by what stands in it."""
    if file.name.endswith(OWN):
        return _own(file, images)
    content = read_json(file, "set of captions", "Fetch it again.")
    first: Any = None
    if isinstance(content, list) and content:
        first = content[0]
    elif isinstance(content, dict) and content:
        first = next(iter(content.values()))
    keys = set(first) if isinstance(first, dict) else set()
    if isinstance(content, list) and isinstance(first, list):
        return _cola(file, content, images)
    if isinstance(content, list) and {"true_caption", "false_caption"} <= keys:
        return _aro(file, content, images)
    if isinstance(content, dict) and "negative_caption" in keys:
        return _sugar_crepe(file, content, images)
    if isinstance(content, dict) and {"foil", "mturk"} <= keys:
        return _valse(file, content, images)
    raise DiffjaxError(
        f"{file} is no file of ARO, SugarCrepe, VALSE or COLA, as their authors "
        f"publish them, and is not called NAME{OWN}."
    )


def _aro(
    file: Path, content: list[Any], images: ImageFolder
) -> Iterator[ChoiceExample]:
    advice = "Fetch vgr_vga_images.zip by the authors' program, and unpack it there."
    for number, entry in enumerate(content):
        where = f"{file}, entry {number}"
        attributes = entry.get("attributes") if isinstance(entry, dict) else None
        if isinstance(attributes, list) and len(attributes) == 2:
            kind, tag = ATTRIBUTION, "_".join(map(str, attributes))
        else:
            kind, tag = RELATION, text_of(entry, "relation_name", where)
        name = text_of(entry, "image_path", where)
        yield ChoiceExample(
            id=f"{kind} {number}",
            captions=_captions(entry, ("true_caption", "false_caption"), where),
            image=images.find(name, where, advice),
            tag=tag,
            collapsed_tag=kind,
            box=_box(entry, where),
        )


def _sugar_crepe(
    file: Path, content: dict[str, Any], images: ImageFolder
) -> Iterator[ChoiceExample]:
    advice = "Fetch val2017.zip of COCO, and name its folder with --images."
    for key, entry in content.items():
        where = f"{file}, entry {key!r:.40}"
        name = text_of(entry, "filename", where)
        yield ChoiceExample(
            id=f"{file.stem} {key}",
            captions=_captions(entry, ("caption", "negative_caption"), where),
            image=images.find(name, where, advice),
            tag=file.stem,
            collapsed_tag=file.stem.partition("_")[0],
        )


def _valse(
    file: Path, content: dict[str, Any], images: ImageFolder
) -> Iterator[ChoiceExample]:
    for key, entry in content.items():
        where = f"{file}, entry {key!r:.40}"
        votes = entry.get("mturk") if isinstance(entry, dict) else None
        count = votes.get("caption") if isinstance(votes, dict) else None
        if not isinstance(count, int):
            raise DiffjaxError(
                f"{where}: mturk must tell how many annotators chose the caption. "
                "Fetch the file again."
            )
        if count < VOTES:
            continue
        name = text_of(entry, "image_file", where)
        source = str(entry.get("dataset"))
        advice = f"Fetch the images of {source}, and name their folder with --images."
        yield ChoiceExample(
            id=f"{file.stem} {key}",
            captions=_captions(entry, ("caption", "foil"), where),
            image=images.find(name, where, advice),
            tag=file.stem,
            collapsed_tag=text_of(entry, "linguistic_phenomena", where),
        )


def _cola(
    file: Path, content: list[Any], images: ImageFolder
) -> Iterator[WinogroundExample]:
    for number, entry in enumerate(content):
        where = f"{file}, entry {number}"
        if (
            not isinstance(entry, list)
            or len(entry) != 4
            or not all(isinstance(each, str) and each for each in entry)
        ):
            raise DiffjaxError(
                f"{where}: it must have the address of an image, its caption, and both "
                "of another image. Fetch the file again."
            )
        files = [
            images.find(
                address.rpartition("/")[2],
                where,
                f"Fetch {address} into {images.root}.",
            )
            for address in entry[::2]
        ]
        yield WinogroundExample(
            id=str(number),
            captions=(entry[1], entry[3]),
            images=(files[0], files[1]),
            tag="",
            secondary_tag="",
            collapsed_tag="",
        )


def _own(file: Path, images: ImageFolder) -> Iterator[ChoiceExample]:
    name = file.name.removesuffix(OWN)
    for number, (where, entry) in enumerate(read_json_lines(file)):
        captions = entry.get("captions")
        if (
            not isinstance(captions, list)
            or len(captions) < 2
            or not all(isinstance(each, str) and each for each in captions)
        ):
            raise DiffjaxError(
                f"{where}: captions must be a list of texts, the right one first and "
                "at least one that is wrong."
            )
        image = text_of(entry, "image", where)
        yield ChoiceExample(
            id=f"{name} {entry.get('id', number)}",
            captions=_different(tuple(captions), where),
            image=images.find(image, where, "Name its folder with --images."),
            tag=str(entry.get("tag", "")),
            collapsed_tag=name,
        )


def _captions(entry: Any, keys: tuple[str, str], where: str) -> tuple[str, ...]:
    return _different(tuple(text_of(entry, key, where) for key in keys), where)


def _different(captions: tuple[str, ...], where: str) -> tuple[str, ...]:
    if captions[0] in captions[1:]:
        raise DiffjaxError(
            f"{where}: a wrong caption is the right one, {captions[0]!r}."
        )
    return captions


def _box(entry: Mapping[str, Any], where: str) -> Box:
    numbers = [entry.get(f"bbox_{key}") for key in "xywh"]
    whole = [each for each in numbers if isinstance(each, int)]
    if len(whole) < 4 or min(whole[2:]) < 1:
        raise DiffjaxError(
            f"{where}: bbox_x, bbox_y, bbox_w and bbox_h must be whole numbers, the "
            "last two above 0. Fetch the file again."
        )
    x, y, width, height = whole
    return (x, y, x + width, y + height)
