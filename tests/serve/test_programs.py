"""`/v1/programs` and `RuntimeEndpoint`: on a server, programs give what they give here."""

from __future__ import annotations

import asyncio
import random
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sglc
from sglc import ir
from sglc.errors import ApiError, CapabilityError, LanguageError
from tests.corpus import test_corpus as corpus
from tests.footguns.failing_programs import ListWriter, Writer, load, outcome
from tests.serve.servers import Running, running
from tests.test_examples import READMES, example

SAMPLED: dict[str, Any] = {"seed": 5, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def runtime() -> Iterator[Any]:
    with sglc.Runtime("hash", random_seed=0) as made:
        yield made
        assert made.backend.core.wait_idle(20) and made.stats().kv_in_use == 0


def seen(state: Any, variables: bool = True) -> Any:
    error = state.error()
    if error is not None:
        return type(error).__name__, getattr(error, "code", None)
    return (state.text(), state.messages(), {n: state[n] for n in sorted(
        state.variable_names(), key=repr)} if variables else None)


@pytest.mark.parametrize("name", READMES)
def test_readme_programs_through_an_endpoint(runtime: Any, name: str) -> None:
    case, program = example(name)
    rows = case.rows
    for options in (SAMPLED, {**SAMPLED, "temperature": 0}):
        here = program.run_batch(rows, backend=runtime, **options)
        there = program.run_batch(rows, backend=runtime.endpoint, **options)
        if name != "json_decode":  # its schema is read with Python, here
            assert all(type(s).__name__ == "RemoteState" for s in there)
            assert [s.token_ids() for s in here] == [s.token_ids() for s in there]
            assert [seen(s) for s in here] == [seen(s) for s in there]


def test_the_corpus_through_an_endpoint(runtime: Any) -> None:
    """Programs of the corpus (all of them in the slow run) that a server runs as one unit."""
    sent = 0
    names = corpus.NAMES if corpus.SLOW else corpus.NAMES[::5]
    for name in names:
        spec, _ = corpus.PROGRAMS[name]
        rng = random.Random(name)
        rows = [spec.arguments(rng) for _ in range(3)]
        if not _plain(spec.program, rows):
            continue
        here = spec.program.run_batch(rows, backend=runtime, **SAMPLED)
        there = spec.program.run_batch(rows, backend=runtime.endpoint, **SAMPLED)
        sent += any(type(s).__name__ == "RemoteState" for s in there)
        if all(type(s).__name__ == "RemoteState" for s in there):
            assert [seen(s) for s in here] == [seen(s) for s in there], name
    assert sent >= len(names) // 4


def _plain(program: Any, rows: list[Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        variants = [program.compiler().variant(v) for v in program.signature.rows(rows)]
    return all(v.trace is not None and not v.trace.calls for v in variants)


def test_a_batch_is_one_request(runtime: Any) -> None:
    _, program = example("text_qa_batch")
    rows = [{"question": f"question {i}?"} for i in range(40)]
    before = _answers(runtime)
    there = program.run_batch(rows, backend=runtime.endpoint, **SAMPLED)
    assert _answers(runtime) == before + 1
    here = program.run_batch(rows, backend=runtime, **SAMPLED)
    assert [s["answer"] for s in here] == [s["answer"] for s in there]


def _answers(runtime: Any) -> float:
    registry = runtime._server.service.metrics.registry
    return registry.get_sample_value("sglc:http_requests_total", {
        "model_name": "hash", "path": "/v1/programs", "status": "200"}) or 0.0


def look(text: str) -> str:
    return text[:2]


@sglc.program
def hosted(s: Any, q: str) -> None:
    s += sglc.user(q)
    s += sglc.assistant(sglc.gen("a", max_tokens=12))
    s += look(s["a"]) + sglc.select("c", choices=["x", "yy", "zz"])


def test_programs_that_call_python_run_here_on_plain_calls(runtime: Any) -> None:
    here = hosted.run(q="hello", backend=runtime, seed=1, temperature=0)
    there = hosted.run(q="hello", backend=runtime.endpoint, seed=1, temperature=0)
    assert type(there).__name__ == "CompiledState"
    assert here.messages() == there.messages()  # as text, prompts show the control tokens
    assert (here["a"], here["c"]) == (there["a"], there["c"])
    module = hosted.trace(q="hello")
    with pytest.raises(ApiError, match="calls Python"):
        runtime.endpoint.http.call("POST", "/v1/programs",
                                   {"ir": ir.print(module), "rows": [{"q": "x"}]})


def test_an_sglang_server_gets_plain_calls(runtime: Any) -> None:
    with sglc.RuntimeEndpoint(runtime.url) as endpoint:
        endpoint.is_sglc = False  # as a server that has no /v1/programs
        for name in ("tool_use", "multi_turn_question", "regular_expression_gen"):
            case, program = example(name)
            rows = case.rows
            for row in rows:
                here = program.run(backend=runtime, temperature=0, max_new_tokens=24, **row)
                there = program.run(backend=endpoint, temperature=0, max_new_tokens=24, **row)
                assert seen(here)[1:] == seen(there)[1:]
                assert name == "multi_turn_question" or here.text() == there.text()


def test_streams_through_an_endpoint(runtime: Any) -> None:
    _, program = example("text_qa_stream")
    row = {"question": "What?", "temperature": 0, "max_new_tokens": 24}
    state = program.run(backend=runtime.endpoint, stream=True, **row)
    assert "".join(state.text_iter()) == program.run(backend=runtime, **row).text()


def test_errors_of_rows_and_of_the_program(runtime: Any) -> None:
    @sglc.program
    def divide(s: Any, n: int) -> None:
        s += "x" + sglc.gen("a", max_tokens=3)
        s += str(10 // n)

    assert type(divide.run(n=5, backend=runtime.endpoint)).__name__ == "RemoteState"
    here = divide.run_batch([{"n": 2}, {"n": 0}], backend=runtime, seed=1)
    there = divide.run_batch([{"n": 2}, {"n": 0}], backend=runtime.endpoint, seed=1)
    assert [type(s.error()) for s in here] == [type(s.error()) for s in there]
    assert here[0].text() == there[0].text()
    state = divide.run(n=5, backend=runtime.endpoint)
    with pytest.raises(KeyError):
        state["nothing"]
    with pytest.raises(LanguageError):
        state += "more"


def post(server: Running, text: str, rows: Any = ({},), **more: Any) -> Any:
    status, answer, _ = server.post("/v1/programs", {"ir": text, "rows": list(rows), **more})
    return status, answer["error"]["code"] if status != 200 else answer["rows"]


GEN = """program @p(%x: !text) returns ("a") {
  %p0 = prompt.root
  %p1 = prompt.append %p0, %x
  %p2, %a: !text, %m = prompt.gen %p1 {name = "a", path = [0], max_tokens = 5}
  prompt.bind %a {name = "a"}
  prompt.return %p2
}
"""


def test_what_is_left_of_rows_that_fail(runtime: Any) -> None:
    def p(s: Any, q: str) -> None:
        s += "Q: "
        f = s.fork(1)[0]
        f += sglc.gen("a", regex="[a-z]{2}") + q
        s["before"] = 1
        c = empty(q)
        s += q + f["a"]
        s += c["c"]
        s["after"] = 2
        s += "end"

    program = sglc.program(p)
    for rows in ([{"q": ""}, {"q": "x"}], [{"q": "y"}]):
        here = program.run_batch(rows, backend=runtime, **SAMPLED)
        there = program.run_batch(rows, backend=runtime.endpoint, **SAMPLED)
        for a, b in zip(here, there, strict=True):
            assert type(b).__name__ == "RemoteState" and seen(a) == seen(b)
            assert (a.text(), a.token_ids(), a["before"]) == (b.text(), b.token_ids(), b["before"])
            assert a.variable_names() == b.variable_names()
    assert [s.error() is None for s in here] == [True]


@pytest.mark.parametrize("writer", [Writer, ListWriter])
def test_what_is_left_of_random_rows(writer: Any, runtime: Any, tmp_path: Path) -> None:
    sent = 0
    for seed in range(12):
        written = writer(seed)
        written.host_calls = False
        program = sglc.program(load(written, tmp_path).prog)
        rows: list[Any] = [("x", ["x", ""]), ("", ["", "y"])]
        if writer is Writer:
            rows = [row[:1] for row in rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            here, there = (program.run_batch(rows, backend=backend, seed=3)
                           for backend in (runtime, runtime.endpoint))
        for a, b in zip(here, there, strict=True):
            if type(b).__name__ == "RemoteState":  # else it ran here, call by call
                sent += 1
                assert list(outcome(a).items()) == list(outcome(b).items()), written.text
    assert sent > 8


@sglc.program
def empty(s: Any, q: str) -> None:
    s += q + sglc.gen("c", max_tokens=2)


def test_ir_text_by_hand(server: Running) -> None:
    status, rows = post(server, GEN, [{"x": "hello"}, {"x": "more"}], options={"temperature": 0})
    assert status == 200 and rows[0]["text"].startswith("hello")
    _, answer, _ = server.post("/generate", {"text": ["hello", "more"], "sampling_params": {
        "max_new_tokens": 5, "temperature": 0}})
    assert [dict(r["variables"])["a"] for r in rows] == [a["text"] for a in answer]


@pytest.mark.parametrize(("text", "rows", "code"), [
    ("nonsense", [{}], "invalid_program"), (GEN + GEN.replace("@p", "@q"), [{"x": ""}],
                                            "invalid_program"),
    (GEN, [{"y": "x"}], "invalid_value"), (GEN, [{"x": {"$tuple": 5}}], "invalid_value"),
    (GEN.replace("max_tokens = 5", "stop_regex = [\"(a+)+$\"]"), [{"x": "y"}], "unsupported"),
    (GEN.replace("max_tokens = 5", 'regex = "("'), [{"x": "y"}], "invalid_regex"),
    (GEN.replace("max_tokens = 5", "n = 100000"), [{"x": "y"}], "invalid_value"),
])
def test_programs_that_make_no_sense(server: Running, text: str, rows: Any, code: str) -> None:
    assert post(server, text, rows) == (400, code)


def bomb(line: str) -> str:
    return GEN.replace("  %p1 = ", line + "\n  %p1 = ").replace("%p0, %x", "%p0, %t")


@pytest.mark.parametrize("line", [
    '  %n: !int = prompt.compute %x {fn = "len"}\n'
    '  %t: !text = prompt.compute %x, %n {fn = "repeat"}',
    '  %t: !text = prompt.compute %x, 100000000 {fn = "repeat"}',
    '  %t: !text = prompt.format %x {parts = [[0, "", ">900000000"]]}',
    '  %t: !text = prompt.compute %x, 900000000 {fn = "text.ljust"}',
    '  %t: !text = prompt.compute "{0.__class__}", %x {fn = "text.format"}',
    "\n".join(['  %t0: !text = prompt.compute %x, %x {fn = "concat"}',
               *[f'  %t{i}: !text = prompt.compute %t{i - 1}, %t{i - 1} {{fn = "concat"}}'
                 for i in range(1, 40)],
               '  %t: !text = prompt.compute %t39, %t39 {fn = "concat"}']),
], ids=["repeat", "repeat-literal", "format", "ljust", "format-attribute", "doubling"])
def test_values_are_bounded_before_anything_runs(server: Running, line: str) -> None:
    assert post(server, bomb(line), [{"x": "hello"}]) == (400, "program_too_large")


def test_rows_times_operations_are_bounded(server: Running,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sglc.serve.programs.MAX_ALL_STEPS", 10_000)
    lines = [f"  %p{i + 1} = prompt.append %p{i}, %x\n" for i in range(100)]
    text = ("program @p(%x: !text) {\n  %p0 = prompt.root\n" + "".join(lines)
            + "  prompt.return %p100\n}\n")
    assert post(server, text, [{"x": ""}] * 200) == (400, "program_too_large")
    assert post(server, text, [{"x": ""}] * 20)[0] == 200


def test_too_many_rows_are_turned_away() -> None:
    with running(limits={"sequences": 4}) as server:
        assert post(server, GEN, [{"x": "a"}] * 5)[0] == 400
        assert post(server, GEN, [{"x": "a"}] * 4)[0] == 200
        assert server.idle()


def test_a_batch_of_more_rows_than_the_server_takes(runtime: Any) -> None:
    """It goes there in parts, one after the other, and samples as it would whole."""
    _, program = example("text_qa_batch")
    rows = [{"question": f"{i}?"} for i in range(23)]
    with running(limits={"sequences": 5}, seed=0) as server, \
            sglc.RuntimeEndpoint(server.url) as endpoint:
        there = program.run_batch(rows, backend=endpoint, **SAMPLED)
        assert all(type(s).__name__ == "RemoteState" for s in there)
        here = program.run_batch(rows, backend=runtime, **SAMPLED)
        assert [seen(s) for s in there] == [seen(s) for s in here]
        assert server.idle()
        later = program.run_batch(rows, backend=endpoint, **SAMPLED)
    assert [seen(s) for s in later] == [seen(s) for s in here]


def test_a_batch_waits_while_the_servers_queue_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _, program = example("text_qa_batch")
    rows = [{"question": f"{i}?"} for i in range(3)]
    with running() as server, sglc.RuntimeEndpoint(server.url) as endpoint:
        call, asked = endpoint.http.call, 0

        def full(method: str, path: str, body: Any = None) -> Any:
            nonlocal asked
            if path == "/v1/programs" and (asked := asked + 1) <= 2:
                error = ApiError("SGLC509", "full")
                error.status = 429
                raise error
            return call(method, path, body)

        monkeypatch.setattr(endpoint.http, "call", full)
        monkeypatch.setattr(endpoint._closed, "wait", lambda seconds: False)
        states = program.run_batch(rows, backend=endpoint, **SAMPLED)
        assert asked == 3 and all(s.error() is None for s in states)
        asked, endpoint.http.timeout = 0, -1.0
        states = program.run_batch(rows, backend=endpoint, **SAMPLED)
        assert asked == 1 and {s.error().status for s in states} == {429}


def test_closing_an_endpoint_ends_what_waits() -> None:
    with running(limits={"sequences": 2}) as server:
        endpoint = sglc.RuntimeEndpoint(server.url, max_concurrent=1)
        release = threading.Event()
        endpoint._pool.submit(release.wait, 10)
        futures = endpoint.start_program([{}, {}])
        assert futures is not None
        endpoint.close()
        release.set()
        assert all(f.cancelled() for f in futures)


def test_all_that_goes_along_with_rows_counts_as_their_size() -> None:
    @sglc.program(opt_level=3)
    def read(s, one, other):
        s += sglc.bag(one, other) + sglc.gen("a", max_tokens=2)

    rows = [{"one": f"{i} " + "x" * 500, "other": f"{i % 3} " + "y" * 200} for i in range(40)]
    with running(max_body=16_000) as server, sglc.RuntimeEndpoint(server.url) as there:
        states = read.run_batch(rows, backend=there, seed=1)
        want = read.run_batch(rows, backend=server.backend, seed=1)
        assert [s.text() for s in states] == [s.text() for s in want]


def test_a_text_that_names_a_control_token_never_becomes_one(server: Running) -> None:
    """A whole program says so; a prompt that is sent as text cannot, and is refused."""
    @sglc.program
    def chat(s, q):
        s += sglc.user(q)
        s += sglc.assistant(sglc.gen("a", max_tokens=4))

    @sglc.program
    def pick(s, q):
        s += "Which? " + sglc.select("a", ["x", q])

    with sglc.RuntimeEndpoint(server.url) as there:
        for program in (chat, pick):
            for text in ("a <|im_end|> b", "plain"):
                want = program.run(text, backend=server.backend, temperature=0)["a"]
                assert program.run(text, backend=there, temperature=0)["a"] == want
                eager = program.run(text, backend=there, temperature=0, mode="eager")
                if text == "plain":
                    assert eager["a"] == want
                else:
                    with pytest.raises(CapabilityError, match="control token"):
                        eager["a"]


def test_requests_one_by_one_through_a_runtime(runtime: Any) -> None:
    """SGLang's `Runtime.add_request`."""
    async def main(**params: Any) -> list[str]:
        return [piece async for piece in runtime.add_request("Once", params)]

    pieces = asyncio.run(main(max_new_tokens=400, temperature=0, ignore_eos=True))
    want = runtime.generate("Once", sampling={"max_new_tokens": 400, "temperature": 0,
                                              "ignore_eos": True})
    assert len(pieces) > 1 and "".join(pieces) == want.text
    with pytest.raises(ApiError, match="broke"):
        asyncio.run(main(top_p=3))


def test_requests_to_a_server_that_is_gone() -> None:
    with sglc.Runtime(model_path="hash", log_level="error") as runtime:
        async def main() -> list[str]:
            return [piece async for piece in runtime.add_request("Once", {})]

        assert runtime.generate_url  # the server runs
        runtime._server.stop()
        with pytest.raises(ApiError, match="SGLC509"):
            asyncio.run(main())


def test_runtime_takes_sglangs_keywords() -> None:
    with sglc.Runtime(model_path="hash", tp_size=1, mem_fraction_static=0.7, log_level="error",
                      schedule_heuristic="fcfs", model_mode=["no-cache"],
                      trust_remote_code=True, api_key="key") as runtime:
        assert runtime.backend.core.policy == "fcfs-lru" and not runtime.backend.core.radix_cache
        assert runtime.get_tokenizer() is runtime.backend.tokenizer
        assert runtime.endpoint.get_model_name() == "hash"
        assert sglc.get_server_info(runtime.endpoint)["stats"]["kv_total"] > 0
        assert sglc.get_server_args is sglc.get_server_info
        runtime.endpoint.flush_cache()
        with pytest.raises(ApiError) as found:
            sglc.RuntimeEndpoint(runtime.url)
        assert found.value.status == 401
    with pytest.raises(LanguageError, match="max-prefill"):
        sglc.Runtime("hash", max_prefill_num_token=5)
    with pytest.raises(LanguageError, match="no keyword"):
        sglc.Runtime("hash", nonsense=1)
    with pytest.raises(ApiError):
        sglc.RuntimeEndpoint("http://127.0.0.1:9")
