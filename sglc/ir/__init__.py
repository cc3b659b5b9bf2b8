"""The intermediate representation: one SSA module for prompts, tokens and plans.

`parse(text)`, `print(module)` and `verify(module)` are the way in and out; `Builder` writes IR.
"""

from __future__ import annotations

from sglc.ir.builder import Builder
from sglc.ir.clone import clone_module, equal_modules, explain_difference
from sglc.ir.json_form import from_json, to_json
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.ops import OPS, OpDef
from sglc.ir.printer import print_module, print_program
from sglc.ir.printer import print_module as print
from sglc.ir.types import Type
from sglc.ir.verifier import verify

__all__ = [
    "OPS", "Block", "Builder", "Lit", "Module", "Op", "OpDef", "Operand", "Program", "Type",
    "Value", "clone_module", "equal_modules", "explain_difference", "from_json", "parse", "print",
    "print_module", "print_program", "to_json", "verify",
]


def parse(text: str, *, file: str = "<text>") -> Module:
    """The module that `text` describes; see `sglc.ir.parser.parse`.  Imports lark."""
    from sglc.ir import parser

    return parser.parse(text, file=file)
