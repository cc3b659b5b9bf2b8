"""`sglc run`: run a program of a script on a model."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sglc.backends.engine import Engine
from sglc.commands import common
from sglc.errors import LanguageError
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
    with Engine(options.model, tp=options.tp, chat_template=template) as engine:
        state = program.run(**arguments, **keywords, backend=engine, mode=options.mode,
                            stream=not (options.json or options.watch), viz=options.watch)
        if options.json:
            print(json.dumps({"text": state.text(), "seed": state.seed, "variables": {
                str(n): state[n] for n in state.variable_names()}}, ensure_ascii=False,
                default=str))
        else:
            for piece in state.text_iter():
                print(piece, end="", flush=True)
            print()
        if options.stats:
            print(engine.stats(), file=sys.stderr)
    return 0
