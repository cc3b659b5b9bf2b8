"""`sglc env`: what a report of a problem needs to say."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "numpy", "tokenizers", "transformers", "safetensors", "llguidance",
            "lark", "networkx", "jinja2", "pydantic", "aiohttp", "openai", "anthropic",
            "google-genai", "rich", "tqdm")
_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY")
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TRITON_INTERPRET")


def run(options: argparse.Namespace) -> int:
    """Print it, as lines or as JSON."""
    found = facts()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for part, values in found.items():
        print(part)
        for name, value in values.items():
            print(f"  {name:<18} {value}")
    return 0


def facts() -> dict[str, dict[str, Any]]:
    """Versions, the machine, its GPUs, settings, the default model.  Keys of remote APIs are only
    said to be there; nothing is fetched or opened."""
    import sglc

    return {
        "sglc": {"version": sglc.__version__, "at": str(Path(sglc.__file__).parent)},
        "system": {
            "python": f"{platform.python_version()} ({platform.python_implementation()})",
            "executable": sys.executable, "platform": platform.platform(),
            "cores": _cores(), "memory": _memory()},
        "packages": {name: _version(name) for name in PACKAGES},
        "gpu": _gpus(),
        "settings": {
            **{k: v for k, v in sorted(os.environ.items()) if k.startswith("SGLC_")},
            **{k: os.environ[k] for k in _VARIABLES if k in os.environ},
            **{k: "set" for k in _KEYS if os.environ.get(k)}},
        "model": _model()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cores() -> str:
    total = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    return str(total) if usable == total else f"{usable} of {total}"


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return "not known"
    return f"{total / 2**30:.1f} GiB"


def _gpus() -> dict[str, str]:
    """What the driver's tool says: PyTorch would take seconds to load."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap",
               "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {"none": "nvidia-smi is not here"}
    if done.returncode:
        return {"none": (done.stderr or done.stdout).strip()[:200]}
    return {str(i): line for i, line in enumerate(done.stdout.strip().splitlines())}


def _model() -> dict[str, str]:
    from sglc.runtime.weights.fetch import cache_root, default_model_path

    found = default_model_path()
    return {"default": "not fetched yet (sglc pull)" if found is None else str(found),
            "cache": str(cache_root(None))}
