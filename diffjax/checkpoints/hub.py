"""Files of a repository on Hugging Face, or of its copy in the local cache."""

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from diffjax.checkpoints.parts import Access
from diffjax.data.deadlines import while_growing, within
from diffjax.errors import DiffjaxError

ANSWER_SECONDS = 60.0  # for the list of a repository's files
STALL_SECONDS = 120.0  # in which a download must make this progress, however large
STALL_BYTES = 2**17


def fetch(
    hub_id: str,
    *,
    select: Callable[[list[str], str], list[str]],
    locate: Callable[[Path], Path],
    hint: str = "",
    **access: Unpack[Access],
) -> Path:
    """Download the selected files of a repository and return their local folder.

    Where the network is switched off, or fails, a complete copy in the cache is
    taken; in the second case with a warning.

    Args:
        hub_id: ``owner/name``.
        select: picks the files to fetch, given all file names of the repository
            and a phrase that says where they are.
        locate: given the local copy, checks that it is complete and returns the
            folder in it that was asked for; raises DiffjaxError otherwise.
        hint: a sentence added when there is no such repository.
        **access: revision, cache, token, and whether to use the network; so says
            ``HF_HUB_OFFLINE=1`` too.

    Raises:
        DiffjaxError: if the repository, its revision or a needed file does not
            exist or is not accessible, or the network fails and the cache has no
            complete copy.
    """
    from huggingface_hub import constants, snapshot_download

    revision, cache_dir = access.get("revision"), access.get("cache_dir")
    if access.get("local_files_only"):
        reason = "only local files are allowed"
    elif constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    else:
        try:
            return locate(_download(hub_id, select, hint, access))
        except OSError as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            warnings.warn(
                f"{hub_id} is looked for in the local cache, because {reason}",
                stacklevel=2,
            )

    try:
        folder = snapshot_download(
            hub_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=True,
            # nothing: the library would count files as missing that nobody needs
            allow_patterns=[],
        )
        return locate(Path(folder))
    except (OSError, DiffjaxError) as error:
        at = f" --revision {revision}" if revision else ""
        into = f" --cache-dir {cache_dir}" if cache_dir else ""
        raise DiffjaxError(
            f"{hub_id} is no folder here, not completely in the local cache, and "
            f"cannot be fetched now: {reason}. Run this again with a network and "
            "without HF_HUB_OFFLINE, or fetch all of it: hf download "
            f"{hub_id}{at}{into}"
        ) from error


def _download(
    hub_id: str,
    select: Callable[[list[str], str], list[str]],
    hint: str,
    access: Access,
) -> Path:
    """Fetch what is not yet in the cache; a failing network is an OSError."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The base of all errors of the HTTP library, which is httpx or its successor
    # depending on the version of huggingface_hub.
    transport_error: type[Exception] = HfHubHTTPError.__bases__[0]
    token, revision = access.get("token"), access.get("revision")
    cache_dir = access.get("cache_dir")
    at = f" at revision {revision}" if revision else ""
    try:
        info = within(
            ANSWER_SECONDS,
            lambda _: HfApi(token=token).model_info(hub_id, revision=revision),
        )
        names = [entry.rfilename for entry in info.siblings or ()]
        patterns = select(names, f"{hub_id} on Hugging Face{at}")
        folder = while_growing(
            lambda _: snapshot_download(
                hub_id,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=patterns,
            ),
            lambda: _size(Path(cache_dir or HF_HUB_CACHE), hub_id),
            seconds=STALL_SECONDS,
            least=STALL_BYTES,
        )
    except GatedRepoError as error:
        raise DiffjaxError(
            f"{hub_id} asks for its terms to be accepted: do so on its page at "
            "Hugging Face, then run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise DiffjaxError(
            f"{hub_id} has no revision {revision!r} on Hugging Face."
        ) from error
    except RepositoryNotFoundError as error:
        raise DiffjaxError(
            f"{hub_id!r} is no folder here, and Hugging Face has no such model or does "
            f"not show it to you.{hint} If it is private, run: hf auth login"
        ) from error
    except HFValidationError as error:
        raise DiffjaxError(
            f"{hub_id!r} is no folder here and not a valid Hugging Face id "
            f"({str(error).rstrip('.')})."
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise DiffjaxError(
                f"Hugging Face refuses access to {hub_id} (status "
                f"{error.response.status_code}): the token is wrong or may not read "
                "it. Run: hf auth login"
            ) from error
        raise
    except TimeoutError as error:
        raise OSError(f"Hugging Face is too slow: {error}") from error
    except transport_error as error:
        raise OSError(f"Hugging Face cannot be reached ({error})") from error
    return Path(folder)


def _size(cache: Path, hub_id: str) -> int:
    """The bytes on disk of a repository's files, those that are on their way too."""
    total = 0
    for path in (cache / f"models--{hub_id.replace('/', '--')}").glob("blobs/*"):
        with contextlib.suppress(OSError):  # it has got its name in this moment
            total += path.stat().st_blocks * 512  # sizes may be claimed in advance
    return total
