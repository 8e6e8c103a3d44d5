"""A local server with as much of the protocol of the Hugging Face hub as its own client needs: files, and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from napari_pbip.models.encoders import catalogue
from tests.models.encoders.small_encoders import small

COMMIT = "1" * 40
TOKEN = "hf_of_jane"


class Hub:
    """A local hub; its repositories by name, each a mapping of files.

    Whoever has the token :data:`TOKEN` may write repositories that begin with ``jane/``.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.messages: list[str] = []
        """Messages of commits."""
        self.stored: dict[str, bytes] = {}
        """Large files by their hash, in a repository or not yet."""
        self.slow = False


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        # reading -------------------------------------------------------------------------------------------------

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path.startswith("/api/models/"):
                name = path.removeprefix("/api/models/")
                if name not in hub.repositories or (name in hub.private and not self.is_jane):
                    self.refuse(404, "RepoNotFound")
                    return
                files = hub.repositories[name]
                siblings = [{"rfilename": n, "size": len(data)} for n, data in files.items()]
                facts = {"id": name, "sha": COMMIT, "private": name in hub.private, "siblings": siblings}
                self.send(json.dumps(facts).encode(), body)
                return
            name, _, file = path[1:].partition("/resolve/main/")
            if name in hub.gated:
                self.refuse(403, "GatedRepo")
                return
            if name not in hub.repositories:  # the library also asks for facts that no test needs
                self.refuse(404)
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

        def refuse(self, status: int, code: str = "") -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        # writing -------------------------------------------------------------------------------------------------

        @property
        def is_jane(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            path = self.path.partition("?")[0]
            hub.asked.append(path)
            if path == "/api/validate-yaml":
                self.send(b"{}", body=True)
            elif not self.is_jane:
                self.refuse(401)
            elif path == "/api/repos/create":
                self.create(json.loads(content))
            else:
                # /api/models/OWNER/NAME/preupload/main, .../commit/main, or /OWNER/NAME.git/info/lfs/objects/batch
                parts = path.removeprefix("/api/models").strip("/").split("/")
                name = f"{parts[0]}/{parts[1].removesuffix('.git')}"
                if not name.startswith("jane/"):
                    self.refuse(403)
                elif parts[2] == "preupload":
                    files = [{**self.mode(one["path"]), "shouldIgnore": False} for one in json.loads(content)["files"]]
                    self.send(json.dumps({"files": files}).encode(), body=True)
                elif parts[2] == "commit":
                    self.commit(name, [json.loads(line) for line in content.splitlines()])
                else:
                    self.send(json.dumps(self.batch(json.loads(content))).encode(), body=True)

        def create(self, wanted: dict[str, Any]) -> None:
            name = f"{wanted.get('organization') or 'jane'}/{wanted['name']}"
            if not name.startswith("jane/"):
                self.refuse(403)
                return
            hub.repositories[name] = {".gitattributes": b"*.safetensors filter=lfs"}
            if wanted.get("private") or wanted.get("visibility") == "private":
                hub.private.add(name)
            self.send(json.dumps({"url": f"{self.address}/{name}", "name": name}).encode(), body=True)

        @staticmethod
        def mode(path: str) -> dict[str, str]:
            return {"path": path, "uploadMode": "lfs" if path.endswith(".safetensors") else "regular"}

        def batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
            objects = []
            for one in wanted["objects"]:
                action = {"upload": {"href": f"{self.address}/store/{one['oid']}", "header": {}}}
                objects.append({**one, **({} if one["oid"] in hub.stored else {"actions": action})})
            return {"transfer": "basic", "objects": objects}

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            oid = self.path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == oid
            hub.stored[oid] = content
            self.send(b"", body=True)

        def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
            files = dict(hub.repositories[name])
            for line in lines:
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.stored[value["oid"]]
                else:
                    assert line["key"] == "deletedFile"
                    del files[value["path"]]
            hub.repositories[name] = files
            done = {"commitUrl": f"{self.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
            self.send(json.dumps(done).encode(), body=True)

        @property
        def address(self) -> str:
            return f"http://{self.headers['Host']}"

    return Handler


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve a hub that the library then speaks with; what it saves is in the folder."""
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    # the tests run offline (tox.ini), and this hub is on this machine
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("NAPARI_PBIP_WEIGHTS", raising=False)
    monkeypatch.setattr("napari_pbip.engine.hub.TICK_SECONDS", 0.01)
    yield found
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
