"""`sglc chat`, in this process and to a server."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

import sglc
from sglc import cli
from sglc.commands.chat import Chat
from tests.serve.servers import Running

TALK = "Hello there\n\n/what\nAnd then?\n/reset\nHello there\n/exit\nnever\n"


def talk(monkeypatch: pytest.MonkeyPatch, capsys: Any, text: str, *argv: str) -> list[str]:
    """What is answered to each line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert cli.main(["chat", "--temperature", "0", "--max-new-tokens", "6", *argv]) == 0
    return [part.strip("\n") for part in capsys.readouterr().out.split("> ")]


def test_here_and_there_say_the_same(monkeypatch: pytest.MonkeyPatch, capsys: Any,
                                     server: Running) -> None:
    here = talk(monkeypatch, capsys, TALK, "--model", "hash", "--system", "Be brief.")
    there = talk(monkeypatch, capsys, TALK, "--url", server.url, "--system", "Be brief.")
    assert here == there and len(here) == 8
    first, second, again = (here[i] for i in (1, 4, 6))
    assert first == again != second and len(second) > 0

    @sglc.program
    def same(s: Any) -> None:
        s += sglc.system("Be brief.")
        s += sglc.user("Hello there") + sglc.assistant(sglc.gen("a"))
        s += sglc.user("And then?") + sglc.assistant(sglc.gen("b"))

    with sglc.HashModel() as local:
        state = same.run(backend=local, temperature=0, max_new_tokens=6)
        assert [state["a"].strip("\n"), state["b"].strip("\n")] == [first, second]


def test_the_end_of_input_ends_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert len(talk(monkeypatch, capsys, "Hi\n", "--model", "hash")) == 3


def test_ctrl_c_ends_an_answer_and_frees_its_memory(monkeypatch: pytest.MonkeyPatch,
                                                    capsys: Any) -> None:
    options = cli.parser().parse_args(["chat", "--max-new-tokens", "60000"])
    with sglc.HashModel() as backend:
        chat = Chat(options, backend)
        start = chat.start

        def interrupted(question: str) -> Any:
            state = start(question)
            pieces = state.text_iter("answer")

            class Answer:
                cancel = staticmethod(state.cancel)

                def text_iter(self, name: str) -> Any:
                    yield next(pieces)
                    raise KeyboardInterrupt

            return Answer()

        monkeypatch.setattr(chat, "start", interrupted)
        chat._answer("Hello")
        assert backend.core.wait_idle(20) and backend.stats().kv_in_use == 0
        (_, said) = chat.messages
        assert said[1] and said[1] in capsys.readouterr().out


def test_an_error_is_told_and_the_chat_goes_on(monkeypatch: pytest.MonkeyPatch,
                                               capsys: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 70_000 + "\nHi\n"))
    assert cli.main(["chat", "--model", "hash", "--max-new-tokens", "3"]) == 0
    said = capsys.readouterr()
    assert "SGLC501" in said.err and said.out.count("> ") == 3
