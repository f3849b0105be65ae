"""Recipes: everything that decides what a training run makes.

A recipe holds the configs of the networks in the words of diffusers, as they are
written beside the weights, and the numbers of the two training phases. A run is a
function of (recipe, seed, data), so a run resumed under another recipe is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from diffjax.errors import unknown
from diffjax.training import configs

TEMPLATES = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a small photo of a {}.",
    "a low resolution photo of a {}.",
    "a close-up photo of a {}.",
    "a good photo of a {}.",
    "a cropped photo of a {}.",
    "a photo of one {}.",
    "a {}.",
    "{}",
)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """How one set of parameters is trained: warm-up, then cosine to zero.

    Attributes:
        steps: updates in all.
        batch: images a step.
        learning_rate: of AdamW; the highest one, reached after ``warmup`` steps.
        muon_rate: the highest one of Muon, for matrices and kernels but the outermost
            (``optimiser.OUTERMOST``); 0 leaves those to AdamW as well.
        weight_decay: decoupled, on matrices and kernels only; where there is Muon, on
            those that it trains.
        clip_norm: the gradient's global norm is cut to this.
        ema_decay: of the averaged weights, which are what is exported.
        log_every: steps a row of the loss log.
        checkpoint_every: steps between checkpoints.
        show_every: steps between sample images; 0 for none.
    """

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    muon_rate: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    log_every: int = 50
    checkpoint_every: int = 500
    show_every: int = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model of any size, and how it is trained on labelled images.

    Attributes:
        name: what the command line calls it.
        summary: one line for people.
        dataset: as tensorflow-datasets calls it; images of one size.
        split: the part that is trained on.
        dtype: of the computation of denoiser or classifier: "float32", "bfloat16", or
            "auto": bfloat16 where there is an accelerator. Parameters are float32.
    """

    name: str
    summary: str
    dataset: str
    split: str = "train"
    dtype: str = "auto"

    def phases(self) -> dict[str, Phase]:
        """The phases by name, in their order."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: v for name, v in values.items() if isinstance(v, Phase)}


@dataclass(frozen=True, kw_only=True)
class Diffusion(Recipe):
    """A latent diffusion model.

    Attributes:
        mirror: whether images are flipped left to right as well.
        crops: how many random crops of each image there are besides.
        empty: the share of images that are shown without their caption or class.
        logit_normal: mean and standard deviation of logit t/T in training; None for
            uniform t. Where little is left of an image, there is little to learn.
        vae: config.json of the autoencoder, but for the ``scaling_factor``, which is
            measured in the run.
        scheduler: scheduler_config.json.
        kl_weight: of the autoencoder's divergence from N(0, 1), a latent element,
            against the mean absolute error of a pixel.
        autoencoder: the first phase; trains the VAE.
        denoiser: the second phase; trains the denoiser, and the text encoder with it.
    """

    mirror: bool = True
    crops: int = 0
    empty: float = 0.1
    logit_normal: tuple[float, float] | None = None
    vae: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    kl_weight: float = 1e-3
    autoencoder: Phase
    denoiser: Phase

    @property
    def copies(self) -> int:
        """How many items there are of each image."""
        return 1 + self.mirror + self.crops


@dataclass(frozen=True, kw_only=True)
class TextToImage(Diffusion):
    """A Stable Diffusion, whose captions are made from class names.

    Attributes:
        templates: captions with one {} for the class name.
        scenes: how many composed scenes (``data.scenes``) are among the images.
        scenes_logit_normal: ``logit_normal`` of the scenes; None for uniform t.
        vocabulary: the tokenizer's size at most.
        unet: config.json.
        text_encoder: config.json, but for the vocabulary's size and special tokens.
    """

    scheduler: Mapping[str, Any] = field(default_factory=configs.STABLE_DIFFUSION.copy)
    templates: tuple[str, ...] = TEMPLATES
    scenes: int = 0
    scenes_logit_normal: tuple[float, float] | None = None
    vocabulary: int = 2000
    unet: Mapping[str, Any]
    text_encoder: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ClassToImage(Diffusion):
    """A DiT or, with a flow's scheduler, a SiT, conditioned on the labels.

    Attributes:
        transformer: config.json.
        bound_weight: of the variational bound, T terms, in the loss; it trains the
            variance, if there is one (Nichol and Dhariwal 2021, section 3.1).
    """

    scheduler: Mapping[str, Any] = field(default_factory=configs.DIT.copy)
    transformer: Mapping[str, Any]
    bound_weight: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Discriminative(Recipe):
    """A ResNet that is trained to classify, for comparison.

    Attributes:
        network: config.json.
        classifier: its one phase.
    """

    network: Mapping[str, Any]
    classifier: Phase


A_FEW_STEPS = Phase(
    steps=6,
    batch=4,
    learning_rate=1e-3,
    muon_rate=1e-2,
    warmup=1,
    log_every=3,
    checkpoint_every=3,
    show_every=6,
)

SMALL_AUTOENCODER = Phase(
    steps=3000, batch=8, learning_rate=2e-3, warmup=100, ema_decay=0.995
)
SMALL_DENOISER = Phase(
    steps=12_000,
    batch=64,
    learning_rate=1e-3,
    muon_rate=1e-2,
    warmup=100,
    show_every=1000,
)
FULL_AUTOENCODER = Phase(
    steps=5000, batch=64, learning_rate=2e-3, warmup=100, ema_decay=0.995
)
FULL_DENOISER = Phase(
    steps=40_000,
    batch=256,
    learning_rate=1e-3,
    muon_rate=2e-2,
    warmup=500,
    checkpoint_every=2000,
    show_every=4000,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        TextToImage(
            name="tiny",
            summary="Stable Diffusion in miniature, on CIFAR-10 and composed scenes.",
            dataset="cifar10",
            scenes=40_000,
            logit_normal=(0.3, 1.2),  # the classes differ most around t = 600
            scenes_logit_normal=(0.3, 1.2),
            vae=configs.vae_config((16, 32)),
            unet=configs.unet_config((32, 64, 128), (False, False, True), condition=64),
            text_encoder=configs.text_config(64, layers=2),
            autoencoder=SMALL_AUTOENCODER,
            denoiser=SMALL_DENOISER,
        ),
        TextToImage(
            name="tiny-full",
            summary="tiny at full size, for an accelerator.",
            dataset="cifar10",
            scenes=100_000,
            vae=configs.vae_config((32, 64)),
            unet=configs.unet_config(
                (64, 128, 192), (False, True, True), condition=128
            ),
            text_encoder=configs.text_config(128, layers=3),
            autoencoder=FULL_AUTOENCODER,
            denoiser=FULL_DENOISER,
        ),
        ClassToImage(
            name="tiny-dit",
            summary="DiT in miniature, on Fashion-MNIST.",
            dataset="fashion_mnist",
            mirror=False,  # all shoes point to the left
            logit_normal=(-0.5, 1.2),
            vae=configs.vae_config((16, 32), size=28),
            transformer=configs.dit_config(192, heads=6, layers=4, size=14),
            autoencoder=replace(SMALL_AUTOENCODER, steps=1500),
            denoiser=replace(
                SMALL_DENOISER, steps=14_000, learning_rate=2e-3, muon_rate=2e-2
            ),
        ),
        ClassToImage(
            name="tiny-flow",
            summary="tiny-dit as a flow: SiT in miniature, on Fashion-MNIST.",
            dataset="fashion_mnist",
            mirror=False,
            # tiny-dit's signal-to-noise ratios as often, to be compared with it: those
            # of t/T = 0.2, 0.4 and 0.6 in its process are those of σ = 0.42, 0.67, 0.86
            logit_normal=(0.76, 1.4),
            vae=configs.vae_config((16, 32), size=28),
            scheduler=configs.FLOW.copy(),
            transformer=configs.dit_config(
                192, heads=6, layers=4, size=14, variance=False
            ),
            autoencoder=replace(SMALL_AUTOENCODER, steps=1500),
            denoiser=replace(
                SMALL_DENOISER, steps=14_000, learning_rate=2e-3, muon_rate=2e-2
            ),
        ),
        ClassToImage(
            name="tiny-dit-full",
            summary="A larger DiT on CIFAR-10, for an accelerator.",
            dataset="cifar10",
            vae=configs.vae_config((32, 64)),
            transformer=configs.dit_config(256, heads=8, layers=8, size=16),
            autoencoder=FULL_AUTOENCODER,
            denoiser=FULL_DENOISER,
        ),
        Discriminative(
            name="resnet",
            summary="A small ResNet on CIFAR-10, to compare with.",
            dataset="cifar10",
            network=configs.resnet_config((32, 64, 128), layers=2),
            classifier=Phase(
                steps=4000,
                batch=64,
                learning_rate=2e-3,
                muon_rate=2e-2,
                warmup=100,
                weight_decay=0.01,
                ema_decay=0.995,
            ),
        ),
        TextToImage(
            name="test",
            summary="A few steps of the smallest networks, to try the path.",
            dataset="cifar10",
            templates=TEMPLATES[:3],
            vocabulary=700,
            # few different shapes, since drawing a weight compiles once a shape
            vae=configs.vae_config((8, 8), groups=4),
            unet=configs.unet_config(
                (8, 8), (False, True), condition=8, groups=4, heads=2
            ),
            text_encoder=configs.text_config(8, layers=1, heads=2),
            autoencoder=A_FEW_STEPS,
            denoiser=A_FEW_STEPS,
        ),
        ClassToImage(
            name="test-dit",
            summary="A few steps of the smallest DiT.",
            dataset="fashion_mnist",
            vae=configs.vae_config((8, 8), groups=4, size=28),
            transformer=configs.dit_config(8, heads=2, layers=1, size=14),
            autoencoder=A_FEW_STEPS,
            denoiser=A_FEW_STEPS,
        ),
        Discriminative(
            name="test-resnet",
            summary="A few steps of the smallest ResNet.",
            dataset="cifar10",
            network=configs.resnet_config((8, 8), layers=1, groups=4),
            classifier=A_FEW_STEPS,
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        DiffjaxError: there is none; the message lists them.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]


def of_length(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with so many steps in its last phase, at most so many before it."""
    phases = recipe.phases()
    lengths = {name: min(phase.steps, steps) for name, phase in phases.items()}
    lengths |= {list(phases)[-1]: steps}
    cut: dict[str, Any] = {  # at most half of the steps are warm-up
        name: replace(phases[name], steps=n, warmup=min(phases[name].warmup, n // 2))
        for name, n in lengths.items()
    }
    return replace(recipe, **cut)


def compute_dtype(recipe: Recipe) -> str:
    """The type that denoiser or classifier compute in on this machine."""
    from diffjax.checkpoints import loading  # and with it JAX

    return str(loading.compute_dtype(recipe.dtype))
