"""Golden tests of passes: each tests/filecheck/<pass>/*.sglir says what to run and what to find.

The file holds a module, `// RUN: <pipeline>` and `// CHECK` lines (see tests/filecheck.py), and
maybe `// WITH: <options of sglc opt>`, what the passes know.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest

from sglc import ir
from sglc.cli import context_options
from tests.filecheck import CheckFailure, check

_FOLDER = Path(__file__).parent / "filecheck"
_FILES = sorted(_FOLDER.glob("*/*.sglir"))
_RUN = re.compile(r"^//\s*RUN:(.*)$", re.MULTILINE)
_WITH = re.compile(r"^//\s*WITH:(.*)$", re.MULTILINE)


def pipelines(source: str) -> list[str]:
    """The specs of the RUN lines of a file."""
    return [spec.strip() for spec in _RUN.findall(source)]


def facts(source: str) -> dict[str, Any]:
    """The facts that the WITH line of a file gives."""
    parser = argparse.ArgumentParser()
    context_options(parser)
    found = _WITH.search(source)
    given = parser.parse_args(found[1].split() if found else [])
    return {"rows": given.rows, "max_tokens": given.max_tokens, "may_stop": not given.no_stops}


@pytest.mark.parametrize("path", _FILES, ids=lambda p: str(p.relative_to(_FOLDER)))
def test_passes_leave_what_the_file_demands(path: Path) -> None:
    from sglc.passes import PassManager
    from tests.helpers_passes import make_context

    source = path.read_text(encoding="utf-8")
    specs = pipelines(source)
    assert specs, "the file has no RUN line"
    for spec in specs:
        module = ir.parse(source, file=path.name)
        ir.verify(module)
        after = PassManager(spec).run(module, make_context(**facts(source)))
        ir.verify(after)
        text = ir.print(after)
        assert ir.parse(text) == after
        check(text, source)


TEXT = """\
program @f() {
  %p0 = prompt.root
  %p1 = prompt.append %p0,   "hi"  // a.py:1:1
  %p2 = prompt.append %p1, "ho"
  prompt.return %p2
}"""


@pytest.mark.parametrize("demands", [
    "// CHECK: prompt.root\n// CHECK: prompt.return",
    "// CHECK: prompt.root\n// CHECK-NEXT: append %p0, \"hi\"\n// CHECK-SAME: a.py:1:1",
    "// CHECK: [[A:%p[0-9]+]] = prompt.append\n// CHECK: append [[A]], {{\"h.\"}}",
    "// CHECK: prompt.root\n// CHECK-NOT: gen\n// CHECK: prompt.return\n// CHECK-NOT: append",
    "x // CHECK-NOT: prompt.gen",
    "// CHECK: [[P:%p.]] = prompt.append %p0\n// CHECK-NOT: [[P]] =",
    "// CHECK: append [[X:%p.]], \"hi\"\n// CHECK: append [[X:%p.]], \"ho\"\n// CHECK: return",
])
def test_demands_that_are_met(demands: str) -> None:
    check(TEXT, demands)


@pytest.mark.parametrize("demands", [
    "// CHECK: prompt.return\n// CHECK: prompt.root",
    "// CHECK: prompt.root\n// CHECK-NEXT: prompt.return",
    "// CHECK: prompt.root\n// CHECK-SAME: append",
    "// CHECK: \"ho\"\n// CHECK-NEXT: return\n// CHECK-NEXT: }\n// CHECK-NEXT: more",
    "// CHECK: root\n// CHECK-NOT: \"hi\"\n// CHECK: return",
    "// CHECK: root\n// CHECK-NOT: return",
    "// CHECK-NOT: root\n// CHECK: return",
    "// CHECK: [[A:%p.]] = prompt.root\n// CHECK: [[A]] = prompt.append",
])
def test_demands_that_are_not_met(demands: str) -> None:
    with pytest.raises(CheckFailure):
        check(TEXT, demands)


@pytest.mark.parametrize("demands", ["", "// CHECK-NEXT: a", "// CHECK-SAME: a",
                                     "// CHECK-LAST: a", "// CHECK: [[NOBODY]]"])
def test_demands_that_make_no_sense(demands: str) -> None:
    with pytest.raises(ValueError, match=r"CHECK|NOBODY"):
        check(TEXT, demands)


def test_pipelines_are_read_from_run_lines() -> None:
    assert pipelines("// RUN: fold,hoist-prefixes{min-tokens=16}\nx\n//RUN:fold\n") == [
        "fold,hoist-prefixes{min-tokens=16}", "fold"]
