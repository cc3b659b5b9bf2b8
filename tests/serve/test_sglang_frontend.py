"""What SGLang's frontend sends, and programs of ours on a server that is SGLang's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import sglc
from tests.serve.servers import Running, events, running, send
from tests.test_examples import READMES, example

# The bodies that the frontends of 0.1.12 and of 0.5 post to /generate, one for each of their
# operations (`lang/backend/runtime_endpoint.py`), and whether they are streams.
_OLD = {"max_new_tokens": 16, "stop": [], "temperature": 0.0, "top_p": 1.0, "top_k": -1,
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "ignore_eos": False}
_NEW = {**_OLD, "min_new_tokens": 0, "stop_token_ids": [], "stop_regex": [], "min_p": 0.0,
        "n": 1, "json_schema": None, "regex": None}
SHAPES: dict[str, dict[str, Any]] = {
    "old gen": {"text": "Q: x\nA:", "sampling_params": {"skip_special_tokens": True, **_OLD,
                                                        "regex": None}},
    "old gen with a regex": {"text": "A: ", "sampling_params": {
        "skip_special_tokens": True, **_OLD, "regex": "[0-9]{3}"}},
    "old gen_int": {"text": "A: ", "sampling_params": {
        "skip_special_tokens": True, "dtype": "int", **_OLD, "stop": [" ", "\n"]}},
    "old prefix": {"text": "a constant prefix", "sampling_params": {"max_new_tokens": 0}},
    "old select": {"text": ["I need a calculator", "I need a search engine"],
                   "sampling_params": {"max_new_tokens": 0}, "return_logprob": True,
                   "logprob_start_len": 4},
    "old stream": {"text": "Q: x\nA:", "stream": True, "sampling_params": {
        "skip_special_tokens": True, **_OLD}},
    "new gen": {"text": "Q: x\nA:", "sampling_params": {
        "skip_special_tokens": True, "spaces_between_special_tokens": True, **_NEW,
        "stop": "\n"}},
    "new gen with log-probabilities": {
        "text": "Q: x\nA:", "return_logprob": True, "logprob_start_len": -1,
        "top_logprobs_num": 2, "return_text_in_logprobs": True, "sampling_params": _NEW},
    "new gen_int": {"text": "A: ", "sampling_params": {
        **_NEW, "regex": "[-+]?[0-9]+[ \\n]*", "stop": [" ", "\n"]}},
    "new gen with a schema": {"text": "A: ", "sampling_params": {
        **_NEW, "json_schema": '{"type": "integer", "minimum": 0, "maximum": 9}'}},
    "new prefix": {"text": "a constant prefix", "sampling_params": {"max_new_tokens": 0}},
    "new select": {"text": ["I need a calculator", "I need a search engine"],
                   "sampling_params": {"max_new_tokens": 0, "temperature": 0},
                   "return_logprob": True, "return_text_in_logprobs": True,
                   "logprob_start_len": 4, "top_logprobs_num": 0, "stream": False},
    "new stream": {"text": "Q: x\nA:", "stream": True, "sampling_params": _NEW},
}


@pytest.mark.parametrize("name", SHAPES)
def test_recorded_requests(server: Running, name: str) -> None:
    body = SHAPES[name]
    status, answer, _ = server.post("/generate", body)
    assert status == 200, answer
    if body.get("stream"):
        *found, end = events(answer)
        assert end == "[DONE]" and found[-1]["text"] and found[-1]["meta_info"]
        return
    for row in answer if isinstance(body["text"], list) else [answer]:
        meta = row["meta_info"]
        assert isinstance(row["text"], str) and meta["prompt_tokens"] > 0 and meta["id"]
        assert meta["completion_tokens"] <= 16
        if "select" in name:
            assert isinstance(meta["normalized_prompt_logprob"], float)
            assert len(meta["prompt_logprob"]) == len(meta["input_token_logprobs"])
            lp, token, _ = meta["input_token_logprobs"][0]
            assert lp < 0 and isinstance(token, int)


class _SGLang(BaseHTTPRequestHandler):
    """The routes and parameters of an SGLang server, in front of one of ours."""

    protocol_version = "HTTP/1.1"
    behind: str
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path == "/get_model_info":
            self._answer(200, {"model_path": "meta-llama/Llama-2-7b-chat-hf"})
        elif self.path in ("/flush_cache", "/get_server_info"):
            self._answer(*send(self.behind + self.path)[:2])
        else:
            self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        self.seen.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = {"text", "input_ids", "sampling_params", "return_logprob", "logprob_start_len",
                 "top_logprobs_num", "return_text_in_logprobs", "stream", "image_data"}
        sampling = {*_NEW, "skip_special_tokens", "sampling_seed", "repetition_penalty", "ebnf",
                    "no_stop_trim"}
        if self.path != "/generate":
            self._answer(404, {"detail": "Not Found"})
        elif set(body) - known or set(body["sampling_params"]) - sampling:
            self._answer(422, {"detail": "unknown fields"})
        else:
            self._answer(*send(self.behind + self.path, body)[:2])

    def _answer(self, status: int, body: Any) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Nothing is written."""


@contextmanager
def in_front_of(url: str, template: str) -> Iterator[tuple[Any, list[str]]]:
    """(an endpoint of an SGLang server with the model of the server at `url`, the requests)."""
    seen: list[str] = []
    handler = type("Handler", (_SGLang,), {"behind": url, "seen": seen})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    endpoint = sglc.RuntimeEndpoint(f"http://127.0.0.1:{http.server_port}",
                                    chat_template_name=template)
    yield endpoint, seen
    endpoint.close()
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def sglang() -> Iterator[tuple[Any, Any, list[str]]]:
    """(a backend in this process, an endpoint of an SGLang server with its model, the requests)."""
    with running() as server, in_front_of(server.url, "chatml") as (endpoint, seen):
        yield server.backend, endpoint, seen


@pytest.mark.parametrize("name", READMES)
def test_readme_programs_on_an_sglang_server(sglang: Any, name: str) -> None:
    backend, endpoint, seen = sglang
    assert not endpoint.is_sglc
    seen.clear()
    case, program = example(name)
    rows = case.rows
    options: dict[str, Any] = {"temperature": 0, "max_new_tokens": 24}
    here = program.run_batch(rows, backend=backend, **options)
    there = program.run_batch(rows, backend=endpoint, **options)
    for a, b in zip(here, there, strict=True):
        assert a.error() is None and b.error() is None
        assert a.messages() == b.messages()
        assert {n: a[n] for n in a.variable_names()} == {n: b[n] for n in b.variable_names()}
        if not a.messages():  # else the text shows the names of control tokens, where it has them
            assert a.text() == b.text()
    assert seen and set(seen) == {"/generate"}


def test_the_template_is_chosen_by_the_models_path(sglang: Any) -> None:
    _, endpoint, _ = sglang
    with sglc.RuntimeEndpoint(endpoint.base_url) as other:
        assert other.template.template.name == "llama-2-chat"
        assert other.get_model_name() == "meta-llama/Llama-2-7b-chat-hf"
    endpoint.flush_cache()
    assert endpoint.get_server_info()["stats"]


def test_streams_on_an_sglang_server(sglang: Any) -> None:
    backend, endpoint, _ = sglang
    _, program = example("text_qa_stream")
    row = {"question": "What?", "temperature": 0, "max_new_tokens": 24}
    state = program.run(backend=endpoint, stream=True, **row)
    assert "".join(state.text_iter()) == program.run(backend=backend, **row).text()
