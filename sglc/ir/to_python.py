"""A program as Python in SGLang's language, from the IR of its prompt stage.

One state variable for each chain of prompts; where a prompt has several continuations, the
others are forks of it.  The forks and joins of a traced module stay what they are.  The source
runs: its text is that of the program it was made from.  Sampled text is too where the module is
as traced; forks that had to be written anew, and programs that the program calls (forks of its
empty prompt here), have other paths, and so other random numbers.

Host calls are written as calls by name: what they name is not in the IR.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

from sglc.ir import python_text
from sglc.ir.clone import clone_module
from sglc.ir.fork_form import canonical_forks, drop_offsets
from sglc.ir.module import Block, Lit, Module, Op, Operand, Program, Value
from sglc.ir.prompt_flow import Flow
from sglc.ir.python_source import Add, Branch, Line, With, render
from sglc.ir.python_state import (
    Arm,
    Group,
    Names,
    is_beside,
    is_item_of_argument,
    unwritable,
)
from sglc.ir.python_text import FormatPart, Source, text_literal
from sglc.ir.types import PROMPT

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


class _Writer:
    """Writes one program.  known: how values are written; at: the arm that is being written."""

    def __init__(self, program: Program, name: str) -> None:
        self.program = program
        self.name = name
        self.flow = Flow(program)
        for arg in program.args:
            if not arg.name.isidentifier() or keyword.iskeyword(arg.name):
                raise unwritable(f"the argument {arg.name!r}", program.loc)
        self.bound = {op.attrs["name"] for op in program.walk() if op.name == "prompt.bind"}
        self.names = Names([a.name for a in program.args])
        self.state = self.names.fresh("s")
        self.known: dict[Value, Source] = {a: Source(a.name) for a in program.args}
        self.groups: list[Group] = []
        self.hosts: dict[str, None] = {}
        self.at = Arm({}, {})

    def source(self) -> str:
        program = self.program
        root = self.flow.root
        if root is not None:
            self.at.holders[root] = [self.state]
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

    # -- statements ------------------------------------------------------------------------
    def line(self, text: str) -> None:
        self.at.statements.append(Line(text))

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

    def local(self, value: Value, source: Source) -> None:
        """A statement that names a value, or only computes it."""
        if not value.uses:
            if not is_item_of_argument(value):
                self.line(source.text)  # it may raise
            return
        name = self.names.fresh(value.name or "t")
        self.line(f"{name} = {source.text}")
        self.known[value] = Source(name)

    def chain(self, op: Op, name: str) -> None:
        state = self.step(op)
        role = op.attrs["role"] if name.startswith("role_") else ""
        if name == "append":
            part = self.write(op.operands[1])
            literal = op.operands[1].value if isinstance(op.operands[1], Lit) else None
            self.at.statements.append(Add(state, part.text, part.atomic, literal))
        elif role:
            self.at.statements.append(Add(state, f"sgl.{role}_{name[5:]}()", role=role,
                                          opens=name == "role_begin"))
        elif name == "bag":
            self.at.statements.append(Add(state, python_text.bag_call(op.operands[1:], self.write)))
        elif name == "image":
            if "text" in op.attrs:
                raise unwritable("an image without what the template has around it", op.loc)
            self.at.statements.append(Add(state, f"sgl.image({self.write(op.operands[1]).text})"))
        elif name == "special":
            self.at.statements.append(Add(
                state, f"sgl.special({text_literal(op.attrs['token'])})"))
        else:
            variable = self.variable(op, state)
            call = (python_text.gen_call(variable, op.attrs) if name == "gen"
                    else python_text.select_call(variable, op, self.write))
            self.define(state, variable, op.results[1], op)
            key = "None" if variable is None else text_literal(variable)
            self.known[op.results[2]] = Source(f"{state}.get_meta_info({key})")
            self.at.statements.append(Add(state, call))
        self.reached(op.results[0], state)

    def variable(self, op: Op, state: str) -> str | None:
        """The variable that the state gets from a gen or select: its name, unless that is for
        another value to have (a pass may have moved a gen out of a fork)."""
        name: str | None = op.attrs.get("name")
        if state != self.state or any(u.name == "prompt.bind" and u.attrs["name"] == name
                                      for u in op.results[1].uses):
            return name
        while name in self.bound:
            name = f"{name or 'text'}_"
        return name

    def reached(self, prompt: Value, state: str) -> None:
        """The state variable is at the prompt now."""
        self.at.holders[prompt] = [state]
        self.at.born[prompt] = len(self.at.statements)

    def scope(self, op: Op) -> None:
        """`with state.var_scope(...)` around the statements that a span is about."""
        begin, end = (self.prompt(o) for o in op.operands)
        state = self.held(op, end)[0]
        inside = begin.op is not None and begin.op.block is op.block
        first = self.at.born.get(begin) if inside and begin is not self.flow.root else 0
        if first is None:
            raise unwritable("a scope that overlaps another one", op.loc)
        while first < len(self.at.statements) and is_beside(self.at.statements[first], state):
            first += 1
        value = op.results[0]
        bind = next((u for u in value.uses if u.name == "prompt.bind"), None)
        name = self.names.fresh(value.name or "text") if bind is None else bind.attrs["name"]
        body = self.at.statements[first:]
        del self.at.statements[first:]
        self.at.born = {p: at for p, at in self.at.born.items() if at <= first}
        self.define(state, name, value, op)
        self.at.statements.append(With(f"{state}.var_scope({text_literal(str(name))})", body))
        self.at.born[end] = len(self.at.statements)

    def step(self, op: Op) -> str:
        """The state variable that goes on with `op`; its prompt keeps one if it is needed."""
        prompt = self.prompt(op.operands[0])
        holders = self.held(op, prompt)
        needed = self.flow.is_live_after(prompt, op)
        if self.flow.is_heir(op, prompt):
            state = holders[0]
            if needed and len(holders) == 1:
                holders.append(self.fork_one(state))
            holders.remove(state)
            return state
        if needed and len(holders) == 1:
            return self.fork_one(holders[0])
        return holders.pop()

    def fork_one(self, state: str) -> str:
        name = self.names.fresh("f")
        self.line(f"{name} = {state}.fork(1)[0]")
        return name

    def prompt(self, operand: Operand) -> Value:
        assert isinstance(operand, Value)
        return self.flow.same.get(operand, operand)

    def held(self, op: Op, prompt: Value) -> list[str]:
        holders = self.at.holders.get(prompt)
        if not holders:
            raise unwritable(f"a prompt that {op.name} goes back to", op.loc)
        return holders

    def holder(self, op: Op, operand: Operand) -> str:
        """A state variable that is at the prompt now."""
        return self.held(op, self.prompt(operand))[-1]

    # -- forks and joins -------------------------------------------------------------------
    def fork_(self, op: Op) -> None:
        owner = self.held(op, self.prompt(op.operands[0]))[0]
        size = len(op.results)
        joined = any(u.name == "prompt.join" and u.attrs["mode"] != "gather_variable"
                     for r in op.results for u in self.flow.users_of_chain(r))
        if size == 1 and not joined:
            name = self.names.fresh("f")
            self.line(f"{name} = {owner}.fork(1)[0]")
            self.reached(op.results[0], name)
            return
        group = Group(self.names.fresh("forks"), owner, size)
        self.groups.append(group)
        self.line(f"{group.name} = {owner}.fork({size})")
        for i, result in enumerate(op.results):
            self.reached(result, f"{group.name}[{i}]")

    def join_(self, op: Op) -> None:
        if op.attrs["mode"] == "gather_variable":
            return  # its variables are bound one by one
        parent, _, *children = (self.prompt(o) for o in op.operands)
        states = [self.held(op, c)[0] for c in children]
        owner = self.held(op, parent)[0]
        group = next((g for g in self.groups if g.owner == owner and states == [
            f"{g.name}[{i}]" for i in range(g.size)]), None)
        if group is None:
            raise unwritable("a join of prompts that are not one fork's", op.loc)
        holders = self.at.holders[parent]
        if self.flow.is_live_after(parent, op) and len(holders) == 1:
            holders.append(self.fork_one(owner))
        holders.remove(owner)
        self.line(f'{group.name}.join("{op.attrs["mode"]}")')
        self.reached(op.results[0], owner)

    # -- variables -------------------------------------------------------------------------
    def define(self, state: str, name: object, value: Value, op: Op) -> None:
        """The variable of a state becomes `value`; what it was before is kept if needed."""
        self.keep(state, name, op)
        self.at.defined[state, name] = value
        key = "None" if name is None else text_literal(str(name))
        self.known[value] = Source(f"{state}[{key}]")

    def keep(self, state: str, name: object, op: Op, *, inside: bool = False) -> None:
        old = self.at.defined.pop((state, name), None)
        if old is None:
            return
        if self.flow.is_live_after(old, op) or (inside and old in self.flow.reads_of(op)):
            kept = self.names.fresh(str(name), "{}_0")
            self.line(f"{kept} = {self.known[old].text}")
            self.known[old] = Source(kept)

    def bind_(self, op: Op) -> None:
        value, name = op.operands[0], op.attrs["name"]
        if isinstance(value, Value) and self.at.defined.get((self.state, name)) is value:
            return  # the gen has defined it
        written = self.write(value).text
        self.keep(self.state, name, op)
        self.line(f"{self.state}[{text_literal(str(name))}] = {written}")

    def read_(self, op: Op) -> None:
        for operand in op.operands[1:]:
            if isinstance(operand, Value) and operand.type == PROMPT:
                self.line(f"{self.holder(op, operand)}.sync()")
            else:
                self.line(self.write(operand).text)

    # -- control flow ----------------------------------------------------------------------
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

    # -- Python around the prompts ---------------------------------------------------------
    def host_(self, op: Op) -> None:
        name = re.sub(r"\W+", "_", str(op.attrs["fn"]).rpartition(".")[2]) or "host"
        if not name.isidentifier() or keyword.iskeyword(name):
            name = f"host_{name}"
        args = [self.write(o).text for o in op.operands[:op.attrs.get("args")]]
        if name == "as_text" and len(args) == 1:  # what appending a value means
            self.local(op.results[0], Source(args[0]))
            return
        self.hosts.setdefault(name)
        call = Source(f"{name}({', '.join(args)})")
        if op.results:
            self.local(op.results[0], call)
        else:
            self.line(call.text)

    def break_(self, op: Op) -> None:
        self.line(f"...  # traced at run time from here on: it needs {op.attrs['fn']}")

    def return_(self, op: Op) -> None:
        prompt, *value = op.operands
        if self.held(op, self.prompt(prompt))[0] != self.state:
            raise unwritable("a program that ends in a fork of its prompt", op.loc)
        if value and value[0] != Lit(None):
            self.line(f"return {self.write(value[0]).text}")

    # -- expressions -----------------------------------------------------------------------
    def write(self, operand: Operand) -> Source:
        if isinstance(operand, Lit):
            return python_text.literal(operand.value)
        known = self.known.get(operand)
        if known is not None:
            return known
        op = operand.op
        if op is None or not self.flow.is_inlined(op):
            raise unwritable(f"the value {operand!r}", op.loc if op is not None else None)
        return self.expression(op)

    def expression(self, op: Op) -> Source:
        if op.name == "prompt.list":
            return Source(f"[{', '.join([self.write(o).text for o in op.operands])}]")
        if op.name == "prompt.format":
            return python_text.format_text(self.format_parts(op), self.write, self.named)
        try:
            return python_text.compute(op, self.write)
        except KeyError:
            raise unwritable(f"the operation {op.attrs['fn']!r}", op.loc) from None

    def format_parts(self, op: Op) -> list[FormatPart]:
        """The parts of a format, those of formats in it included."""
        parts: list[FormatPart] = []
        for part in op.attrs["parts"]:
            if isinstance(part, str):
                parts.append(part)
                continue
            index, conversion, spec = part
            operand = op.operands[index]
            inner = operand.op if isinstance(operand, Value) else None
            if (inner is not None and inner.name == "prompt.format" and not conversion
                    and not spec and self.flow.is_inlined(inner)):
                parts += self.format_parts(inner)
            else:
                parts.append((operand, conversion or "", spec))
        return parts

    def named(self, expression: str) -> str:
        name = self.names.fresh("t")
        self.line(f"{name} = {expression}")
        return name
