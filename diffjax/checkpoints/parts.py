"""Where the parts of a model come from: keyword arguments, said once for all."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_args

from diffjax.checkpoints.components import COMPONENTS
from diffjax.errors import nearest

Function = TypeVar("Function", bound=Callable[..., Any])
# those that may come from elsewhere
REPLACED = tuple(name for name, each in COMPONENTS.items() if each.replaced)


class Access(TypedDict, total=False):
    """How a repository on the Hub is reached; ``Parts`` says what each means."""

    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool


class Parts(Access, total=False):
    """Keyword arguments that say where the parts of a model come from.

    Each part is a folder or a Hugging Face id; a network may also be a file of weights
    alone, for what the pipeline's own config.json describes, or a whole Stable
    Diffusion's single file. A transformer's file may also be one that the programs of
    DiT, SiT or REPA saved.

    Attributes:
        unet: U-Net to use instead of the pipeline's own.
        transformer: Transformer to use instead of a DiT's own.
        vae: Autoencoder to use instead of the pipeline's own.
        text_encoder: Text encoder to use instead of the pipeline's own.
        text_encoder_2: Second text encoder to use instead of the pipeline's own, of
            Stable Diffusion XL and 3 and of FLUX.
        text_encoder_3: Third text encoder to use instead of the pipeline's own, of
            Stable Diffusion 3; "none" leaves it out.
        tokenizer: Folder or id of a tokenizer to use instead of the pipeline's own;
            name it too where a text encoder needs its own.
        tokenizer_2: Tokenizer to use instead of that of the second text encoder.
        tokenizer_3: Tokenizer to use instead of that of the third text encoder.
        lora: LoRA to merge into the weights, FILE or FILE:SCALE, or several of them,
            which add up.
        textual_inversion: Words that were learned, FILE or FILE:WORD, or several of
            them; of Stable Diffusion 1, 2 and XL.
        guidance: Guidance that FLUX.1 dev is told; 3.5 by default.
        shift: Shift of a flow's noise levels, instead of what its scheduler says; with
            1 they are spread evenly.
        revision: Branch, tag or commit of the Hub repository that names the pipeline.
        cache_dir: Folder where downloads are kept, if not huggingface_hub's own cache.
        token: Access token for the Hub; by default the one saved at login.
        local_files_only: Whether to take downloads from the cache alone, without the
            network.
        variant: Variant of the weights, such as "fp16" or "non_ema". Components without
            it have their plain weights taken, but one must have it. A single file may
            have "ema", averaged weights, and "non_ema".
        prompt_cache: Folder that keeps what text encoders say of prompts. Text encoders
            are read only for prompts that are not there.
    """

    unet: str | Path | None
    transformer: str | Path | None
    vae: str | Path | None
    text_encoder: str | Path | None
    text_encoder_2: str | Path | None
    text_encoder_3: str | Path | None
    tokenizer: str | Path | None
    tokenizer_2: str | Path | None
    tokenizer_3: str | Path | None
    lora: str | Path | Sequence[str | Path] | None
    textual_inversion: str | Path | Sequence[str | Path] | None
    guidance: float | None
    shift: float | None
    variant: str | None
    prompt_cache: str | Path | None


def spelled_out(function: Function) -> Function:
    """Show the keyword arguments of a function's ``Unpack[TypedDict]`` one by one.

    Type checkers know them anyway; so do ``help`` and completion in a notebook. Any
    other keyword is a TypeError.
    """
    *own, last = inspect.signature(function).parameters.values()
    [options] = get_args(last.annotation)
    named = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
        )
        for name, kind in options.__annotations__.items()
    ]
    signature = inspect.signature(function).replace(parameters=[*own, *named])

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in signature.parameters:
                raise TypeError(
                    f"{function.__qualname__}() got an unexpected keyword argument "
                    f"{name!r}.{nearest(name, signature.parameters)}"
                )
        signature.bind(*args, **kwargs)
        return function(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return cast(Function, checked)
