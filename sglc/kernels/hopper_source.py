"""The source of a kernel for Hopper: its numbers, its products, what it is made of, and its text.

A product of a warpgroup (`wgmma`) names every register of its sums, so its text is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import torch

KINDS = {torch.bfloat16: "bf16", torch.float16: "f16"}


@dataclass(frozen=True, slots=True)
class Product:
    """d += a b for 64 rows of a and `columns` of d, 16 terms each; d = a b if not `more`.

    In the source: name(float (&d)[columns / 2], a, u64 b, int more), b by its descriptor.  Rows of
    b in shared memory are columns of d, or the terms if `terms_first`.  registers: a is
    u32 (&a)[4], this thread's share of it, else a descriptor.
    """

    name: str
    columns: int
    registers: bool = False
    terms_first: bool = False

    @property
    def signature(self) -> str:
        a = "const u32 (&a)[4]" if self.registers else "u64 a"
        return f"DEVICE void {self.name}(float (&d)[{self.columns // 2}], {a}, u64 b, int more)"

    def ptx(self, kind: str) -> str:
        """The function, for numbers of `kind`."""
        sums = self.columns // 2
        words = 4 if self.registers else 1
        a = ", ".join(f"%{sums + i}" for i in range(words))
        if self.registers:
            a = f"{{{a}}}"
        given = ", ".join(f'"r"(a[{i}])' for i in range(4)) if self.registers else '"l"(a)'
        b, more = sums + words, sums + words + 1
        order = f"{'' if self.registers else '0, '}{int(self.terms_first)}"
        return f"""\
{self.signature} {{
  asm volatile("{{\\n.reg .pred p;\\nsetp.ne.b32 p, %{more}, 0;\\n"
    "wgmma.mma_async.sync.aligned.m64n{self.columns}k16.f32.{kind}.{kind} "
    "{{{', '.join(f'%{i}' for i in range(sums))}}}, {a}, %{b}, p, 1, 1, {order};\\n}}"
    : {', '.join(f'"+f"(d[{i}])' for i in range(sums))} : {given}, "l"(b), "r"(more));
}}
"""


@dataclass(frozen=True, slots=True)
class HopperSource:
    """file: of the kernel, in this package.  values: what it is compiled with."""

    file: str
    kind: torch.dtype
    values: Mapping[str, int | str]
    products: tuple[Product, ...]

    @property
    def defines(self) -> str:
        """The numbers."""
        kind = KINDS[self.kind]
        values = {"KIND": f'"{kind}"', "BF16": int(kind == "bf16"), **self.values}
        return "".join(f"#define {name} {value}\n" for name, value in values.items())

    def cuda(self) -> str:
        """All of it."""
        return "".join((self.defines, text("hopper.cuh"), text("hopper_ptx.cuh"),
                        *(p.ptx(KINDS[self.kind]) for p in self.products), text(self.file)))


def text(name: str) -> str:
    """A source file of this package."""
    return files("sglc.kernels").joinpath(name).read_text("utf-8")
