"""Options that say which images of which data set, and which classes."""

from diffjax.cli import completion
from diffjax.cli.options import (
    data_dir_option,
    image_options,
    merge_option,
    number,
    option,
    path,
    section,
    together,
)

dataset_option = section(
    "data",
    option(
        "--dataset",
        "NAME|PATH",
        "A prepared tensorflow-datasets set, aircraft, objectnet, "
        "cifar10_c/CORRUPTION/SEVERITY; ./a/folder with "
        "a folder a class; a .csv or .jsonl of paths and labels; hf:NAME:SPLIT. "
        "May be repeated.",
        multiple=True,
        shell_complete=completion.datasets,
    ),
)
which_images = together(
    option("--split", "SPLIT", "Split of the data set."),
    data_dir_option("Where data sets are."),
    option(
        "--subset",
        "FILE.npy|RANGES",
        "Images by their index: a file, or 0:100,200:300.",
    ),
    number("--per-class", "Take so many images of each class."),
    number("--subset-seed", "Seed of the draw of --per-class.", least=0, default=0),
    number(
        "--limit",
        "Take so many images, spread evenly; a larger limit adds to them, in the "
        "same run.",
    ),
)
which_classes = option(
    "--classes",
    "FILE.txt|NAME|RANGES",
    "Numbers of the classes to choose from; they keep their numbers.",
)
data_options = together(
    dataset_option,
    section(
        "data",
        which_images,
        option(
            "--corrupt",
            "KIND:SEVERITY",
            "Make the images worse: noise, blur, contrast, jpeg or shift, 1 to 5.",
        ),
        option("--image-column", "NAME", "Column of images, where hf: has several."),
        option("--label-column", "NAME", "Column of labels, where hf: has several."),
    ),
    image_options,
    section(
        "data",
        path(
            "--latent-cache",
            "DIR",
            "Folder that keeps the images' latents for other runs.",
        ),
    ),
)
prompt_files = together(
    option(
        "--prompts",
        "FILE.csv|NAME",
        "Columns prompt, classname, classidx; or a preset's.",
        shell_complete=completion.prompts,
    ),
    option("--classnames", "FILE", "File of class names, as CLIP_benchmark has it."),
    option(
        "--templates",
        "FILE",
        "File of templates, as CLIP_benchmark has it; without --classnames for "
        "the set's own names.",
    ),
    option(
        "--clip-name",
        "KEY",
        "What these files call the data set, where they are tables of several.",
    ),
    option(
        "--template",
        "TEXT",
        "Prompt with a {} for the data set's class name; may be repeated.",
        multiple=True,
    ),
)
class_options = section(
    "prompts",
    prompt_files,
    which_classes,
    option(
        "--prefilter",
        "clip:NAME:k=N|FILE",
        "Candidate classes of each image: the N that CLIP finds best, NAME as for "
        "baseline; or of a .csv or .parquet with the columns id and classes. Reported "
        "apart.",
    ),
    merge_option,
)
