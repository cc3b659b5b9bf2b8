"""Writes the prompts of a program as Python: which state variable is at which prompt.

Where a prompt has several continuations, the others are forks of its state.  Knows no branches:
what the arms of one leave behind is in `to_python.py`.
"""

from __future__ import annotations

from sglc.ir import python_text
from sglc.ir.module import Lit, Op, Operand, Program, Value
from sglc.ir.python_source import Add, With
from sglc.ir.python_state import Group, is_beside, unwritable
from sglc.ir.python_text import Source, text_literal
from sglc.ir.python_values import ValueWriter
from sglc.ir.types import PROMPT


class PromptWriter(ValueWriter):
    """Writes what is added to states, their forks and joins, and their variables.

    state: the program's own; bound: the variables that it has when it ends.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.bound = {op.attrs["name"] for op in program.walk() if op.name == "prompt.bind"}
        self.state = self.names.fresh("s")
        self.groups: list[Group] = []
        if self.flow.root is not None:
            self.at.holders[self.flow.root] = [self.state]

    # -- states ---------------------------------------------------------------------------
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

    def reached(self, prompt: Value, state: str) -> None:
        """The state variable is at the prompt now."""
        self.at.holders[prompt] = [state]
        self.at.born[prompt] = len(self.at.statements)

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

    # -- parts ----------------------------------------------------------------------------
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

    # -- forks and joins ------------------------------------------------------------------
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

    # -- variables ------------------------------------------------------------------------
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
