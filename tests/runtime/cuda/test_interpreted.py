"""The device's steps by Triton's kernels, on the CPU in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent


def interpret(chosen: str, *files: str) -> None:
    """Run the tests of these names, which a GPU runs as they are, in Triton's interpreter."""
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "",
           "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         "-k", chosen, *(str(Path(__file__).parent / name) for name in files)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.slow
def test_logits_in_the_interpreter() -> None:
    interpret("logits", "test_device_runner.py", "test_deterministic.py")


def test_families_in_the_interpreter() -> None:
    """Those that between them have everything that a family may differ in."""
    interpret("logits and (mistral or qwen2_moe or gemma2)", "test_device_families.py")


@pytest.mark.slow
def test_all_families_in_the_interpreter() -> None:
    interpret("logits", "test_device_families.py")
