"""A server of a random model with vision, for tests."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runtime.vision_models import draw, encoded, save_llava, save_tokenizer
from tests.serve.servers import Running, running

PICTURE = encoded(draw(33, 40))


def save(root: Path) -> Path:
    """The model and its tokenizer, in folders at `root`."""
    save_llava(root / "llava")
    save_tokenizer(root / "tokenizer")
    return root


@contextmanager
def seeing(root: Path, **given: Any) -> Iterator[Running]:
    """A server of the model that `save` left."""
    with running(**{"model": str(root / "llava"), "tokenizer": str(root / "tokenizer"),
                    "device": "cpu", "chat_template": "vicuna_v1.1", "kv_tokens": 2048,
                    **given}) as made:
        yield made


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + text_of(data)


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()
