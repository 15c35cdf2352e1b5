"""A data set like MNIST but tiny, and mirrors of it on 127.0.0.1 that serve it well or misbehave."""

import gzip
import hashlib
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tinyddpm.data import download, mnist

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
N = (5, 3)  # images to train on, to test on


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tiny_files():
    """The plain bytes of a data set like MNIST, of five and three images."""
    rng = np.random.default_rng(0)
    return {
        f"{split}-{kind}-ubyte": idx(rng.integers(0, high, shape, np.uint8))
        for split, n in zip(("train", "t10k"), N, strict=True)
        for kind, high, shape in (("images-idx3", 256, (n, 28, 28)), ("labels-idx1", 10, (n,)))
    }


FILES = tiny_files()  # name -> plain bytes
PAGES = {f"/{name}.gz": gzip.compress(content) for name, content in FILES.items()}


def tiny_source(*mirrors, name="tiny", **options):
    digests = [hashlib.sha256(content).hexdigest() for content in FILES.values()]
    return mnist.idx_source(name, mirrors, digests, N, **options)


def assert_is_tiny(data):
    for dataset, prefix in ((data.train, "train"), (data.test, "t10k")):
        assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int64
        assert idx(dataset.images) == FILES[f"{prefix}-images-idx3-ubyte"]
        assert idx(dataset.labels.astype(np.uint8)) == FILES[f"{prefix}-labels-idx1-ubyte"]


def empty_cache(tmp_path, monkeypatch):
    """Nothing is asked for by the environment, nothing is cached, no proxy stands before 127.0.0.1."""
    monkeypatch.delenv("TINYDDPM_DATA", raising=False)
    monkeypatch.setattr(download, "cache_directory", lambda name: tmp_path / "cache")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Mirror:
    """Serves `pages` inside a `with`, or misbehaves. url: its address; asked: the paths it was asked for."""

    def __init__(self, behaviour="well", pages=PAGES):
        self.behaviour, self.pages, self.asked = behaviour, pages, []
        self.closed = threading.Event()

    def __enter__(self):
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                mirror.answer(self)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        return self

    def __exit__(self, *error):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        page = self.pages[handler.path]
        if self.behaviour == "404":
            handler.send_error(404)
        elif self.behaviour == "hang":
            self.closed.wait()
        elif self.behaviour == "no http":
            handler.wfile.write(b"220 this is not the server you are looking for\r\n")
        elif self.behaviour in ("endless", "trickle"):
            self._send(handler, None, page)
            self._go_on(handler)
        elif self.behaviour == "half without a length":
            self._send(handler, None, page[: len(page) // 2])
        elif self.behaviour in ("half", "hang half way"):
            self._send(handler, len(page), page[: len(page) // 2])
            if self.behaviour == "hang half way":
                self.closed.wait()
        elif self.behaviour == "a page":
            self._send(handler, None, b"<html>please log in</html>")
        elif self.behaviour == "other pixels":
            plain = gzip.decompress(page)
            self._send(handler, None, gzip.compress(plain[:-1] + bytes([plain[-1] ^ 1])))
        else:
            self._send(handler, len(page), page)

    def _send(self, handler, length, body):
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()

    def _go_on(self, handler):
        """More bytes until the client has had enough: a lot, or one at a time."""
        try:
            while not self.closed.is_set():
                handler.wfile.write(bytes(1 << 16) if self.behaviour == "endless" else b"x")
                time.sleep(0 if self.behaviour == "endless" else 0.05)
        except OSError:
            pass
