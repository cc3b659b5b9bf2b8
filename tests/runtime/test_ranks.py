"""A model's parts add up to what it gives in one piece: each family, from folders and from files,
in ranks that are threads of this process; and the records that ranks get."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sglc.errors import ModelError
from sglc.runtime.batch import Batch, Row
from sglc.runtime.model_runner import load_runner
from sglc.runtime.models.shape import LlamaConfig
from sglc.runtime.parallel.channel import Channel, hung_up
from sglc.runtime.parallel.records import pack_batch, unpack_batch
from sglc.runtime.parallel.split import Split, check_split
from tests.runtime.gguf_writing import write_gguf
from tests.runtime.model_steps import alone, close, run, tokens
from tests.runtime.test_families import CASES, GGUF_CASES, GGUF_CHANGES, save_random
from tests.runtime.test_int4 import FORMATS, quantized


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- how a model is divided ----------------------------------------------------------------------

SHAPE = {"vocab_size": 64, "hidden_size": 32, "layers": 1, "rms_eps": 1e-5, "rope_theta": 1e4,
         "context_length": 64, "tied": False, "head_dim": 8}


def shape(heads: int, kv_heads: int, width: int) -> LlamaConfig:
    return LlamaConfig(heads=heads, kv_heads=kv_heads, intermediate_size=width, **SHAPE)


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 70), st.integers(1, 9))
def test_every_head_and_column_is_one_rank_s(kv: int, group: int, width: int, size: int) -> None:
    c = shape(kv * group, kv, width)
    if size > min(c.heads, width):
        with pytest.raises(ModelError, match="cannot be spread"):
            check_split(c, size, even=False)
        return
    check_split(c, size, even=False)
    heads, columns = [], []
    for rank in range(size):
        split = Split(rank, size)
        first, end = split.heads(c)
        kv_first, kv_end = split.kv_heads(c)
        heads += range(first, end)
        columns += range(*split.width(width))
        part = split.part(c)
        assert part.heads == end - first > 0 and part.kv_heads == kv_end - kv_first > 0
        each = part.heads // part.kv_heads
        for i, head in enumerate(range(first, end)):  # a query still meets its key/value head
            assert head // group == kv_first + i // each
    assert heads == list(range(c.heads)) and columns == list(range(width))


@pytest.mark.parametrize(("c", "size", "why"), [
    (shape(6, 2, 48), 4, "6 heads"), (shape(8, 2, 30), 4, "30 columns of an MLP"),
    (shape(12, 3, 48), 2, "3 key/value heads"), (shape(4, 4, 64), 8, "fewer than 8")])
def test_what_cannot_be_divided_evenly(c: LlamaConfig, size: int, why: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_split(c, size, even=True)
    assert why in str(caught.value) and caught.value.code == "SGLC504"
    fewer = int(caught.value.diagnostic.fixes[0].removeprefix("use tp="))
    check_split(c, fewer, even=False)


# -- the arithmetic, in threads ------------------------------------------------------------------


class Threads:
    """A group whose ranks are threads."""

    def __init__(self, rank: int, size: int, shared: list[Any], gate: threading.Barrier) -> None:
        self.rank, self.size = rank, size
        self._shared, self._gate = shared, gate

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        return self._each(x, lambda all_: torch.stack(all_).sum(0))

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        return self._each(x, lambda all_: all_[0])

    def _each(self, x: torch.Tensor, make: Callable[[list[Any]], torch.Tensor]) -> torch.Tensor:
        self._shared[self.rank] = x
        self._gate.wait(20)
        found = make(self._shared).clone()
        self._gate.wait(20)
        return x.copy_(found)


def groups(size: int) -> list[Threads]:
    shared, gate = [None] * size, threading.Barrier(size)
    return [Threads(rank, size, shared, gate) for rank in range(size)]


def spread_logits(path: Path, size: int, ids: np.ndarray, load: Callable[..., Any]
                  ) -> torch.Tensor:
    """Logits of a sequence in two chunks, from `size` ranks."""
    runners = [load(path, group=group)[0] for group in groups(size)]
    slots, half = np.arange(len(ids)), len(ids) // 2
    parts = [(ids[:half], 0, slots[:half]), (ids, half, slots)]

    def first() -> torch.Tensor:
        runners[0].allocate(len(ids))
        return torch.cat([run(runners[0], [part]) for part in parts])

    def follow(runner: Any) -> None:
        runner.allocate(len(ids))
        for all_ids, done, at in parts:
            n = len(all_ids) - done
            row = Row(0, n, at)
            runner.forward(unpack_batch(pack_batch(Batch(
                all_ids[done:], np.arange(done, len(all_ids)), at[done:], [row],
                np.arange(n)))))

    with ThreadPoolExecutor(size) as pool:
        others = [pool.submit(follow, runner) for runner in runners[1:]]
        logits = pool.submit(first).result(30)
        for other in others:
            other.result(30)
    return logits


def loaded_bytes(path: Path, size: int) -> list[int]:
    return [load_runner(path, group=group)[0].loaded.bytes for group in groups(size)]


@pytest.mark.parametrize("name", CASES)
def test_ranks_add_up(tmp_path: Path, name: str) -> None:
    """Each family, its queries, keys and MLPs divided evenly and not, key/value heads shared."""
    save_random(tmp_path, name)
    ids = tokens(24, 264)
    want = alone(load_runner(tmp_path)[0], ids)
    for size in (2, 3, 4):
        close(spread_logits(tmp_path, size, ids, load_runner), want, 1e-3)


@pytest.mark.parametrize("name", ["llama3", "mixtral", "qwen2_moe", "gemma2"])
def test_ranks_of_a_gguf_file_add_up(tmp_path: Path, name: str) -> None:
    assert name in GGUF_CASES
    model = save_random(tmp_path, name, **GGUF_CHANGES.get(name, {}))
    path = write_gguf(tmp_path / "model.gguf", model)
    ids = tokens(24, 264)
    want = alone(load_runner(path)[0], ids)
    for size in (2, 4):
        close(spread_logits(path, size, ids, load_runner), want, 1e-3)


@pytest.mark.parametrize("name", ["awq 32", "awq, whole rows", "gptq v2 sym act"])
def test_ranks_of_four_bits_add_up(tmp_path: Path, name: str) -> None:
    quantized(tmp_path, FORMATS[name])
    ids = tokens(24)
    want = alone(load_runner(tmp_path)[0], ids)
    for size in (2, 4):
        close(spread_logits(tmp_path, size, ids, load_runner), want, 1e-3)


def test_each_rank_reads_its_part(tmp_path: Path) -> None:
    save_random(tmp_path, "mixtral")
    whole = load_runner(tmp_path)[0].loaded.bytes
    first, second = loaded_bytes(tmp_path, 2)
    norms = 264 * 32 * 4 * 2 + 7 * 32 * 4 + 3 * 5 * 32 * 4  # ends, norms and routers
    assert first + second < whole + norms
    assert second < whole / 2


# -- records -------------------------------------------------------------------------------------


def test_records_cross_a_channel() -> None:
    ours, theirs = map(Channel, socket.socketpair())
    assert not hung_up([ours], 0.0)
    arrays = [np.arange(n) - 3 for n in (0, 1, 100_000)]  # more than a socket holds
    sender = threading.Thread(target=lambda: (theirs.send(5, *arrays), theirs.send(6)))
    sender.start()
    kind, found = ours.receive()
    assert kind == 5 and all(np.array_equal(a, b) for a, b in zip(arrays, found, strict=True))
    assert ours.receive() == (6, [])
    sender.join()
    theirs.close()
    assert hung_up([ours], 5.0)
    with pytest.raises(EOFError):
        ours.receive()
