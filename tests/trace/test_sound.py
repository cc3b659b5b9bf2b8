"""What a value that has not failed says of those it comes from."""

from __future__ import annotations

import pytest

import sglc as sgl
from sglc.ir.module import Value
from sglc.trace.sound import Sound

BRANCH = """\
program @main(%q: !bool) {
  %p0 = prompt.root
  %p1, %a: !text, %m1 = prompt.gen %p0 {path = [0]}
  %p2, %b: !text, %m2 = prompt.gen %p0 {path = [1]}
  %p3, %c: !text, %m3 = prompt.gen %p0 {path = [2]}
  %x: !text, %y: !text, %z: !text = prompt.if %q then {
    %p4, %d: !text, %m4 = prompt.gen %p1 {path = [3]}
    %t = prompt.format %b, %c {parts = [[0, "", ""], [1, "", ""]]}
    prompt.yield %t, %d, %b
  } else {
    prompt.yield %b, "none", "none"
  }
  prompt.return %p0
}
"""
LOOP = """\
program @main(%n: !int) {
  %p0 = prompt.root
  %p1, %a: !text, %m1 = prompt.gen %p0 {path = [0]}
  %p2, %b: !text, %m2 = prompt.gen %p0 {path = [1]}
  %p5: !prompt, %e: !text, %f: !text, %l: !list<!text>, %k: !list<!text> = prompt.for %n, %p1, \
%b, %b {collected = 2} (%i: !int, %p3: !prompt, %v: !text, %w: !text) {
    %p4, %c: !text, %m3 = prompt.gen %p3 {offset = [0], path = [2]}
    %p6, %d: !text, %m4 = prompt.gen %p0 {offset = [0], path = [3]}
    prompt.yield %p4, %d, %w, %c, %d
  }
  %g: !text = prompt.compute %k, 0 {fn = "getitem"}
  prompt.return %p0
}
"""


@pytest.mark.parametrize(("text", "read", "known"), [
    (BRANCH, "x", "b p2 x z"),  # of what one arm needs, nothing
    (BRANCH, "y", "y"),
    (BRANCH, "z", "z"),
    (LOOP, "p5", "a l p1 p5"),  # each round goes on from the one before
    (LOOP, "e", "e"),  # of the last round alone
    (LOOP, "f", "b f p2"),
    (LOOP, "l", "l"),  # there may be no round
    (LOOP, "k", "k"),
    (LOOP, "g", "g")])  # of one round
def test_what_is_known(text: str, read: str, known: str) -> None:
    (program,) = sgl.ir.parse(text).programs.values()
    values: dict[str, Value] = {
        v.name: v for op in program.body.ops for v in op.results if v.name[0] != "m"}
    sound = Sound()
    sound.note_read(values[read])
    assert " ".join(sorted(n for n, v in values.items() if sound.is_read(v)
                           and n != "p0")) == known
