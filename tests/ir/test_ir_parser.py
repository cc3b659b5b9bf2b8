"""The text form: how it looks, what it accepts, and how it complains."""

from __future__ import annotations

import pytest

from sglc import ir
from sglc.errors import IRError, Place
from sglc.ir import types
from sglc.ir.module import Lit, Op, Program

TOOL_USE = """\
program @tool_use(%question: !text) returns ("tool", "word") attrs {stage = "prompt"} {  // tool.py:12:1
  %p0 = prompt.root {template = "tokenizer"}
  %p1 = prompt.append %p0, "To answer: \\"é\\"\\n"  // tool.py:14:5
  %p2 = prompt.append %p1, %question
  %p3, %tool: !choice<"calculator", "search engine">, %scores = prompt.select %p2, "calculator", "search engine" {name = "tool", path = [0, 1]}  // tool.py:15:5
  %v: !any = prompt.list "a", [], [null, [1, 2.0, -inf, nan]], true, false, null, 1e+16
  %p4: !prompt, %word: !text = prompt.switch %tool {  // tool.py:16:5
    case "calculator" {
      %p5, %w: !text, %m = prompt.gen %p3 {name = "word", path = [2], stop = ["\\n"]}
      prompt.yield %p5, %w
    }
    default {
      prompt.yield %p3, "none"
    }
  }
  %n: !int = prompt.if true, %word then (%x: !text) {
    prompt.yield 1
  } else (%y: !text) {
    prompt.yield 2
  }
  plan.group {rows = [0, 1]} {  // <stdin>:3:1
    plan.yield
  }
  prompt.return %p4, %tool
}
"""  # noqa: E501


def test_the_text_form_is_stable() -> None:
    module = ir.parse(TOOL_USE)
    ir.verify(module)
    assert ir.print(module) == TOOL_USE


def test_what_is_read() -> None:
    program = ir.parse(TOOL_USE).programs["tool_use"]
    assert program.returns == ("tool", "word")
    assert program.attrs == {"stage": "prompt"}
    assert program.loc == Place("tool.py", 12, 1)
    ops = program.body.ops
    assert ops[1].operands[1] == Lit('To answer: "é"\n')
    assert ops[1].loc == Place("tool.py", 14, 5)
    assert ops[2].operands[1] is program.args[0]
    assert ops[3].attrs == {"name": "tool", "path": (0, 1)}
    assert [r.type for r in ops[3].results] == [
        types.PROMPT, types.choice("calculator", "search engine"), types.SCORES]
    values = [o.value for o in ops[4].operands]  # type: ignore[union-attr]
    assert values[:3] == ["a", (), (None, (1, 2.0, float("-inf"), values[2][1][3]))]
    assert values[3:] == [True, False, None, 1e16]
    assert [r.label for r in ops[5].regions] == ["calculator", "default"]
    assert ops[5].results[1].name == "word"


def test_comments_blank_lines_notes_and_short_places() -> None:
    text = """\
// RUN: fold
// a.py:1:1

program @f() { // begins

  // a comment  // x.py:3:4
  %p = prompt.root   [= 1 tok] [~ 2, 3]   // a b.py:7
\t%q = prompt.append %p, "x // [= y]"  [# note]  // see below
  prompt.return %q // "\\"odd\\n":1:2

} // end
// after"""
    for line_end in ("\n", "\r\n"):
        module = ir.parse(text.replace("\n", line_end))
        ops = module.programs["f"].body.ops
        assert [op.loc for op in ops] == [Place("a b.py", 7, 1), None, Place('"odd\n', 1, 2)]
        assert ops[1].operands[1] == Lit("x // [= y]")
        assert module.programs["f"].loc is None


def test_empty_text() -> None:
    assert ir.parse("") == ir.parse("\n  // nothing\n") == ir.Module()
    assert ir.print(ir.Module()) == ""


def test_names() -> None:
    program = Program("f", [("x", types.TEXT), ("odd name", types.TEXT), ("हिन्दी", types.TEXT)])
    block = program.body
    root = block.append(Op("prompt.root", (), None, (types.PROMPT,)))
    value = root.results[0]
    for hint in ("x", "a b", "x", "", "p1", "x_1", "a_b"):
        op = Op("prompt.append", [value, program.args[1]], None, (types.PROMPT,), (), None, [hint])
        value = block.append(op).results[0]
    block.append(Op("prompt.return", [value]))
    text = ir.print_program(program)
    names = [line.split(" = ")[0].strip() for line in text.split("\n")[1:-3]]
    assert names == ["%p0", "%x_1", "%a_b", "%x_2", "%p1", "%p1_1", "%x_1_1", "%a_b_1"]
    assert text.startswith('program @f(%x: !text, %"odd name": !text, %"हिन्दी": !text) {')
    again = ir.parse(text)
    assert again == ir.Module([program])
    assert ir.print(again) == text


def test_elision_keeps_both_ends() -> None:
    module = ir.parse('program @f() {\n  %p = prompt.root\n  %q = prompt.append %p, "'
                      + "a" * 50 + "b" * 50 + '"\n  prompt.return %q\n}')
    assert '"aaaaabbbbb' not in ir.print(module, elide=10)
    assert '%p, "aaaaa…bbbbb"⟨100 chars⟩' in ir.print(module, elide=10)


BODY = "program @f(%a: !text) {{\n  %p = prompt.root\n  {}\n}}\n"
ERRORS = [
    # text, line, column, message
    ("x", 1, 1, "expected 'program', found 'x'"),
    ("program f() {\n}", 1, 9, "expected a program name (@name)"),
    ("program @f() {\n", 1, 15, "expected one of '}', a value (%name), an operation, found "
                                "the end of the text"),
    ("program @f() {\n}\nprogram @f() {\n}", 3, 9, "program @f is defined twice"),
    (BODY.format("%x = prompt.frobnicate"), 3, 8, "unknown operation prompt.frobnicate"),
    (BODY.format('%x = prompt.apend %p, "x"'), 3, 8, "is it prompt.append?"),
    (BODY.format("%x = prompt.append %p"), 3, 8, "prompt.append has 2 operands, 1 given"),
    (BODY.format("prompt.select"), 3, 3, "prompt.select has 1 or more operands, 0 given"),
    (BODY.format('prompt.append %p, "x"'), 3, 3, "prompt.append has 1 results, 0 given"),
    (BODY.format("%x = prompt.append %p, %y"), 3, 26, "%y is not defined"),
    (BODY.format("%x = prompt.append %x, %a"), 3, 22, "%x is not defined"),
    (BODY.format("%p = prompt.root"), 3, 3, "%p is defined twice (first in line 2)"),
    (BODY.format("%a = prompt.root"), 3, 3, "%a is defined twice (first in line 1)"),
    (BODY.format("%x = prompt.list"), 3, 3, "the type of %x must be written"),
    (BODY.format("%x: !frob = prompt.list"), 3, 7, "unknown type !frob"),
    (BODY.format("%x: !choice = prompt.list"), 3, 7, "!choice takes one or more texts"),
    (BODY.format('%x: !choice<"a", "a"> = prompt.list'), 3, 7, "must be distinct"),
    (BODY.format('%x = prompt.append %p, "x'), 3, 26, "this string does not end"),
    (BODY.format(r'%x = prompt.append %p, "\x"'), 3, 26, "invalid escape"),
    (BODY.format("plan.group {rows = 1, rows = 2} {\n  plan.yield\n}"), 3, 25,
     "attribute rows is given twice"),
    (BODY.format("%x = prompt.root {template = }"), 3, 32, "expected one of"),
    (BODY.format("%x = prompt.root, prompt.root"), 3, 19, "found ','"),
    (BODY.format("prompt.if %p then {\n  prompt.yield\n}"), 5, 2, "expected 'else'"),
    (BODY.format("prompt.switch %a {\n}"), 3, 3, 'written { case "x" { ... } default'),
    (BODY.format("prompt.if %a {\n}"), 3, 3, "written then { ... } else { ... }"),
    (BODY.format("plan.group then {\n} else {\n}"), 3, 3, "written { ... }"),
    (BODY.format("plan.group {rows = 1} {\n    %z = kv.root\n  plan.yield\n  }\n  kv.release %z"),
     7, 14, "%z is defined in a region that ended"),
    (BODY.format("%x: !int = prompt.list " + "7" * 5000), 3, 26, "this integer is too long"),
    (BODY.format("kv.release %p // a.py:" + "7" * 5000), 3, 17, "too many digits"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS)
def test_errors_say_what_and_where(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(IRError) as caught:
        ir.parse(text, file="x.sglir")
    diagnostic = caught.value.diagnostic
    assert diagnostic.code == "SGLC202"
    assert message in diagnostic.what
    place = diagnostic.place
    assert place is not None
    # The end of the text is where the last line ends, or the line after.
    assert (place.file, place.line) == ("x.sglir", line)
    assert place.col == column
    shown = diagnostic.what.split("\n")[1]
    assert shown.startswith(f"  {line} | ")
    assert len(shown) < 120


@pytest.mark.parametrize("literal", ["[" * 65 + "]" * 65, "[" * 20_000, "[1, " * 200 + "]" * 200])
def test_deep_literals_are_errors(literal: str) -> None:
    with pytest.raises(IRError, match="SGLC202"):
        ir.parse(BODY.format("%x: !json = prompt.list " + literal))


def test_deep_types_and_regions_are_errors() -> None:
    kind = "!list<" * 5000 + "!int" + ">" * 5000
    with pytest.raises(IRError, match="nested too deep"):
        ir.parse(BODY.format(f"%x: {kind} = prompt.list"))
    with pytest.raises(IRError, match="regions are nested more than 100 deep"):
        ir.parse(BODY.format("plan.group {rows = []} {\n" * 2000 + "}\n" * 2000))
    with pytest.raises(IRError, match="SGLC202"):
        ir.parse(BODY.format("plan.group {rows = []} {\n" * 5000))


def test_nesting_within_the_bounds() -> None:
    literal = "[" * 64 + "]" * 64
    module = ir.parse(BODY.format(f"%x: !json = prompt.list {literal}\n"
                                  + "plan.group {rows = []} {\n" * 99
                                  + "plan.yield\n}\n" * 99 + "prompt.return %p"))
    ir.verify(module)
    assert ir.parse(ir.print(module)) == module
    assert ir.from_json(ir.to_json(module)) == module
    assert module.clone() == module


@pytest.mark.parametrize("junk", ["\x00", "{" * 1000, "%" * 100, "\ud800", "program @f(", "\\" * 9,
                                  '"' * 101, "}", "//" * 1000, "[= x", "program @\"\\\" {"])
def test_junk_is_an_error(junk: str) -> None:
    for text in (junk, TOOL_USE[:300] + junk + TOOL_USE[300:]):
        try:
            ir.parse(text)
        except IRError as error:
            assert error.code == "SGLC202"


def test_every_cut_of_a_text_is_an_error_or_a_module() -> None:
    for end in range(0, len(TOOL_USE), 7):
        try:
            ir.parse(TOOL_USE[:end])
        except IRError as error:
            assert error.code == "SGLC202"
