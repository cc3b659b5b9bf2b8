"""Models by hub id, through the library huggingface_hub, from a server on this machine that speaks
the hub's API: only what is needed is fetched, once; what goes wrong is said plainly."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from sglc.backends.engine import resolve_model
from sglc.errors import ModelError
from sglc.runtime.weights.hub import HubId, hub_id, is_hub_id
from tests.tokens.test_tokenizer_json import _sentence_piece

pytest.importorskip("huggingface_hub")

ROOT = Path(__file__).parents[2]
OPENING = """
import sys, sglc
with sglc.Engine(sys.argv[1], device="cpu", kv_tokens=64) as engine:
    print(engine.generate("the a", sampling={"max_new_tokens": 5, "temperature": 0}).ids)
"""
CHILD = """
import json, sys
from sglc.backends.engine import resolve_model
from sglc.errors import ModelError
models, weights = json.loads(sys.argv[1])
out = []
for model in models:
    try:
        out.append(str(resolve_model(model, weights=weights)))
    except ModelError as e:
        out.append(str(e))
print(json.dumps(out))
"""

MODEL = {name: name.encode() for name in (
    "config.json", "tokenizer.json", "tokenizer_config.json", "model-1.safetensors",
    "model-2.safetensors", "model.safetensors.index.json", "LICENSE")}
UNWANTED = dict.fromkeys((
    "pytorch_model.bin", "modeling.py", "optimizer.pt", "weights.pkl", "consolidated.safetensors",
    "original/model.safetensors", "onnx/model.onnx", "README.md", "training_args.json"), b"no")
REPOS = {
    "owner/name": {"main": MODEL | UNWANTED, "old": MODEL | {"config.json": b"old"}},
    "owner/one": {"main": {"one-Q4.gguf": b"GGUF one", "README.md": b"", "config.json": b"{}"}},
    "owner/many": {"main": {"a.gguf": b"GGUF a", "b.gguf": b"GGUF b"}},
    "owner/pickles": {"main": {"pytorch_model.bin": b"", "config.json": b"{}"}},
}


def commit(repo: str, revision: str) -> str:
    return hashlib.sha1(f"{repo} {revision}".encode()).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's API that downloads use."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def log_message(self, *args: Any) -> None: ...

    def _answer(self, body: bool) -> None:
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if path[:2] == ["api", "models"]:
            repo, rest = "/".join(path[2:4]), path[4:]
            kind, revision = rest[0] if rest else "revision", rest[1] if rest[1:] else "main"
        else:
            repo, kind, revision = "/".join(path[:2]), path[2], path[3]
        if repo == "owner/gated":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        found = {name: files for r, files in self.server.repos.get(repo, {}).items()
                 for name in (r, commit(repo, r))}
        if not found:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        if revision not in found:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        files = found[revision]
        sha = revision if len(revision) == 40 else commit(repo, revision)
        if kind == "revision":
            return self._json({"id": repo, "sha": sha, "siblings": [
                {"rfilename": name} for name in files]}, body)
        if kind == "tree":
            return self._json([{"type": "file", "path": name, "size": len(data),
                                "oid": hashlib.sha1(data).hexdigest()}
                               for name, data in files.items()], body)
        name = "/".join(path[4:])
        if name not in files:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        if body:
            self.server.sent.append(f"{repo}@{sha[:6]}/{name}")
        tag = hashlib.sha1(files[name]).hexdigest()
        return self._send(200, files[name], {"ETag": f'"{tag}"', "X-Repo-Commit": sha}, body)

    def _json(self, value: Any, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """sent: the files whose contents were sent, as `repo@commit/name`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.sent: list[str] = []
        self.repos: dict[str, dict[str, dict[str, bytes]]] = dict(REPOS)


@dataclass(frozen=True)
class Client:
    """A process that opens models, with the library's settings from its environment."""

    folder: Path
    endpoint: str

    def run(self, script: str, argument: str) -> str:
        """What a script prints."""
        run = subprocess.run(
            [sys.executable, "-c", script, argument], cwd=self.folder, capture_output=True,
            text=True, check=True, timeout=120,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": self.endpoint,
                 "HF_HOME": str(self.folder / "cache"), "HF_HUB_DISABLE_XET": "1"})
        (self.folder / "stderr").write_text(run.stderr)
        return run.stdout

    def open(self, *models: str, weights: bool = True) -> list[str]:
        """The path of each, or the error's text."""
        out: list[str] = json.loads(self.run(CHILD, json.dumps([models, weights])))
        return out


@pytest.fixture
def hub() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def client(hub: Server, tmp_path: Path) -> Client:
    return Client(tmp_path, f"http://127.0.0.1:{hub.server_port}")


def names(folder: str) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if not p.is_dir()}


def check(text: str, *words: str) -> None:
    """It is an error, and says all of these."""
    for word in ("SGLC504", *words):
        assert word in text, text


def test_what_is_a_hub_id() -> None:
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "a/b/c.gguf", "a/b/sub/c-Q4.gguf",
                 "a/b@main", "a/b/c.gguf@v1.0"):
        assert is_hub_id(name)
    for name in ("a", "./a/b", "/a/b", "~/a/b", "../a", "a/..", "a/b/c", "a/../b/c.gguf", "a//b",
                 "no/such/model", "", "a/b@", "a/b@../c", "a@b"):
        assert not is_hub_id(name)
    assert hub_id("a/b/c/d.gguf@refs/pr/1") == HubId("a/b", "c/d.gguf", "refs/pr/1")


def test_what_is_needed_is_fetched_once(hub: Server, client: Client) -> None:
    (folder,) = client.open("owner/name")
    assert names(folder) == set(MODEL)
    assert all((Path(folder) / name).read_bytes() == data for name, data in MODEL.items())
    assert len(hub.sent) == len(MODEL)
    assert "100%" in (client.folder / "stderr").read_text()  # progress
    sha, old_sha = commit("owner/name", "main"), commit("owner/name", "old")
    *same, old, old_at, none = client.open("owner/name", f"owner/name@{sha}", "owner/name@old",
                                           f"owner/name@{old_sha}", "owner/name@none")
    assert same == [folder, folder] and old_at == old != folder
    assert len(hub.sent) == len(MODEL) + 1  # what differs
    assert (Path(old) / "config.json").read_bytes() == b"old"
    check(none, "owner/name", "no revision 'none'")

    away = Client(client.folder, "http://127.0.0.1:9")  # nobody listens there
    begin = time.monotonic()
    again, other = away.open("owner/name", "owner/many")
    assert time.monotonic() - begin < 20
    assert again == folder
    check(other, "'owner/many'", "no network", away.endpoint,
          "hf download owner/many --local-dir FOLDER", "HF_ENDPOINT")


def test_gguf_files_and_what_the_hub_does_not_have(hub: Server, client: Client) -> None:
    one, b, many, missing, pickles, none, gated = client.open(
        "owner/one", "owner/many/b.gguf@main", "owner/many", "owner/many/c.gguf", "owner/pickles",
        "owner/none", "owner/gated")
    assert Path(one).read_bytes() == b"GGUF one" and Path(b).read_bytes() == b"GGUF b"
    check(many, "2 GGUF files", "a.gguf, b.gguf", "owner/many/a.gguf")
    check(missing, "owner/many", "no file 'c.gguf'")
    check(pickles, "pytorch_model.bin", "never from pickles")
    check(none, "the hub has none of the name 'owner/none'")
    check(gated, "owner/gated", "hf auth login")
    assert not any(name.endswith((".bin", "a.gguf")) for name in hub.sent)


def test_tokenizers_come_without_weights(client: Client) -> None:
    (folder,) = client.open("owner/name", weights=False)
    assert names(folder) == {"tokenizer.json", "tokenizer_config.json"}


def test_a_folder_that_is_there_comes_first(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model("owner/name") == Path("owner/name")


@pytest.mark.slow
def test_an_engine_of_a_hub_model(hub: Server, client: Client, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    made = tmp_path / "made"
    tokenizer = _sentence_piece()
    transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(tokenizer["model"]["vocab"]), hidden_size=32, intermediate_size=48,
        num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64)
    ).save_pretrained(made)
    (made / "tokenizer.json").write_text(json.dumps(tokenizer))
    hub.repos["owner/tiny"] = {"v1": {p.name: p.read_bytes() for p in made.iterdir()}}
    assert client.run(OPENING, "owner/tiny@v1") == client.run(OPENING, str(made)) != ""


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="pip install huggingface_hub"):
        resolve_model("owner/name")
