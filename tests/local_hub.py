"""A local server with the protocol of the hub from which weights are fetched."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from napari_pbip.models.encoders import catalogue
from tests.models.encoders.small_encoders import small

COMMIT = "1" * 40


class Hub:
    """A local hub; its repositories by name, each a mapping of files."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.slow = False


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path.startswith("/api/models/"):
                name = path.removeprefix("/api/models/")
                files = hub.repositories[name]
                siblings = [{"rfilename": n, "size": len(data)} for n, data in files.items()]
                self.send(json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), body)
                return
            name, _, file = path[1:].partition("/resolve/main/")
            if name in hub.gated:
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send(hub.repositories[name][file], body)

        def send(self, data: bytes, body: bool) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            while body and hub.slow and start < len(data):
                self.wfile.write(data[start : start + 1000])
                start += 1000
                time.sleep(0.005)
            if body:
                self.wfile.write(data[start:])

    return Handler


@contextmanager
def serving() -> Iterator[tuple[Hub, str]]:
    """Serve an empty hub; return it and its address."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def release(hub: Hub, name: str, folder: Path) -> None:
    """Put a small network of a row on the hub, with other files that are not needed."""
    folder.mkdir()
    small(name, folder)
    spec = catalogue()[name]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.repositories[spec.hub or ""] = {**files, "README.md": b"# Card", "pytorch_model.bin": b"pickle"}
