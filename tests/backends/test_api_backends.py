"""Programs on remote APIs: what is sent, what comes back, and what goes wrong."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import sglc as sgl
from sglc.errors import ApiError, Cancelled, CapabilityError, EngineError, LanguageError
from tests.backends.api_stub import Stub, number, serve

MODES = ("eager", "compiled")
QUICK: dict[str, Any] = {"max_retries": 0, "timeout": 20.0}


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    yield from serve()


def opened(stub: Stub, kind: str, **options: Any) -> Any:
    options = {**QUICK, **options}
    if kind == "anthropic":
        return sgl.Anthropic("stub", base_url=stub.url, **options)
    if kind == "gemini":
        return sgl.VertexAI("stub", base_url=stub.url, api_key="k", **options)
    return sgl.OpenAI("stub", api_type=kind, base_url=stub.url + "/v1", **options)


CHATS = ("chat", "anthropic", "gemini")
KINDS = ("completion", *CHATS)


@pytest.fixture(scope="module")
def backends(stub: Stub) -> Iterator[dict[str, Any]]:
    out = {kind: opened(stub, kind) for kind in KINDS}
    yield out
    for backend in out.values():
        backend.close()


@pytest.fixture(autouse=True)
def fresh(stub: Stub) -> None:
    stub.reset()


@sgl.program
def chat(s, question, again):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("first", max_tokens=12))
    s += sgl.user(again)
    s += sgl.assistant(sgl.gen("second", max_tokens=12))


@sgl.program
def qa(s, question):
    s += "Q: " + question + "\n"
    s += "A:" + sgl.gen("answer", stop="\n")


# -- the README's programs ------------------------------------------------------------------
@sgl.function
def multi_turn_question(s, question_1, question_2):
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user(question_1)
    s += sgl.assistant(sgl.gen("answer_1", max_tokens=256))
    s += sgl.user(question_2)
    s += sgl.assistant(sgl.gen("answer_2", max_tokens=256))


@sgl.function
def tool_use(s, question):
    s += "To answer this question: " + question + ". "
    s += "I need to use a " + sgl.gen("tool", choices=["calculator", "search engine"]) + ". "
    if s["tool"] == "calculator":
        s += "The math expression is" + sgl.gen("expression")
    elif s["tool"] == "search engine":
        s += "The key word to search is" + sgl.gen("word")


@sgl.function
def tip_suggestion(s):
    s += (
        "Here are two tips for staying healthy: "
        "1. Balanced Diet. 2. Regular Exercise.\n\n"
    )
    forks = s.fork(2)
    for i, f in enumerate(forks):
        f += f"Now, expand tip {i+1} into a paragraph:\n"
        f += sgl.gen("detailed_tip", max_tokens=256, stop="\n\n")
    s += "Tip 1:" + forks[0]["detailed_tip"] + "\n"
    s += "Tip 2:" + forks[1]["detailed_tip"] + "\n"
    s += "In summary" + sgl.gen("summary")


@sgl.function
def regular_expression_gen(s):
    s += "Q: What is the IP address of the Google DNS servers?\n"
    s += "A: " + sgl.gen(
        "answer", temperature=0,
        regex=r"((25[0-5]|2[0-4]\d|[01]?\d\d?).){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)")


@pytest.mark.parametrize("mode", MODES)
def test_readme_chat(mode: str, backends: Any) -> None:
    sgl.set_default_backend(backends["chat"])
    try:
        state = multi_turn_question.run(
            question_1="What is the capital of the United States?",
            question_2="List two local attractions.", mode=mode)
        said = state.messages()
    finally:
        sgl.set_default_backend(None)
    assert [m["role"] for m in said] == ["system", "user", "assistant", "user", "assistant"]
    assert said[2]["content"] == state["answer_1"].lstrip() and state["answer_2"]


@pytest.mark.parametrize("mode", MODES)
def test_readme_completions(mode: str, stub: Stub, backends: Any) -> None:
    given: dict[str, Any] = {"backend": backends["completion"], "mode": mode}
    state = tool_use.run(question="1+1?", **given)
    state.sync()
    assert state["tool"] in ("calculator", "search engine")
    assert ("expression" in state) == (state["tool"] == "calculator")
    tips = tip_suggestion.run(**given)
    assert tips.text().count("Tip ") == 2 and tips["summary"] in tips.text()
    rows = [{"question": f"What is the capital of {c}?"} for c in ("France", "Japan", "Peru")]
    states = qa.run_batch(rows, progress_bar=True, **given)
    assert [s.text().split("\n")[0] for s in states] == ["Q: " + r["question"] for r in rows]
    state = qa.run(question="What is the capital of France?", temperature=0.1, stream=True, **given)
    assert "".join(state.text_iter()) == state.text()
    assert stub.asked[-1].body["stream"] and stub.asked[-1].body["temperature"] == 0.1
    with pytest.raises(CapabilityError, match="OpenAI text completion has no regex"):
        regular_expression_gen.run(**given)


# -- all APIs -------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_modes_agree(kind: str, stub: Stub, backends: Any) -> None:
    def outcome(mode: str, stream: bool) -> Any:
        state = chat.run("Why?", "And then?", backend=backends[kind], mode=mode, stream=stream)
        text = "".join(state.text_iter())
        assert text == state.text()
        return text, state.messages(), state["first"], state["second"]

    assert chat.compile("Why?", "And then?", backend=backends[kind]).graph_breaks == 0
    outcomes = [outcome(mode, stream) for mode in MODES for stream in (False, True)]
    assert all(o == outcomes[0] for o in outcomes)
    assert len(stub.asked) == 8
    if kind in CHATS:
        assert outcomes[0][2] == stub.model.write("You are a helpful assistant.\nWhy?\n")[
            :len(outcomes[0][2])]
    else:
        assert "SYSTEM:You are a helpful assistant.\nUSER:Why?\nASSISTANT:" in outcomes[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_counted(kind: str, stub: Stub) -> None:
    with opened(stub, kind) as backend:
        state = chat.run("Why?", "And then?", backend=backend)
        metas = [state.get_meta_info(x) for x in ("first", "second")]
        stats = backend.stats()
    assert (stats.calls, stats.gens) == (2, 2)
    assert stats.prompt_tokens == stub.prompt_tokens == sum(m["prompt_tokens"] for m in metas)
    assert stats.completion_tokens == sum(a.output_tokens for a in stub.asked)
    assert {m["finish_reason"]["type"] for m in metas} <= {"stop", "length"}


def test_what_is_sent(stub: Stub, backends: Any) -> None:
    @sgl.program
    def sampled(s):
        s += sgl.user("u") + sgl.assistant(sgl.gen(
            "a", max_tokens=5, stop=["X", "\n"], temperature=0.5, top_p=0.9))

    def sent(kind: str) -> Any:
        sampled.run(backend=backends[kind]).sync()
        return stub.asked[-1].body

    assert sent("chat") == {
        "model": "stub", "messages": [{"role": "user", "content": "u"}], "max_tokens": 5,
        "stop": ["X", "\n"], "temperature": 0.5, "top_p": 0.9}
    assert sent("anthropic") == {
        "model": "stub", "messages": [{"role": "user", "content": "u"}], "max_tokens": 5,
        "stop_sequences": ["X"], "temperature": 0.5, "top_p": 0.9}
    gemini = sent("gemini")
    assert gemini["contents"] == [{"role": "user", "parts": [{"text": "u"}]}]
    assert gemini["generationConfig"] == {
        "maxOutputTokens": 5, "stopSequences": ["X", "\n"], "temperature": 0.5, "topP": 0.9}


@pytest.mark.parametrize("kind", KINDS)
def test_samples(kind: str, stub: Stub, backends: Any) -> None:
    @sgl.program
    def several(s):
        s += sgl.user("u") + sgl.assistant(sgl.gen("a", n=3, max_tokens=6))

    for mode in MODES:
        state = several.run(backend=backends[kind], mode=mode)
        assert len(state["a"]) == 3 and state.text().rstrip("\n").endswith(
            state["a"][0].rstrip("\n"))


@pytest.mark.parametrize("kind", KINDS)
def test_stops_that_the_api_does_not_take(kind: str, stub: Stub, backends: Any) -> None:
    """More than it takes, blank ones and patterns are seen to here: the text is the same."""
    @sgl.program
    def stopped(s):
        s += sgl.user("Document 1: x") + sgl.assistant(sgl.gen(
            "a", stop=["q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "\nCity"]))
        s += sgl.user("Document 1: x") + sgl.assistant(sgl.gen("b", stop_regex=r"C.ty"))

    for mode in MODES:
        state = stopped.run(backend=backends[kind], mode=mode, max_new_tokens=64)
        value = stub.model.value
        if kind != "completion":
            assert state["a"] == f"Name: {value('1', 'Name')}\nAge: {value('1', 'Age')}"
            assert state["b"] == state["a"] + "\n"
        assert state.get_meta_info("b")["finish_reason"]["type"] in ("stop", "length")


@pytest.mark.parametrize("kind", ("anthropic", "gemini"))
def test_plain_text_is_a_user_message(kind: str, stub: Stub, backends: Any) -> None:
    """As in SGLang's examples for these two."""
    state = qa.run(question="Why?", backend=backends[kind])
    state.sync()
    said = stub.asked[-1].body
    assert said.get("messages", said.get("contents"))[0]["role"] == "user"
    assert state.text().startswith("Q: Why?\nA:")


def test_a_begun_message(stub: Stub) -> None:
    @sgl.program
    def begun(s):
        s += sgl.user("Document 4: x")
        s += sgl.assistant("Name: " + sgl.gen("name", max_tokens=40, stop="Q") + "!")

    whole = stub.model.write("Document 4: x\nName: ")
    for kind in CHATS:
        with opened(stub, kind, continues=True) as backend:
            for stream in (False, True):  # Anthropic refuses the blank at its end
                state = begun.run(backend=backend, stream=stream)
                assert state["name"] == whole and state.text().endswith("Name: " + whole + "!")
    with opened(stub, "chat", continues="continue_final_message") as backend:
        begun.run(backend=backend).sync()
        assert stub.asked[-1].body["continue_final_message"] is True
        assert stub.asked[-1].body["add_generation_prompt"] is False


def test_typed_answers(stub: Stub, backends: Any) -> None:
    class Person(BaseModel):
        name: str
        age: int

    @sgl.program
    def typed(s):
        s += sgl.user("Who?") + sgl.assistant(sgl.gen("who", schema=Person))

    for mode in MODES:
        state = typed.run(backend=backends["chat"], mode=mode)
        assert state["who"] == Person(name="Ann", age=7)
        assert stub.asked[-1].body["response_format"]["json_schema"]["strict"]
    with pytest.raises(CapabilityError, match="completion has no json_schema"):
        typed.run(backend=backends["completion"])


def test_log_probabilities(stub: Stub, backends: Any) -> None:
    @sgl.program
    def scored(s):
        s += sgl.user("u") + sgl.assistant(sgl.gen("a", max_tokens=3, return_logprob=True))

    for kind in ("completion", "chat"):
        state = scored.run(backend=backends[kind])
        found = state.get_meta_info("a")["output_token_logprobs"]
        assert "".join([text for _, _, text in found]) == state["a"]
        assert {lp for lp, _, _ in found} == {-0.5}


# -- select ---------------------------------------------------------------------------------
CHOICES = ["red fox", "blue", "red"]


@sgl.program
def choosing(s, method=None):
    s += "The colour is "
    s += sgl.gen("colour", choices=CHOICES, choices_method=method) + "."


@pytest.mark.parametrize("mode", MODES)
def test_select_by_echo(mode: str, stub: Stub, backends: Any) -> None:
    state = choosing.run(backend=backends["completion"], mode=mode)
    scores = state.get_meta_info("colour")["normalized_prompt_logprobs"]
    assert state["colour"] == CHOICES[scores.index(max(scores))]
    assert len(stub.asked) == 1
    # The blank before a word is its token's: it is not common to all.
    first = -(number("The colour is red") % 1000) / 100
    assert state.get_meta_info("colour")["input_token_logprobs"][2] == [(first, None, " red")]
    for method in ("greedy_token_selection", "unconditional_likelihood_normalized"):
        state = choosing.run(method=method, backend=backends["completion"], mode=mode)
        assert state["colour"] in CHOICES


def test_select_by_logit_bias(stub: Stub) -> None:
    with opened(stub, "completion", select_by="logit_bias",
                tokenizer=lambda text: [ord(c) for c in text]) as backend:
        state = choosing.run(backend=backend)
        prompt, left = "The colour is ", list(CHOICES)
        best = max(sorted({ord(c[0]) for c in left}), key=lambda i: number(prompt, i))
        assert state["colour"].startswith(chr(best))
        assert all(a.body["max_tokens"] == 1 for a in stub.asked)
        if best == ord("r"):  # "red" ends where "red fox" goes on: the stub writes neither
            assert state["colour"] == "red" and stub.asked[-1].body["logit_bias"] == {}
        else:
            assert len(stub.asked) == 1
        with pytest.raises(CapabilityError, match="choices_method"):
            choosing.run(method="greedy_token_selection", backend=backend).sync()


@pytest.mark.parametrize("kind", CHATS)
def test_no_select_in_chats(kind: str, backends: Any) -> None:
    @sgl.program
    def pick(s):
        s += sgl.user("u") + sgl.assistant(sgl.select("a", ["x", "y"]))

    for mode in MODES:
        with pytest.raises(CapabilityError, match="has no select"):
            pick.run(backend=backends[kind], mode=mode).sync()


# -- what an API cannot do ------------------------------------------------------------------
CANNOT = [
    ("regex", {"regex": "[0-9]+"}, KINDS), ("ebnf", {"ebnf": 'start: "a"'}, KINDS),
    ("regex .of dtype", {"dtype": int}, KINDS), ("min_tokens", {"min_tokens": 3}, KINDS),
    ("top_k", {"top_k": 5}, ("completion", "chat")), ("min_p", {"min_p": 0.5}, KINDS),
    ("stop_token_ids", {"stop_token_ids": [1]}, KINDS), ("heal", {"heal": True}, KINDS),
    ("ignore_eos", {"ignore_eos": True}, KINDS), ("seed", {"seed": 1}, ("anthropic",)),
    ("repetition_penalty", {"repetition_penalty": 1.5}, KINDS),
    ("no_stop_trim", {"no_stop_trim": True}, ("completion", "chat", "gemini")),
    ("return_logprob", {"return_logprob": True}, ("anthropic", "gemini")),
    ("logprob_start_len", {"return_logprob": True, "logprob_start_len": 0}, ("chat",)),
    ("frequency_penalty", {"frequency_penalty": 1}, ("anthropic",)),
    ("temperature of at most 1", {"temperature": 1.5}, ("anthropic",)),
]


@pytest.mark.parametrize(("what", "options", "kinds"), CANNOT, ids=[c[0] for c in CANNOT])
def test_capability_errors(what: str, options: Any, kinds: Any, stub: Stub,
                           backends: Any) -> None:
    @sgl.program
    def asks(s):
        s += sgl.user("u") + sgl.assistant(sgl.gen("a", **options))

    for kind in kinds:
        for mode in MODES:
            with pytest.raises(CapabilityError, match=what) as caught:
                asks.run(backend=backends[kind], mode=mode).sync()
            assert caught.value.code == "SGLC012" and caught.value.diagnostic.fixes
    assert not stub.requests


def test_extra_options(stub: Stub) -> None:
    with opened(stub, "chat", extra_options={"regex": "guided_regex", "top_k": "top_k"}) as b:
        @sgl.program
        def asks(s):
            s += sgl.user("u") + sgl.assistant(sgl.gen("a", regex="[a-z]+", top_k=3))

        asks.run(backend=b).sync()
    assert stub.asked[-1].body["guided_regex"] == "[a-z]+" and stub.asked[-1].body["top_k"] == 3


def test_places_where_a_chat_cannot_write(stub: Stub, backends: Any) -> None:
    @sgl.program
    def outside(s):
        s += "text " + sgl.gen("a")

    @sgl.program
    def of_the_user(s):
        s += sgl.user(sgl.gen("a"))

    @sgl.program
    def late_system(s):
        s += sgl.user("u") + sgl.system("late") + sgl.assistant(sgl.gen("a"))

    @sgl.program
    def control(s):
        s += sgl.user(sgl.special("<|im_start|>")) + sgl.assistant(sgl.gen("a"))

    cases = [(outside, "chat", "assistant messages only"), (of_the_user, "chat", "no user message"),
             (late_system, "anthropic", "at the beginning"), (control, "chat", "control tokens")]
    for program, kind, what in cases:
        for mode in MODES:
            with pytest.raises(CapabilityError, match=what):
                program.run(backend=backends[kind], mode=mode).sync()
    state = qa.run(question="Why?", backend=backends["completion"])
    with pytest.raises(CapabilityError, match="no token ids"):
        state.token_ids()
    assert state.error() is None


def test_what_the_compiler_shows(backends: Any) -> None:
    compiled = chat.compile("Why?", "And then?", backend=backends["chat"])
    assert list(compiled.stages) == ["traced", "prompt"]
    text = sgl.ir.print(compiled.stages["prompt"])
    assert sgl.ir.parse(text) == compiled.stages["prompt"] and "prompt.role_begin" in text
    assert "2 model calls" in str(compiled.explain())
    with pytest.raises(CapabilityError, match="counted in tokens"):
        compiled.cost([{"question": "a", "again": "b"}])


def test_scripts_are_compiled_without_a_connection(tmp_path: Path) -> None:
    from sglc.lang.loading import load_programs

    script = tmp_path / "script.py"
    script.write_text("import sglc as sgl\nmodel = sgl.OpenAI('m')\n"
                      "@sgl.program\ndef f(s):\n    s += sgl.gen('a')\n"
                      "f.run(backend=model)\n")
    assert list(load_programs(str(script)).programs) == ["f"]


def test_bad_settings() -> None:
    for bad in ({"api_type": "speech"}, {"max_concurrent": 0}, {"select_by": "dice"},
                {"extra_options": {"colour": "x"}}):
        with pytest.raises(LanguageError):
            sgl.OpenAI("m", api_key="k", **bad)
    for n in (0, -1, "x", True):
        with pytest.raises(LanguageError, match="num_api_spec_tokens"):
            sgl.program(lambda s: None, num_api_spec_tokens=n)


# -- faults ---------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", (429, 500, 503, "drop"))
@pytest.mark.parametrize("kind", ("completion", "chat", "anthropic"))
def test_the_sdk_tries_again(kind: str, fault: Any, stub: Stub) -> None:
    stub.faults.extend([fault])
    with opened(stub, kind, max_retries=1) as backend:
        state = chat.run("Why?", "And then?", backend=backend)
        assert state.error() is None and stub.requests == 3
        assert backend.stats().calls == 2


FAULTS = [(429, 429, "status 429"), (500, 500, "status 500"), (400, 400, "status 400"),
          ("drop", None, "connection"), ("broken", None, "could not be read|failed")]


@pytest.mark.parametrize(("fault", "status", "what"), FAULTS, ids=[str(f[0]) for f in FAULTS])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_a_call(kind: str, fault: Any, status: Any, what: str, stub: Stub,
                          backends: Any) -> None:
    for mode in MODES:
        stub.faults.append(fault)
        state = chat.run("Why?", "And then?", backend=backends[kind], mode=mode)
        with pytest.raises(ApiError, match=what) as caught:
            state["second"]
        assert (caught.value.code, caught.value.status) == ("SGLC509", status)
        assert chat.run("Why?", "And then?", backend=backends[kind], mode=mode).error() is None


@pytest.mark.parametrize("fault", ("cut", "silent"))
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_breaks_off(kind: str, fault: str, stub: Stub, backends: Any) -> None:
    @sgl.program
    def one(s):
        s += sgl.user("Document 1: x") + sgl.assistant(sgl.gen("a", max_tokens=60))

    for mode in MODES:
        stub.faults.append(fault)
        state = one.run(backend=backends[kind], mode=mode, stream=True)
        pieces = []
        with pytest.raises(ApiError):
            for piece in state.text_iter():
                pieces.append(piece)
        assert isinstance(state.error(), ApiError)


def test_slow_answers(stub: Stub) -> None:
    with opened(stub, "chat", timeout=0.2) as backend:
        stub.faults.append("slow")
        with pytest.raises(ApiError, match="in time"):
            chat.run("Why?", "And then?", backend=backend)["first"]


def test_one_bad_row(stub: Stub, backends: Any) -> None:
    stub.faults.extend([None, 500, None])
    states = qa.run_batch([{"question": str(i)} for i in range(6)],
                          backend=backends["completion"])
    assert sum(s.error() is not None for s in states) == 1


# -- running --------------------------------------------------------------------------------
def test_how_many_at_once(stub: Stub) -> None:
    rows = [{"question": str(i)} for i in range(40)]
    with opened(stub, "completion", max_concurrent=3) as backend:
        assert all(s.error() is None for s in qa.run_batch(rows, backend=backend))
    assert stub.most_at_once <= 3 and stub.requests == 40


def test_async_runs(stub: Stub, backends: Any) -> None:
    async def main() -> Any:
        states = await asyncio.gather(*[qa.arun(question=str(i), backend=backends["completion"])
                                        for i in range(5)])
        pieces = []
        state = await qa.arun(question="s", backend=backends["completion"], stream=True)
        async for piece in state.text_async_iter():
            pieces.append(piece)
        assert "".join(pieces) == state.text()
        return states

    assert all(s.error() is None for s in asyncio.run(main()))


def test_closing(stub: Stub) -> None:
    backend = opened(stub, "chat")
    stub.faults.append("slow")
    state = chat.run("Why?", "And then?", backend=backend)
    deadline = time.time() + 10
    while not stub.requests and time.time() < deadline:
        time.sleep(0.01)
    backend.close()
    backend.close()
    assert isinstance(state.error(), EngineError) and state.error().code == "SGLC503"
    assert chat.run("Why?", "And then?", backend=backend).error().code == "SGLC503"


@pytest.mark.parametrize("mode", MODES)
def test_cancelling(mode: str, stub: Stub, backends: Any) -> None:
    stub.faults.append("slow")
    state = chat.run("Why?", "And then?", backend=backends["chat"], mode=mode)
    error = Cancelled("SGLC506", "stop")
    (state._run if mode == "eager" else state._instance).cancel(error)
    start = time.time()
    assert isinstance(state.error(), Cancelled) and time.time() - start < 5


def test_host_calls_and_going_on(stub: Stub, backends: Any) -> None:
    seen = []

    @sgl.program
    def agent(s, task):
        s += sgl.user(task)
        s += sgl.assistant(sgl.gen("plan", max_tokens=6))
        seen.append(s["plan"])
        s += sgl.user(s["plan"].upper())
        with s.assistant():
            s += sgl.gen("done", max_tokens=6)
        return s["done"]

    texts = []
    for mode in MODES:
        state = agent.run(task="go", backend=backends["chat"], mode=mode)
        state += sgl.user("more") + sgl.assistant(sgl.gen("more", max_tokens=4))
        texts.append((state.text(), state["more"], state.ret_value, state.messages()))
    assert texts[0] == texts[1] and seen[0] == seen[1] == state["plan"]


def test_no_heavy_import(stub: Stub, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
import sglc as sgl

@sgl.program(num_api_spec_tokens=64)
def f(s, q):
    s += sgl.user(q) + sgl.assistant(sgl.gen("a", stop="X"))

with sgl.OpenAI("stub", base_url={stub.url + "/v1"!r}) as backend:
    assert all(s.error() is None for s in f.run_batch([{{"q": "1"}}, {{"q": "2"}}],
                                                      backend=backend))
    assert f.run(q="3", backend=backend, mode="eager").error() is None
print([m for m in ("torch", "transformers", "tokenizers", "llguidance") if m in sys.modules])
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], env={"PYTHONPATH": "."}, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
