"""A program as Python in SGLang's language, from the IR of its prompt stage.

One state variable for each chain of prompts; where a prompt has several continuations, the
others are forks of it.  The forks and joins of a traced module stay what they are.  The source
runs: its text is that of the program it was made from.  Sampled text is too where the module is
as traced; forks that had to be written anew, and programs that the program calls (forks of its
empty prompt here), have other paths, and so other random numbers.

Host calls are written as calls by name: what they name is not in the IR.  Programs, blocks and
branches are here; prompts are written in `python_prompts.py`, values in `python_values.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sglc.ir.clone import clone_module
from sglc.ir.fork_form import canonical_forks, drop_offsets
from sglc.ir.module import Block, Lit, Module, Op, Program, Value
from sglc.ir.python_prompts import PromptWriter
from sglc.ir.python_source import Branch, render
from sglc.ir.python_state import Arm, Names, unwritable
from sglc.ir.python_text import Source, text_literal

_HEADER = "import sglc as sgl\n"


def to_python(module: Module) -> str:
    """The source of a file that defines the module's programs; IRError SGLC008 for what has no
    form in the language (kv and plan ops, prompts that a branch takes from elsewhere)."""
    names = Names()
    parts = [_HEADER]
    for program in clone_module(module).programs.values():
        drop_offsets(program)
        canonical_forks(program)
        parts.append(_Writer(program, names.fresh(program.name or "program")).source())
    return "\n\n".join(parts)


class _Writer(PromptWriter):
    """Writes one program: its blocks and branches."""

    def __init__(self, program: Program, name: str) -> None:
        super().__init__(program)
        self.name = name

    def source(self) -> str:
        program = self.program
        self.block(program.body)
        lines = []
        if program.loc is not None:
            lines.append(f"# {program.loc.file}:{program.loc.line}")
        if self.hosts:
            lines.append(f"# The program's own functions are not in its IR: "
                         f"{', '.join(self.hosts)}")
        lines.append("@sgl.program")
        lines.append(f"def {self.name}({', '.join([self.state, *[a.name for a in program.args]])}"
                     "):")
        return "\n".join([*lines, *render(self.at.statements, 1)]) + "\n"

    def block(self, block: Block) -> None:
        for op in block.ops:
            self.op(op)

    def op(self, op: Op) -> None:
        name = op.name.removeprefix("prompt.")
        if self.flow.is_inlined(op) or name in (
                "root", "batch", "message", "meta", "check", "yield"):
            return
        if name in ("append", "bag", "special", "image", "role_begin", "role_end", "gen", "select"):
            self.chain(op, name)
        elif name in ("format", "compute", "list"):
            self.local(op.results[0], self.expression(op))
        elif name == "text":
            self.local(op.results[0], Source(f"{self.holder(op, op.operands[0])}.text()"))
        elif op in self.flow.scopes:
            self.scope(op)
        elif name == "span":
            begin, end = (self.holder(op, o) for o in op.operands)
            self.local(op.results[0], Source(f"{end}.text()[len({begin}.text()):]"))
        elif name in ("fork", "join", "bind", "read", "if", "switch", "host", "break", "return"):
            getattr(self, f"{name}_")(op)
        else:
            raise unwritable(op.name, op.loc)

    def break_(self, op: Op) -> None:
        self.line(f"...  # traced at run time from here on: it needs {op.attrs['fn']}")

    def return_(self, op: Op) -> None:
        prompt, *value = op.operands
        if self.held(op, self.prompt(prompt))[0] != self.state:
            raise unwritable("a program that ends in a fork of its prompt", op.loc)
        if value and value[0] != Lit(None):
            self.line(f"return {self.write(value[0]).text}")

    # -- branches -------------------------------------------------------------------------
    def if_(self, op: Op) -> None:
        condition = self.write(op.operands[0]).text
        self.branch(op, [condition, None])

    def switch_(self, op: Op) -> None:
        value = self.write(op.operands[0]).inner()
        *first, last = op.regions
        tests: list[str | None] = [f"{value} == {text_literal(r.label)}" for r in first]
        self.branch(op, [*tests, None if last.label == "default" else
                         f"{value} == {text_literal(last.label)}"])

    def branch(self, op: Op, tests: Sequence[str | None]) -> None:
        for (state, name), old in list(self.at.defined.items()):
            if name in self.flow.names_defined_in(op):
                self.keep(state, name, op, inside=True)
                self.at.defined.setdefault((state, name), old)
        for prompt, holders in list(self.at.holders.items()):
            if (prompt in self.flow.spine and len(holders) == 1
                    and self.flow.is_live_after(prompt, op)
                    and prompt in self.flow.reads_of(op)):
                holders.append(self.fork_one(holders[0]))
        before = self.at
        results = {r: self.names.fresh(r.name or "x") for r in op.results
                   if r in self.flow.read and r not in self.flow.spine}
        ends: list[Arm] = []
        for region in op.regions:
            self.at = Arm({k: list(v) for k, v in before.holders.items()}, dict(before.defined))
            for arg, value in zip(region.args, op.operands[1:], strict=True):
                if arg not in self.flow.same:
                    self.known[arg] = self.write(value)
            self.block(region)
            self.hand_on(op, region, results)
            ends.append(self.at)
        self.at = before
        self.at.statements.append(Branch([
            (test, arm.statements) for test, arm in zip(tests, ends, strict=True)]))
        self.at.defined = {k: v for k, v in before.defined.items()
                           if all(arm.defined.get(k) is v for arm in ends)}
        for prompt in list(before.holders):
            # An arm that moved a variable on has left nothing at the prompt.
            before.holders[prompt] = [h for h in before.holders[prompt] if all(
                h in arm.holders.get(prompt, ()) for arm in ends)]
        for result in op.results:
            if result in results and result.type.name == "prompt":
                self.reached(result, results[result])
            elif result in results:
                self.known[result] = Source(results[result])
            elif result in self.flow.spine:
                self.reached(result, self.one_state(op, result, ends))

    def one_state(self, op: Op, result: Value, ends: list[Arm]) -> str:
        """The state variable that all arms moved along the spine."""
        states = set()
        for region, arm in zip(op.regions, ends, strict=True):
            end = self.prompt(region.ops[-1].operands[result.index])
            states.add((arm.holders.get(end) or [""])[0])
        if len(states) > 1 or "" in states:
            raise unwritable("a branch between prompts of different states", op.loc)
        return states.pop()

    def hand_on(self, op: Op, region: Block, results: dict[Value, str]) -> None:
        """Name what the arm yields, at its end."""
        last = region.terminator
        if last is None:
            return
        for result, value in zip(op.results, last.operands, strict=True):
            if result not in results:
                continue
            if result.type.name != "prompt":
                self.line(f"{results[result]} = {self.write(value).text}")
                continue
            prompt = self.prompt(value)
            state = self.held(op, prompt)[-1]
            shared = len(self.at.holders[prompt]) == 1 and (
                prompt in self.flow.spine or self.flow.is_live_after(prompt, op)
                or sum(self.prompt(v) is prompt for v in last.operands
                       if isinstance(v, Value)) > 1)
            self.line(f"{results[result]} = {state}{'.fork(1)[0]' if shared else ''}")
