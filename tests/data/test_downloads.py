"""Images from the web."""

import contextlib
import http.server
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from diffjax.data import downloads
from diffjax.data.images import load_image
from diffjax.errors import DiffjaxError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# URLs
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "DOWNLOAD_SECONDS", 0.5)
    begun = threading.Event()

    class Slow(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            begun.set()
            if self.path == "/headers":
                self.wfile.write(b"HTTP/1.0 200 OK\r\n")
                drip = b"X-More: 1\r\n" * 20
            else:
                self.send_response(200)
                self.end_headers()
                drip = bytes(1000)
            with contextlib.suppress(OSError):  # the client goes
                for byte in drip:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for path in ("headers", "body"):
            with pytest.raises(DiffjaxError, match=r"fetch .*no end after 0\.5 s"):
                load_image(f"http://127.0.0.1:{running.server_port}/{path}")
            assert begun.is_set()
        running.shutdown()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine, with noise.png on it."""
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "noise.png").write_bytes(encode(Image.fromarray(NOISE), "PNG"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_url(server):
    image = load_image(f"{server}/noise.png")
    np.testing.assert_array_equal(np.asarray(image), NOISE)


def test_url_errors(server, monkeypatch):
    with pytest.raises(DiffjaxError, match="answered 404"):
        load_image(f"{server}/none.png")
    monkeypatch.setattr(downloads, "MAX_DOWNLOAD_BYTES", 100)
    with pytest.raises(DiffjaxError, match="larger than"):
        load_image(f"{server}/noise.png")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/a.png", "Cannot fetch.*network"),
        ("http://", "Cannot fetch"),
        ("http://[/a.png", "Cannot fetch"),
        ("s3://bucket/a.png", "s3:// addresses are not read"),
        ("file:///etc/hostname", "file:// addresses are not read"),
    ],
)
def test_addresses_that_cannot_be_read(url, message, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DiffjaxError, match=message):
        load_image(url)
