"""A hub of one folder on the loopback interface: the few addresses that huggingface_hub asks for a model.

The fixtures `hub_folder`, `hub_cache` and `served` are every test's, by conftest.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import models
import pytest
import torch

NAME = "some-org/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """`sent` counts the bodies of each file that went out whole; `pause`: seconds between pieces of large files.

    `more`: other names of the same model; `claims`: bytes that a file is said to have.
    """

    def __init__(
        self, name: str, folder: Path, pause: float = 0.0, parameters: int | None = None,
        more: tuple[str, ...] = (), claims: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.folder, self.pause, self.parameters = name, folder, pause, parameters
        self.names, self.claims = (name, *more), claims or {}
        self.sent: Counter[str] = Counter()
        self.begun = threading.Event()
        self.address = ""

    def info(self, name: str) -> dict[str, Any]:
        sizes = {p.name: p.stat().st_size for p in sorted(self.folder.iterdir())} | self.claims
        files = [{"rfilename": file, "size": size} for file, size in sizes.items()]
        counted = {"parameters": {"F32": self.parameters}, "total": self.parameters} if self.parameters else None
        return {
            "id": name, "modelId": name, "sha": COMMIT, "siblings": files, "private": False, "tags": [],
            **({"safetensors": counted} if counted else {}),
        }  # fmt: skip


@contextlib.contextmanager
def hub(name: str, folder: Path, **options: Any) -> Iterator[Hub]:
    """Serve `folder` as the model `name` until the block ends."""
    double = Hub(name, folder, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            asked = next((one for one in double.names if f"/{one}/" in f"{path}/"), name)
            if path.startswith(f"/api/models/{asked}") and ("/revision/" in path or path == f"/api/models/{asked}"):
                return self.send(json.dumps(double.info(asked)).encode(), {"Content-Type": "application/json"}, body)
            file = double.folder / path.rsplit("/", 1)[-1]
            if f"/{asked}/resolve/" in path and file.is_file():
                return self.send_file(file, body)
            self.send(b"{}", {"X-Error-Code": "RepoNotFound"}, body, 404)

        def send(self, data: bytes, headers: dict[str, str], body: bool, status: int = 200) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def send_file(self, file: Path, body: bool) -> None:
            data = file.read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}
            if not body:
                return self.send(data, headers, body)
            self.send(data, headers, body=False)
            with contextlib.suppress(OSError):  # the other side may hang up
                for start in range(0, len(data), 4096):
                    self.wfile.write(data[start : start + 4096])
                    self.wfile.flush()
                    if double.pause and file.suffix == ".safetensors":
                        double.begun.set()
                        time.sleep(double.pause)
                double.sent[file.name] += 1

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    double.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A model in six shards, with files beside it that nobody needs."""
    path = tmp_path_factory.mktemp("hub")
    model = models.small("llama", torch.float32)
    model.hf.save_pretrained(path, max_shard_size="20KB")
    model.tokenizer.save_pretrained(path)
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04N." * 999)
    (path / "README.md").write_text("not needed")
    return path


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache, for this process and for its children."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "cache"), raising=False)
    return tmp_path / "cache"


@pytest.fixture
def served(hub_folder, hub_cache, monkeypatch):
    """`with served() as double`: a hub with the model, which this process and its children ask."""

    @contextlib.contextmanager
    def serve(**options):
        with hub(NAME, hub_folder, **options) as double:
            address(double)
            yield double

    def address(double):
        monkeypatch.setenv("HF_ENDPOINT", double.address)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", double.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            double.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("visit.models.hub.HfApi", lambda: __import__("huggingface_hub").HfApi(double.address))

    return serve
