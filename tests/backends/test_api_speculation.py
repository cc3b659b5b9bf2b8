"""One call for several gens: fewer calls and tokens, and the text of a run without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sglc as sgl
from sglc.backends.api.speculation import RanAhead, find_stop, manner
from sglc.config import RunOptions
from sglc.errors import ApiError, CapabilityError
from tests.backends.api_stub import LABELS, Stub, serve

KINDS = ("completion", "chat")
MODES = ("eager", "compiled")
BODY = "The quick brown fox jumps over the lazy dog, and so on and on. " * 6


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    yield from serve()


@pytest.fixture(scope="module")
def backends(stub: Stub) -> Iterator[dict[str, Any]]:
    out = {kind: sgl.OpenAI("stub", api_type=kind, base_url=stub.url + "/v1", max_retries=0,
                            continues=True) for kind in KINDS}
    yield out
    for backend in out.values():
        backend.close()


@sgl.program
def fields_text(s, number, size=32):
    s += f"Document {number}: {BODY}\nFields\n"
    s += "Name: " + sgl.gen("Name", stop="\n", max_tokens=size)
    s += "\nAge: " + sgl.gen("Age", stop="\n", max_tokens=size)
    s += "\nCity: " + sgl.gen("City", stop="\n", max_tokens=size)
    s += "\nJob: " + sgl.gen("Job", stop="\n", max_tokens=size)
    s += "\nPet: " + sgl.gen("Pet", stop="\n", max_tokens=size)
    s += "\nFood: " + sgl.gen("Food", stop="\n", max_tokens=size)


@sgl.program
def fields_chat(s, number, size=32):
    s += sgl.user(f"Document {number}: {BODY}\nWrite its fields, one a line.")
    with s.assistant():
        for i, label in enumerate(LABELS):
            s += f"\n{label}: " if i else f"{label}: "
            s += sgl.gen(label, stop="\n", max_tokens=size)


@sgl.program
def forked_text(s, number):
    s += f"Document {number}: {BODY}\n"
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"Fields {i}\n"
        for j, label in enumerate(LABELS):
            f += f"\n{label}: " if j else f"{label}: "
            f += sgl.gen(label, stop="\n", max_tokens=32)
    forks.join()


@sgl.program
def forked_chat(s, number):
    s += sgl.user(f"Document {number}: {BODY}\n")
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += sgl.user(f"Write its fields, one a line, in style {i}.")
        with f.assistant():
            for j, label in enumerate(LABELS):
                f += f"\n{label}: " if j else f"{label}: "
                f += sgl.gen(label, stop="\n", max_tokens=32)
    forks.join()


WHOLE = {"completion": fields_text, "chat": fields_chat}
FORKED = {"completion": forked_text, "chat": forked_chat}


def ahead(program: Any, n: int) -> Any:
    """The program with gens merged."""
    return sgl.program(program.fn, num_api_spec_tokens=n)


def seen(state: Any) -> Any:
    error = state.error()
    if error is not None:
        raise error
    return state.text(), state.messages(), {n: state[n] for n in state.variable_names()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_six_fields_in_one_call(kind: str, mode: str, stub: Stub, backends: Any) -> None:
    given: dict[str, Any] = {"backend": backends[kind], "mode": mode, "temperature": 0}
    rows = [{"number": i} for i in range(8)]
    stub.reset()
    plain = [seen(s) for s in WHOLE[kind].run_batch(rows, **given)]
    calls, prompt = len(stub.asked), stub.prompt_tokens
    stub.reset()
    merged = [seen(s) for s in ahead(WHOLE[kind], 128).run_batch(rows, **given)]
    assert merged == plain
    assert (calls, len(stub.asked)) == (6 * len(rows), len(rows))
    assert 3 * stub.prompt_tokens <= prompt


@pytest.mark.parametrize("mode", MODES)
def test_other_apis(mode: str, stub: Stub) -> None:
    """Anthropic refuses blank stops and a blank at the end of a begun message."""
    options: dict[str, Any] = {"base_url": stub.url, "max_retries": 0, "continues": True}
    for backend in (sgl.Anthropic("stub", **options),
                    sgl.VertexAI("stub", api_key="k", **options)):
        with backend:
            rows = [{"number": i, "size": 64} for i in range(6)]
            given: dict[str, Any] = {"backend": backend, "mode": mode, "temperature": 0}
            stub.reset(rate=10, seed=3)
            plain = [seen(s) for s in fields_chat.run_batch(rows, **given)]
            assert len(stub.asked) == 36
            stub.asked.clear()
            assert [seen(s) for s in ahead(fields_chat, 128).run_batch(rows, **given)] == plain
            wrong = sum(stub.model.next_label(str(i), label) == "Note"
                        for i in range(6) for label in LABELS[:-1])
            assert 0 < wrong and len(stub.asked) <= 6 + wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_fork(kind: str, mode: str, stub: Stub, backends: Any) -> None:
    given: dict[str, Any] = {"backend": backends[kind], "mode": mode, "temperature": 0}
    stub.reset()
    plain = [seen(s) for s in FORKED[kind].run_batch([{"number": i} for i in range(3)], **given)]
    calls, prompt = len(stub.asked), stub.prompt_tokens
    stub.reset()
    merged = [seen(s) for s in ahead(FORKED[kind], 128).run_batch(
        [{"number": i} for i in range(3)], **given)]
    assert merged == plain
    assert (calls, len(stub.asked)) == (36, 6)
    assert 3 * stub.prompt_tokens <= prompt
    state = ahead(FORKED[kind], 128).run(number=1, **given)
    assert len(state["City"]) == 2


@settings(max_examples=20 * (10 if settings().max_examples >= 1000 else 1), deadline=None)
@given(kind=st.sampled_from(KINDS), mode=st.sampled_from(MODES), rate=st.integers(0, 50),
       seed=st.integers(0, 10**6), n=st.integers(1, 80), size=st.integers(1, 12) | st.just(40),
       texts=st.booleans())
def test_the_text_of_a_run_without_it(kind: str, mode: str, rate: int, seed: int, n: int,
                                      size: int, texts: bool, stub: Stub, backends: Any) -> None:
    backend = backends[kind]
    backend._api.token_texts = texts
    given: dict[str, Any] = {"backend": backend, "mode": mode, "temperature": 0}
    rows = [{"number": i, "size": size} for i in range(3)]
    stub.reset(rate=rate, seed=seed)
    plain = WHOLE[kind].run_batch(rows, **given)
    calls = len(stub.asked)
    expected = [seen(s) for s in plain]
    stub.asked.clear()
    merged = ahead(WHOLE[kind], n).run_batch(rows, **given)
    assert [seen(s) for s in merged] == expected
    for a, b in zip(plain, merged, strict=True):
        for label in LABELS:
            reasons = [s.get_meta_info(label)["finish_reason"] for s in (a, b)]
            assert reasons[0]["type"] == reasons[1]["type"]
    if size == 40 and n >= 72:  # room for all: there is a second call only where it went astray
        wrong = sum(stub.model.next_label(str(i), label) != LABELS[j + 1]
                    for i in range(3) for j, label in enumerate(LABELS[:-1]))
        assert len(stub.asked) <= 3 + wrong
    assert len(stub.asked) <= 2 * calls


def test_a_call_falls_back_to_where_it_went_wrong(stub: Stub, backends: Any) -> None:
    """At the field that the model left out there is a second call, from that field on."""
    for seed in range(50):
        stub.reset(rate=20, seed=seed)
        astray = [stub.model.next_label("5", label) == "Note" for label in LABELS[:-1]]
        if sum(astray) == 1:
            break
    at = astray.index(True)
    ahead(fields_text, 128).run(number=5, backend=backends["completion"], temperature=0).sync()
    first, second = stub.asked
    assert first.body["prompt"].endswith("Fields\nName: ")
    assert second.body["prompt"].endswith(f"\n{LABELS[at + 1]}: ")
    assert "stop" not in first.body and first.body["max_tokens"] == 128


@pytest.mark.parametrize("mode", MODES)
def test_whole_messages_where_none_is_continued(mode: str, stub: Stub) -> None:
    given: dict[str, Any] = {"mode": mode, "temperature": 0, "number": 3}
    with sgl.OpenAI("stub", base_url=stub.url + "/v1", max_retries=0) as backend:
        stub.reset()
        state = ahead(fields_chat, 128).run(backend=backend, **given)
        assert [state[x] for x in LABELS] == [stub.model.value("3", x) for x in LABELS]
        assert len(stub.asked) == 1
        assert [m["role"] for m in stub.asked[0].body["messages"]] == ["user"]
        assert backend.stats().merged_gens == 5

        stub.reset(rate=100)
        state = ahead(fields_chat, 128).run(backend=backend, **given)
        assert state["Name"] == stub.model.value("3", "Name")
        with pytest.raises(ApiError, match="program's form") as caught:
            state["Age"]
        assert caught.value.code == "SGLC509"
        stub.reset()
        state = fields_chat.run(backend=backend, **given)
        with pytest.raises(CapabilityError, match="continue a message"):
            state["Name"]


def test_what_ran_ahead_is_only_used_as_it_was_written(stub: Stub, backends: Any) -> None:
    @sgl.program(num_api_spec_tokens=128)
    def mixed(s):
        s += "Document 9: x\nFields\nName: " + sgl.gen("Name", stop="\n", temperature=0)
        s += "\nAge: " + sgl.gen("Age", stop="\n", temperature=0.5)
        s += "\nCity: " + sgl.gen("City", stop="\n", temperature=0.5, n=2)
        s += "\nJob: " + sgl.gen("Job", temperature=0)

    for mode in MODES:
        stub.reset()
        state = mixed.run(backend=backends["completion"], mode=mode)
        assert state["City"] == [stub.model.value("9", "City")] * 2
        assert state["Job"].startswith(stub.model.value("9", "Job") + "\nPet: ")
        assert [a.body.get("temperature", 1) for a in stub.asked] == [0, 0.5, 0.5, 0]
        assert [a.body.get("stop") for a in stub.asked] == [None, None, ["\n"], None]


def test_no_call_runs_ahead_where_no_gen_follows(stub: Stub, backends: Any) -> None:
    """What the compiler sees and the interpreter cannot."""
    def turns(s):
        s += sgl.user("Document 9: x") + sgl.assistant(sgl.gen("a", stop="\n"))
        s += sgl.user("Document 9: x") + sgl.assistant("Name: " + sgl.gen("b", stop="\n"))

    def fields(s):
        s += "Document 9: x\nFields\nName: " + sgl.gen("a", stop="\n")
        s += "\nOwner: " + sgl.gen("b", stop="\n") + "\n"

    for kind, fn in (("chat", turns), ("completion", fields)):
        stub.reset()
        states = [sgl.program(fn, num_api_spec_tokens=64).run(
            backend=backends[kind], mode=mode, temperature=0) for mode in MODES]
        assert seen(states[0]) == seen(states[1])
        stub.asked.clear()
        sgl.program(fn, num_api_spec_tokens=64).run(backend=backends[kind], temperature=0).sync()
        expected = [["\n"], ["\n"]] if kind == "chat" else [None, ["\n"]]
        assert [a.body.get("stop") for a in stub.asked] == expected


@pytest.mark.parametrize("mode", MODES)
def test_streams_give_the_same_text(mode: str, stub: Stub, backends: Any) -> None:
    stub.reset()
    state = ahead(fields_text, 128).run(number=2, backend=backends["completion"], temperature=0,
                                        stream=True, mode=mode)
    text = "".join(state.text_iter())
    assert text == state.text() and len(stub.asked) == 1


def test_counts_of_merged_gens(stub: Stub, backends: Any) -> None:
    stub.reset()
    state = ahead(fields_text, 128).run(number=2, backend=backends["completion"], temperature=0)
    metas = [state.get_meta_info(x) for x in LABELS]
    assert sum(m["prompt_tokens"] for m in metas) == stub.prompt_tokens
    assert sum(m["completion_tokens"] for m in metas) == stub.asked[0].output_tokens
    assert metas[1]["finish_reason"] == {"type": "stop", "matched": "\n"}


TEXT = st.text(alphabet="ab\n", max_size=12)


@given(text=TEXT, stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=3),
       limit=st.integers(1, 8), known=st.booleans(), ended=st.booleans())
def test_take_gives_what_a_call_would(text: str, stops: list[str], limit: int, known: bool,
                                      ended: bool) -> None:
    """Against the rule read character by character, a token being a character."""
    options = RunOptions(max_tokens=limit, stop=tuple(stops))
    ends = tuple(range(1, len(text) + 1)) if known else None
    ran = RanAhead(text, manner(options), ended, len(text), ends)
    expected = None
    for i in range(1, len(text) + 1):
        done = [s for s in stops if text[:i].endswith(s)]
        if done:
            expected = (text[:i - max(map(len, done))], "stop")
            break
        if i == limit:
            expected = (text[:i], "length")
            break
    if expected is None and ended and len(text) < limit:
        expected = (text, "eos")
    cut = ran.take(options)
    if cut is None:
        assert expected is None or not known
    else:
        assert (cut.text, cut.finish) == expected
        assert text == cut.text + cut.rest.text


def test_the_stop_that_is_complete_first() -> None:
    assert find_stop("xaby", ["ab", "b"]) == (1, 3, "ab")
    assert find_stop("xaby", ["aby", "b"]) == (2, 3, "b")
    assert find_stop("x12 y", [], [r"[0-9]+"]) == (1, 3, "12")
    assert find_stop("x", ["y"], ["z*"]) is None
