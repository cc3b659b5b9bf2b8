"""The device's engine against the CPU's: the same model, the same requests, the same ids.

By default on the CPU with the reference kernels; with the marker `gpu`, on a GPU with Triton's,
by graphs and without.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sglc
from sglc import grammar
from sglc.errors import SglcError
from sglc.runtime.batch import Batch, Row
from sglc.runtime.cuda.graphs import bucket
from sglc.runtime.cuda.load import load_device_runner
from sglc.runtime.cuda.page_table import PageTable
from sglc.runtime.cuda.runner import DeviceRunner
from sglc.runtime.cuda.simple_draws import Drawing
from sglc.runtime.engine import EngineCore
from sglc.runtime.model_runner import load_runner
from sglc.runtime.models.config import config_from_hf
from sglc.runtime.request import Request, Result
from sglc.runtime.step import Step
from tests.runtime.common import TOKENIZER, Pending, ask, request

TINY = {"model_type": "llama", "vocab_size": 264, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 5000.0}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = [pytest.param(("cpu" if INTERPRETED else "cuda", "triton", graphs), marks=pytest.mark.gpu,
                    id=f"triton, {'graphs' if graphs else 'eager'}")
       for graphs in ((False,) if INTERPRETED else (False, True))]
PLACES = [pytest.param(("cpu", "torch", False), id="torch"), *GPU]


def save_model(path: Path, spread: float = 0.1, **changes: Any) -> Path:
    """A random small model in Hugging Face's form, whose weights every type can hold."""
    config = {**TINY, **changes}
    (path / "config.json").write_text(json.dumps(config))
    random = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(shape, generator=random) * spread + (len(shape) == 1)
               for name, shape in config_from_hf(config).tensor_shapes().items()}
    save_file({name: w.bfloat16().float() for name, w in weights.items()},
              path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cpu(tiny: Path) -> Iterator[EngineCore]:
    with EngineCore(load_runner(tiny)[0], TOKENIZER, kv_tokens=8000) as core:
        yield core


def device_runner(path: Path, place: tuple[str, str, bool], dtype: str = "float32"
                  ) -> DeviceRunner:
    device, kernels, graphs = place
    return load_device_runner(path, device=device, kernels=kernels, dtype=dtype, graphs=graphs,
                              max_tokens=512, max_rows=64)[0]


def device_core(path: Path, place: tuple[str, str, bool], **options: Any) -> EngineCore:
    return EngineCore(device_runner(path, place), TOKENIZER,
                      **{"kv_tokens": 8000, "max_running": 64, **options})


def the_same(asked: list[Request], got: list[Result], want: list[Result]) -> None:
    for one, a, b in zip(asked, got, want, strict=True):
        assert a.error is None and b.error is None, (a.error, b.error)
        assert (a.ids, a.text, a.finish_reason) == (b.ids, b.text, b.finish_reason), one.sampling
        for p, q in zip(a.logprobs or (), b.logprobs or (), strict=True):
            assert p == pytest.approx(q, abs=2e-3)
        for p, q in zip(a.top_logprobs or (), b.top_logprobs or (), strict=True):
            assert [i for _, i in p] == [i for _, i in q]


def mixed() -> list[Request]:
    """Requests of every kind that share prefixes, plain ones first."""
    text = "The quick brown fox jumps over the lazy dog. "
    plain = [request(text[:5 + i] + str(i % 3), max_tokens=4 + 3 * i, ignore_eos=i % 2 == 0,
                     temperature=0.0 if i % 3 else 1.0, key=i << 40 | i) for i in range(8)]
    return [
        *plain,
        request(text, max_tokens=12, temperature=0.9, top_k=20, top_p=0.8, min_p=0.01, key=5),
        request(text, max_tokens=12, temperature=0.7, repetition_penalty=1.3, key=6),
        request(text, max_tokens=12, temperature=0.0, frequency_penalty=0.5,
                presence_penalty=0.3),
        request(text, max_tokens=12, temperature=0.0, logprobs=True, top_logprobs=3),
        request(text, max_tokens=12, temperature=1.0, min_tokens=6, stop_token_ids=(65, 257)),
        request(text, max_tokens=20, temperature=1.0, stop=("e", "a")),
        request(text * 3, "score", score_from=40), request(text, "score", score_from=1),
        request(text * 2, "prefill"),
        request(text, max_tokens=30, temperature=1.0, key=9,
                constraint=grammar.compile(regex=r"[a-f]{3,6}(, and then|; or else) [0-9]{2}",
                                           tokenizer=TOKENIZER)),
        request(text, max_tokens=30, temperature=0.0,
                constraint=grammar.compile(regex=r"(yes|no|maybe)( indeed)?",
                                           tokenizer=TOKENIZER)),
    ]


@pytest.mark.parametrize("place", PLACES)
def test_ids_equal_those_of_the_cpu(tiny: Path, cpu: EngineCore, place: tuple) -> None:
    with device_core(tiny, place) as core:
        for _ in range(2):  # the second time with everything cached
            asked = mixed()
            the_same(asked, ask(core, asked), ask(cpu, mixed()))
        for n in (1, 3, 8):  # plain requests only: steps overlap
            the_same(mixed()[:n], ask(core, mixed()[:n]), ask(cpu, mixed()[:n]))
        for one, want in zip(mixed(), [ask(cpu, [m])[0] for m in mixed()], strict=True):
            the_same([one], ask(core, [one]), [want])
        core.wait_idle()
        core.check()
        assert core.stats().kv_in_use == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", [
    {"kv_tokens": 200}, {"max_batch_tokens": 7, "max_running": 3}, {"policy": "fcfs-lru"},
    {"policy": "vllm-apc"}, {"radix_cache": False}, {"jump_forward": "off"}], ids=str)
def test_whatever_the_schedule(tiny: Path, cpu: EngineCore, place: tuple, options: Any) -> None:
    with device_core(tiny, place, **options) as core:
        asked = mixed()
        the_same(asked, ask(core, asked), ask(cpu, mixed()))
        core.wait_idle()
        core.check()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_constraints_by_tables(tiny: Path, cpu: EngineCore, place: tuple, patience: float
                               ) -> None:
    """Masks from the device's tables, ahead of tokens and not, some of them evicted again."""
    patterns = [r"[a-f]{3,6}(, and then|; or else) [0-9]{2}", r"(yes|no|maybe)( indeed)?",
                r"[a-z ]{5,40}", r'\{"a": "[^"]{1,20}", "b": [0-9]{1,3}\}']
    rules = [grammar.compile(regex=p, tokenizer=TOKENIZER) for p in patterns]

    def asked() -> list[Request]:
        plain = [request(f"{i} of ", max_tokens=9 + i, key=i, ignore_eos=True) for i in range(3)]
        return plain + [
            request("and " * (i % 3) + "so", max_tokens=12 + i, key=i, temperature=i % 3 * 0.6,
                    min_tokens=i % 4, top_k=50 if i % 5 == 0 else -1, constraint=rules[i % 4],
                    repetition_penalty=1.2 if i == 11 else 1.0) for i in range(20)]

    with device_core(tiny, place) as core:
        loop = core._loop
        loop.scheduler.patience = patience
        loop._admission.rules.uses = 1
        loop._admission.rules._aside = lambda make: make()
        tables = loop._launcher._sampler._tables
        tables._limit = 12_000  # not enough for all of them
        loop._launcher.timeline = []
        for n in (3, 23):
            the_same(asked()[:n], ask(core, asked()[:n]), ask(cpu, asked()[:n]))
        assert tables.packed is not None
        the_same(asked()[5:6] * 1, ask(core, asked()[5:6]), ask(cpu, asked()[5:6]))
        ahead = [t for t in loop._launcher.timeline if t.ahead and t.rows > 3]
        assert bool(ahead) or not patience
        core.wait_idle()
        core.check()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_constraints_in_the_pass(tiny: Path, cpu: EngineCore, place: tuple, patience: float
                                 ) -> None:
    """Masks and where tokens lead, in the model's own pass, whose graphs stay as they are while
    tables come, go and are moved."""
    patterns = [r"[a-f]{3,6}(, and then|; or else) [0-9]{2}", r"[a-z ]{5,30}",
                r"(yes|no|maybe)( indeed)?[a-z]{4}", r'\{"a": "[^"]{1,20}", "b": [0-9]{1,3}\}']
    rules = [grammar.compile(regex=p, tokenizer=TOKENIZER) for p in patterns]

    def asked(*which: int) -> list[Request]:
        plain = [request(f"{i} of ", max_tokens=9 + i, key=i, ignore_eos=True) for i in range(3)]
        return plain + [
            request("and " * (i % 3) + "so", max_tokens=20 + i, key=i, temperature=i % 3 * 0.6,
                    constraint=rules[which[i % len(which)]]) for i in range(13)]

    with device_core(tiny, place) as core:
        loop, runner = core._loop, core.runner
        loop.scheduler.patience = patience
        loop._admission.rules.uses = 1
        loop._admission.rules._aside = lambda make: make()
        sampler, launcher = loop._launcher._sampler, loop._launcher
        sampler._tables._limit = 12_000  # not enough for all of them
        simple = launcher._simple
        made, again, of = [], [], simple.of

        def told(step: Step) -> Drawing | None:
            last = simple._last
            made.append(of(step))
            again.append(last is not None and simple._last is last)
            return made[-1]

        simple.of = told
        memory = set()
        for which in ((0,), (0, 1), (1, 2, 3), (0, 2), (3,), (0,), (0, 1, 2, 3)):
            before = len(made)
            the_same(asked(*which), ask(core, asked(*which)), ask(cpu, asked(*which)))
            if len(which) < 4:  # all tables fit
                assert sum(d is not None and d.masked for d in made[before:]) > 5
            memory.add(sampler._tables.packed.words.data_ptr())
        assert len(memory) == 1
        assert sum(d.masked for d, same in zip(made, again, strict=True) if same) > 5
        if place[2]:
            assert sum(shape.masked for shape in runner._graphs._known) > 2
        core.wait_idle()
        core.check()


@pytest.mark.parametrize("place", PLACES)
def test_many_rows_of_one_prefix(tiny: Path, cpu: EngineCore, place: tuple) -> None:
    def asked() -> list[Request]:
        return [request("a long beginning that all of them share: " * 4 + chr(97 + i % 26),
                        max_tokens=10, temperature=i % 2, key=i, ignore_eos=True)
                for i in range(40)]

    with device_core(tiny, place) as core:
        the_same(asked(), ask(core, asked()), ask(cpu, asked()))


@pytest.mark.parametrize("place", PLACES)
def test_cancelled_and_closed(tiny: Path, place: tuple) -> None:
    with device_core(tiny, place) as core:
        asked = [request(f"number {i}: ", max_tokens=300, ignore_eos=True) for i in range(6)]
        pending = Pending(core, asked)
        core.cancel(asked[:3])
        codes = [r.error and r.error.code for r in pending.wait()]
        assert codes == ["SGLC506"] * 3 + [None] * 3
        core.wait_idle()
        core.check()
        pending = Pending(core, [request("and", max_tokens=400, ignore_eos=True)])
    assert pending.wait()[0].error.code == "SGLC503"  # type: ignore[union-attr]


@pytest.mark.parametrize("changes", [
    {}, {"tie_word_embeddings": True}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1},
    {"head_dim": 32}], ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_logits_of_every_shape(tmp_path: Path, place: tuple, changes: dict[str, Any]) -> None:
    path = save_model(tmp_path, **changes)
    ids = np.random.default_rng(0).integers(0, 264, 60)
    slots = np.random.default_rng(1).permutation(100)[:60]
    parts = [(0, 33), (33, 34), (34, 60)]  # a prefill, a decode, a chunk
    exact = load_runner(path)[0]
    exact.allocate(100)
    limit = {"float32": 1e-4, "bfloat16": 2e-2, "float16": 2e-2}
    for dtype, tolerance in limit.items():
        if dtype == ("bfloat16" if INTERPRETED else "float16") and place[0] == "cpu":
            continue  # one is slow on the CPU, the other wrong in Triton's interpreter
        runner = device_runner(path, place, dtype)
        runner.allocate(100)
        for start, end in parts:
            batch = Batch(ids[start:end], np.arange(start, end), slots[start:end],
                          [Row(0, end - start, slots[:end])], np.arange(end - start))
            want = exact.logits(exact.forward(batch))
            hidden = runner.forward(batch)
            got = runner.logits(hidden).cpu()
            assert (got - want).abs().max() <= tolerance * want.abs().max(), (dtype, start)
            some = np.array([3, 77, 200])
            few = runner.logits_of(hidden, some).cpu()
            assert (few - want[:, some]).abs().max() <= tolerance * want.abs().max()
        runner.close()


def test_places_are_taken_back() -> None:
    class Owner:
        known, finished = 0, False

    table = PageTable(3, 10, torch.device("cpu"))
    owners = [Owner() for _ in range(5)]
    contexts = {o: np.random.default_rng(i).integers(0, 99, 10) for i, o in enumerate(owners)}
    rng = np.random.default_rng(0)
    length = dict.fromkeys(owners, 1)
    for step in range(60):
        owners[step % 5].finished = step % 7 == 0
        some = [owners[i] for i in rng.permutation(5)[:3]]
        rows = [Row(0, 1, contexts[o][:length[o]], o) for o in some]
        offsets = table.offsets(rows)
        assert len(set(offsets.tolist())) == 3
        for offset, row in zip(offsets, rows, strict=True):
            table.host[offset + len(row.context) - 1] = row.context[-1]
            table.device[offset + len(row.context) - 1] = int(row.context[-1])
            for slots in (table.host, table.device.numpy()):
                assert np.array_equal(slots[offset:offset + len(row.context)], row.context)
        for o in some:
            length[o] = min(10, length[o] + 1)


def test_buckets() -> None:
    assert [bucket(n) for n in (1, 3, 16, 17, 1024)] == [1, 4, 16, 32, 1024]


def test_what_cannot_be_opened(tiny: Path) -> None:
    for options, what in (({"device": "tpu"}, "not supported"), ({"mem_fraction": 0}, "SGLC004"),
                          ({"mem_fraction": 1.5}, "SGLC004"), ({"mem_fraction": "1"}, "SGLC004"),
                          ({"device": "cpu", "load_format": "dummy"}, "needs a GPU")):
        with pytest.raises(SglcError, match=what):
            sglc.Engine(tiny, **options)
    if not torch.cuda.is_available():
        with pytest.raises(SglcError, match="no GPU"):
            sglc.Engine(tiny, device="cuda")
    with pytest.raises(SglcError, match="load_format"):
        load_device_runner(tiny, device="cpu", load_format="quick")
    with pytest.raises(SglcError, match="dtype"):
        load_device_runner(tiny, device="cpu", dtype="int4")


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="needs a GPU's memory")
def test_memory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(SglcError, match="no room for KV"):
        sglc.Engine(tmp_path, device="cuda", load_format="dummy", mem_fraction=0.001)
    with pytest.raises(SglcError, match="does not fit the GPU"):
        sglc.Engine(tmp_path, device="cuda", load_format="dummy", kv_tokens=1 << 32)
    with sglc.Engine(tmp_path, device="cuda", load_format="dummy", mem_fraction=0.3) as engine:
        assert engine.stats().kv_total > 100_000
        out = engine.generate(input_ids=[[1, 2, 3]] * 3, sampling={"max_new_tokens": 9})
        assert [len(o.ids) for o in out] == [9] * 3 or all(o.finish_reason for o in out)
    with sglc.Engine(tmp_path, device="cuda", load_format="dummy", kv_tokens=64) as engine:
        rows = [[i % 200, 5, 7] for i in range(100)]  # far more than the pool holds
        out = engine.generate(input_ids=rows, sampling={"max_new_tokens": 50, "ignore_eos": True})
        assert [len(o.ids) for o in out] == [50] * 100
        with pytest.raises(SglcError, match="SGLC502"):
            engine.generate(input_ids=[list(range(100))])


@pytest.mark.parametrize(("capability", "named", "chosen"), [
    ((7, 5), "bfloat16", "float16"), ((7, 0), None, "float16"), ((7, 5), "float32", "float32"),
    ((8, 0), "bfloat16", "bfloat16"), ((9, 0), None, "bfloat16")])
def test_automatic_type(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int],
                        named: str | None, chosen: str) -> None:
    """GPUs without bfloat16 get float16, as SGLang has it."""
    from sglc.runtime.cuda.load import _auto_dtype

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert _auto_dtype({"torch_dtype": named}, torch.device("cuda", 0)) == chosen
    assert _auto_dtype({"torch_dtype": named}, torch.device("cpu")) == (named or "bfloat16")
