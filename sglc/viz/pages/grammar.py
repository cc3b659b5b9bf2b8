"""The grammar page: the automaton of each constraint, with its jumps."""

from __future__ import annotations

from sglc.grammar.fsm import FsmConstraint
from sglc.ir.module import Op
from sglc.passes.constraints import compiled, constrained
from sglc.viz.escape import short
from sglc.viz.fsm import MOST_STATES, compressed, draw
from sglc.viz.markup import Html, el, many, raw
from sglc.viz.pages import Page
from sglc.viz.pages.places import brief
from sglc.viz.subject import Subject

_DRAWN = 16
_PATTERN = 2000  # characters


def page(subject: Subject) -> Page:
    module = subject.drawn
    groups: dict[tuple[str, str], list[Op]] = {}
    for op in module.walk() if module is not None else ():
        for kind, what in constrained(op).items():
            groups.setdefault((kind, str(what)), []).append(op)
    if not groups:
        return Page("grammar", "Grammar", el(
            "p", "No generation of this program is bound to a regex, a schema or a grammar.",
            class_="lead"))
    parts: list[Html] = [el(
        "p", "States are positions in the text; double rings may end it.  A bold edge is a jump: "
        "its text is forced, and the engine appends it without asking the model.", class_="lead")]
    for number, ((kind, what), ops) in enumerate(groups.items()):
        parts.append(_constraint(subject, kind, what, ops, number < _DRAWN))
    return Page("grammar", "Grammar", many(parts))


def _constraint(subject: Subject, kind: str, what: str, ops: list[Op], drawn: bool) -> Html:
    names = list(dict.fromkeys(str(op.attrs.get("name") or "gen") for op in ops))
    head = el("h3", short(", ".join(names), 80), " ",
              el("small", f"{brief(ops[0].loc)}, {len(ops)} call{'s' if len(ops) > 1 else ''}"))
    parts: list[object] = [head, el("pre", f"{kind}: {short(what, _PATTERN)}", class_="pattern")]
    constraint = None if subject.tokenizer is None else compiled(ops[0], subject.tokenizer)
    if isinstance(constraint, FsmConstraint) and drawn:
        automaton = constraint.automaton
        machine = compressed(automaton)
        jumps = sum(e.jump for e in machine.edges)
        longest = constraint.max_tokens()
        parts.append(el("p", f"{len(automaton.accepting)} states, {automaton.atoms.count} classes "
                        f"of characters; drawn with {len(machine.states)} states and {jumps} jumps"
                        + (f" (the nearest {MOST_STATES}; {machine.left_out} more)"
                           if machine.left_out else "")
                        + (f"; at most {longest} bytes" if longest is not None else
                           "; texts of any length"), class_="note"))
        parts.append(el("div", raw(draw(machine, f"automaton of {names[0]}")), class_="scroll"))
    elif constraint is None:
        parts.append(el("p", "There are no tokens to compile it for.", class_="note"))
    elif drawn:
        parts.append(el("p", "It is recursive or too large for an automaton of its own: a parser "
                        "enforces it token by token (llguidance).", class_="note"))
    return el("section", parts, class_="constraint")
