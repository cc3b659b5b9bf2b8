"""`sglc chat`: talk to a model, opened here or behind a server.

A turn is a program like any other; so every backend that runs programs can be talked to.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sglc.errors import SglcError

PROMPT = "> "


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags of `sglc chat`."""
    where = p.add_mutually_exclusive_group()
    where.add_argument("--model", metavar="PATH", help="as for sglc serve (default: "
                       "SmolLM2-135M-Instruct)")
    where.add_argument("--url", help="a server of sglc or SGLang, instead of a model here")
    p.add_argument("--api-key", help="the server's key")
    p.add_argument("--chat-template", metavar="NAME|FILE", help="of a model here: a built-in "
                   "template, or a .json file as SGLang takes it, or .jinja")
    p.add_argument("--system", metavar="TEXT", help="the system message")
    p.add_argument("--temperature", type=float, default=0.7)
    p.add_argument("--top-p", type=float, default=1.0)
    p.add_argument("--max-new-tokens", type=int, default=512, metavar="N",
                   help="of an answer (default 512)")
    p.add_argument("--seed", type=int)


def run(options: argparse.Namespace) -> int:
    """Talk until the end of input."""
    with _backend(options) as backend:
        Chat(options, backend).loop()
    return 0


def _backend(options: argparse.Namespace) -> Any:
    if options.url is not None:
        from sglc.backends.remote import RuntimeEndpoint

        return RuntimeEndpoint(options.url, api_key=options.api_key)
    from sglc.serve.engines import open_backend
    from sglc.serve.options import ServeOptions

    return open_backend(ServeOptions(model=options.model, chat_template=options.chat_template))


class Chat:
    """A conversation: what was said, and how to go on."""

    def __init__(self, options: argparse.Namespace, backend: Any) -> None:
        self.backend = backend
        self.system = options.system
        self.sampling = {"temperature": options.temperature, "top_p": options.top_p,
                         "max_new_tokens": options.max_new_tokens, "seed": options.seed}
        self.messages: list[tuple[str, str]] = []

    def loop(self) -> None:
        """Read lines, print answers."""
        if sys.stdin.isatty():
            import contextlib

            with contextlib.suppress(ImportError):  # lines can be edited, and come back
                import readline  # noqa: F401
        while True:
            try:
                line = input(PROMPT).strip()
            except EOFError:
                print()
                return
            if line == "/exit":
                return
            if line == "/reset":
                self.messages.clear()
            elif line.startswith("/"):
                print("there are /reset and /exit", file=sys.stderr)
            elif line:
                self._answer(line)

    def _answer(self, question: str) -> None:
        from sglc.lang.eager_run import cancelled_error

        state = self.start(question)
        said = ""
        try:
            for piece in state.text_iter("answer"):
                said += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            state.cancel(cancelled_error())
        except SglcError as error:
            print(f"\n{error}", file=sys.stderr)
            return  # as if the question had not been asked
        print()
        self.messages += [("user", question), ("assistant", said)]

    def start(self, question: str) -> Any:
        """The state of the next turn, on its way."""
        from sglc.lang import expressions as sgl
        from sglc.lang.program import program

        def turn(s: Any) -> None:
            if self.system is not None:
                s += sgl.system(self.system)
            for role, text in self.messages:
                s += sgl.user(text) if role == "user" else sgl.assistant(text)
            s += sgl.user(question)
            s += sgl.assistant(sgl.gen("answer"))

        # Every turn is another program: there is nothing to gain from compiling it.
        return program(turn, mode="eager").run(backend=self.backend, stream=True, **self.sampling)
