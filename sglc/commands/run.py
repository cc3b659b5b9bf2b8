"""`sglc run`: run a program of a script on a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sglc.backends.engine import Engine
from sglc.backends.local import LocalBackend
from sglc.commands import common
from sglc.errors import LanguageError, SglcError, users_place
from sglc.lang.state import ProgramState
from sglc.tokens.template_file import read_template


def run(options: argparse.Namespace) -> int:
    """Run the program and print its text as it comes, or text and variables as JSON."""
    programs = common.programs(options.script)
    if len(programs) > 1:
        raise LanguageError("SGLC009", "the script has several programs",
                            fixes=[f"sglc run {options.script}:{n}" for n in programs])
    program = next(iter(programs.values()))
    keywords: dict[str, Any] = {k: v for k, v in (
        ("seed", options.seed), ("temperature", options.temperature),
        ("max_new_tokens", options.max_new_tokens)) if v is not None}
    arguments = common.arguments(options.arg)
    program.signature.bind((), arguments)  # complain before the model is opened
    template = read_template(options.chat_template)
    with _engine(options, template) as engine:
        try:
            state = program.run(**arguments, **keywords, backend=engine, mode=options.mode,
                                stream=not (options.json or options.watch), viz=options.watch)
            _show(state, options.json)
        except (SglcError, BrokenPipeError):
            raise
        except Exception as e:  # of the script's own code
            raise LanguageError("SGLC009", f"the program raises {type(e).__name__}: {e}",
                                place=users_place(e.__traceback__)) from e
        if options.stats:
            print(engine.stats(), file=sys.stderr)
    return 0


def _show(state: ProgramState, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"text": state.text(), "seed": state.seed, "variables": {
            str(n): state[n] for n in state.variable_names()}}, ensure_ascii=False, default=str))
        return
    for piece in state.text_iter():
        print(piece, end="", flush=True)
    print()


def _engine(options: argparse.Namespace, template: Any) -> LocalBackend:
    if options.model == "hash":
        from sglc.backends.hash_model import HashModel

        return HashModel(chat_template=template)
    return Engine(options.model, tp=options.tp, chat_template=template)
