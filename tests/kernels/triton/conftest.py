"""Kernels run on a GPU, or where TRITON_INTERPRET=1 asks for it, in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

from tests.kernels.triton.places import Place


@pytest.fixture
def place() -> Place:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and not torch.cuda.is_available():
        pytest.skip("no GPU, and not interpreted")
    generator = torch.Generator()
    generator.manual_seed(0) if interpreted else generator.seed()
    torch.backends.cuda.matmul.allow_tf32 = False
    dtypes = (torch.float32,) if interpreted else (torch.bfloat16, torch.float16, torch.float32)
    return Place("cpu" if interpreted else "cuda", interpreted, dtypes, generator)
