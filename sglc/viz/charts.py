"""Small SVG charts: axes with round numbers, steps, areas, lines.

Plain geometry; what is drawn is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sglc.viz.escape import escaped
from sglc.viz.shapes import text

LEFT, RIGHT, TOP, BOTTOM = 150.0, 24.0, 18.0, 34.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's inside: `wide` x `high` pixels for x from 0 to `right` and y from 0 to `top`."""

    wide: float
    high: float
    right: float
    top: float

    def x(self, value: float) -> float:
        return LEFT + self.wide * (value / self.right if self.right else 0.0)

    def y(self, value: float) -> float:
        return TOP + self.high * (1 - (value / self.top if self.top else 0.0))

    def svg(self, parts: Sequence[str], name: str) -> str:
        """The parts as a picture."""
        wide, high = LEFT + self.wide + RIGHT, TOP + self.high + BOTTOM
        return (f'<svg xmlns="http://www.w3.org/2000/svg" class="sglc chart fits" role="img" '
                f'width="{wide:.0f}" height="{high:.0f}" viewBox="0 0 {wide:.0f} {high:.0f}">'
                f"<title>{escaped(name)}</title>" + "".join(parts) + "</svg>")

    def across(self, unit: str) -> list[str]:
        """The x axis, with its unit."""
        base = TOP + self.high
        out = [f'<path class="axis" d="M{LEFT:.1f},{base:.1f} h{self.wide:.1f}"/>']
        for value in ticks(self.right):
            x = self.x(value)
            out.append(f'<path class="axis" d="M{x:.1f},{base:.1f} v4"/>')
            out.append(text(x, base + 15, _number(value), "small", "middle"))
        return [*out, text(LEFT + self.wide, base + 29, unit, "small", "end")]

    def up(self, unit: str) -> list[str]:
        """The y axis, with its unit."""
        out = [f'<path class="axis" d="M{LEFT:.1f},{TOP:.1f} v{self.high:.1f}"/>']
        for value in ticks(self.top, 4):
            y = self.y(value)
            out.append(f'<path class="axis" d="M{LEFT - 4:.1f},{y:.1f} h4"/>')
            out.append(text(LEFT - 8, y + 3, _number(value), "small", "end"))
        return [*out, text(8, TOP + 8, unit, "small")]

    def stairs(self, points: Sequence[tuple[float, float]]) -> str:
        """A path that keeps each value until the next x."""
        out, last = [], 0.0
        for i, (x, y) in enumerate(points):
            out.append(f"M{self.x(x):.1f},{self.y(0):.1f} V{self.y(y):.1f}" if i == 0 else
                       f"H{self.x(x):.1f} V{self.y(y):.1f}")
            last = x
        return " ".join([*out, f"H{self.x(max(last, self.right)):.1f} V{self.y(0):.1f} Z"])

    def polyline(self, points: Sequence[tuple[float, float]]) -> str:
        """A path from point to point."""
        return " ".join(f"{'L' if i else 'M'}{self.x(x):.1f},{self.y(y):.1f}"
                        for i, (x, y) in enumerate(points))


def ticks(most: float, count: int = 8) -> list[float]:
    """Round values from 0 up to `most`, about `count` of them."""
    if most <= 0:
        return [0.0]
    raw = most / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return [i * step for i in range(int(most / step + 1e-9) + 1)]


def thinned(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """At most about `most` points: of each stretch of x the highest one."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    return [max(points[i:i + size], key=lambda p: p[1]) for i in range(0, len(points), size)]


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"
