"""Images from http(s) addresses, bounded in size and in time."""

import http.client
import threading
import urllib.error
import urllib.request

from diffjax.data.deadlines import within
from diffjax.errors import DiffjaxError

MAX_DOWNLOAD_BYTES = 64 * 2**20
DOWNLOAD_TIMEOUT_SECONDS = 20.0  # without an answer
DOWNLOAD_SECONDS = 180.0  # in all
_CHUNK = 2**16


def download(url: str) -> bytes:
    """What an address answers.

    Proxies are those of the environment, redirects are followed.

    Raises:
        DiffjaxError: if there is no good answer, not in time, or too large a one.
    """
    try:
        data = within(DOWNLOAD_SECONDS, lambda given_up: _read(url, given_up))
    except urllib.error.HTTPError as error:
        raise DiffjaxError(
            f"{url} answered {error.code} {error.reason}. Check the address."
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DiffjaxError(
            f"Cannot fetch {url}: {error}. Check the address and the network, or "
            "download the image and give its path."
        ) from error
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise DiffjaxError(
            f"{url} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB. Download the image "
            "and give its path."
        )
    return data


def _read(url: str, given_up: threading.Event) -> bytes:
    """Up to one byte more than is allowed."""
    # Some hosts, Wikimedia for one, refuse clients that do not say who they are.
    request = urllib.request.Request(url, headers={"User-Agent": "diffjax"})
    data = bytearray()
    with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
        expected = response.length
        while len(data) <= MAX_DOWNLOAD_BYTES and not given_up.is_set():
            chunk = response.read1(min(_CHUNK, MAX_DOWNLOAD_BYTES + 1 - len(data)))
            if not chunk:
                break
            data += chunk
    if expected is not None and len(data) < min(expected, MAX_DOWNLOAD_BYTES):
        raise http.client.IncompleteRead(bytes(data), expected - len(data))
    return bytes(data)
