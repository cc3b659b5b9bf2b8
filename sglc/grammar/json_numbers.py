"""Numbers of a range as JSON texts: automata over digits.  Knows no schemas.

A JSON number is a decimal, and most readers round it to a float.  The texts here satisfy the
bounds either way: an exclusive bound is taken for the next float inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from sglc.grammar.charset import CharSet
from sglc.grammar.machines import explored
from sglc.grammar.nfa import Limits, TooLarge
from sglc.grammar.syntax import NOTHING, Node, alternative, chars, concat, repeat, words

_DIGITS = "0123456789"
_PLACES = 30  # of a bound's fraction; what lies beyond is left out
_LARGEST = 10 ** 40  # of bounds
_CONTEXT = Context(prec=400)
_DIGIT = chars(CharSet([(0x30, 0x39)]))
_FROM_ONE = chars(CharSet([(0x31, 0x39)]))
_INTEGER = alternative([words(["0"]), concat([_FROM_ONE, repeat(_DIGIT, 0, None)])])
_FRACTION = concat([".", repeat(_DIGIT, 1, None)])
_E = words(["e", "E"])
INTEGER = concat([repeat(words(["-"]), 0, 1), _INTEGER])
NUMBER = concat([INTEGER, repeat(_FRACTION, 0, 1), repeat(concat(
    [_E, repeat(words(["+", "-"]), 0, 1), repeat(_DIGIT, 1, None)]), 0, 1)])
"""Any number: the grammar of RFC 8259."""
# What floats are commonly written as beyond 0.0001 and 1e16.
_TINY = concat([_FROM_ONE, repeat(_FRACTION, 0, 1), _E, "-",
                alternative([concat([repeat(words(["0"]), 0, 1), chars(CharSet([(0x35, 0x39)]))]),
                             concat([_FROM_ONE, _DIGIT]),
                             concat([words(["1", "2"]), _DIGIT, _DIGIT])])])
_HUGE = concat([_FROM_ONE, repeat(_FRACTION, 0, 1), _E, repeat(words(["+"]), 0, 1),
                alternative([concat(["1", chars(CharSet([(0x36, 0x39)]))]),
                             concat([chars(CharSet([(0x32, 0x39)])), _DIGIT]),
                             concat([words(["1", "2"]), _DIGIT, _DIGIT])])])
_TINY_FROM, _HUGE_FROM = Fraction(1, 10 ** 4), Fraction(10 ** 16)


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high` (None: no bound), the bounds themselves in or out."""

    low: Fraction | None = None
    high: Fraction | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def unbounded(self) -> bool:
        return self.low is None and self.high is None

    @property
    def empty(self) -> bool:
        if self.low is None or self.high is None:
            return False
        return self.low > self.high or (
            self.low == self.high and (self.low_open or self.high_open))

    def holds(self, value: Fraction) -> bool:
        above = self.low is None or value > self.low or (value == self.low and not self.low_open)
        below = self.high is None or value < self.high or (
            value == self.high and not self.high_open)
        return above and below

    def mirrored(self) -> Range:
        """The range of the numbers with the other sign."""
        return Range(None if self.high is None else -self.high,
                     None if self.low is None else -self.low, self.high_open, self.low_open)

    def both(self, other: Range) -> Range:
        low, low_open = _tighter((self.low, self.low_open), (other.low, other.low_open), max)
        high, high_open = _tighter((self.high, self.high_open), (other.high, other.high_open), min)
        return Range(low, high, low_open, high_open)


def _tighter(one: tuple[Fraction | None, bool], two: tuple[Fraction | None, bool],
             pick: Callable[[Fraction, Fraction], Fraction]) -> tuple[Fraction | None, bool]:
    if one[0] is None or two[0] is None:
        return two if one[0] is None else one
    if one[0] == two[0]:
        return one[0], one[1] or two[1]
    return one if pick(one[0], two[0]) == one[0] else two


def integers(within: Range, multiple: int | None, limits: Limits) -> Node:
    """The integers of a range, in digits; with `multiple`, its multiples."""
    if within.unbounded and multiple is None:
        return INTEGER
    low = high = None
    if within.low is not None:
        low = math.ceil(within.low) + (within.low_open and within.low.denominator == 1)
    if within.high is not None:
        high = math.floor(within.high) - (within.high_open and within.high.denominator == 1)

    def digits(least: int, most: int | None) -> Node:
        return _decimals(Decimal(least), None if most is None else Decimal(most), multiple, False,
                         limits)

    return _signed(low, high, 1, digits)


def numbers(within: Range, limits: Limits) -> Node:
    """The numbers of a range: integers, decimals, and very small and large ones as floats are
    commonly written."""
    if within.unbounded:
        return NUMBER
    low = None if within.low is None else _inside(within.low, within.low_open, math.inf)
    high = None if within.high is None else _inside(within.high, within.high_open, -math.inf)

    def decimals(least: Fraction, most: Fraction | None) -> Node:
        return _decimals(_decimal(least, math.ceil),
                         None if most is None else _decimal(most, math.floor), None, True, limits)

    options = [integers(within, None, limits), _signed(low, high, 0, decimals)]
    for sign, side in (("", within), ("-", within.mirrored())):
        if (side.low is None or side.low <= 0) and (side.high is None or side.high > _TINY_FROM):
            options.append(concat([sign, _TINY]))
        if side.high is None and (side.low is None or side.low < _HUGE_FROM):
            options.append(concat([sign, _HUGE]))
    node = alternative(options)
    if node == NOTHING and not within.empty:
        raise TooLarge(f"its bounds differ by less than {_PLACES} decimal places show")
    return node


def _signed(low: Fraction | int | None, high: Fraction | int | None, least_negative: int,
            texts: Callable[..., Node]) -> Node:
    """Both signs' texts, from `texts(least, most)` of the magnitudes."""
    options = []
    if high is None or high >= 0:
        options.append(texts(max(low or 0, 0), high))
    if low is None or low < 0:
        least = least_negative if high is None else max(least_negative, -high)
        if low is None or -low >= least:
            options.append(concat(["-", texts(least, None if low is None else -low)]))
    return alternative(options)


def _inside(bound: Fraction, is_open: bool, inward: float) -> Fraction:
    """The bound as a float, moved inward to where floats are inside of it."""
    if abs(bound) > _LARGEST:
        bound = Fraction(_LARGEST if bound > 0 else -_LARGEST)
    if bound == 0 and is_open:  # the next float has more than 300 zeros
        return Fraction(1 if inward > 0 else -1, 10 ** 25)
    value = float(bound)
    outside = (lambda v: v < bound or (is_open and v == bound)) if inward > 0 else (
        lambda v: v > bound or (is_open and v == bound))
    while outside(Fraction(value)):
        value = math.nextafter(value, inward)
    # What the float is written as may lie on its other side.
    return Fraction(Decimal(repr(value)))


def _decimal(value: Fraction, rounded: Callable[[Fraction], int]) -> Decimal:
    """At most `_PLACES` digits of fraction."""
    return Decimal(rounded(value * 10 ** _PLACES)).scaleb(-_PLACES, _CONTEXT)


def _split(value: Decimal | None) -> tuple[str, str]:
    whole, _, fraction = format(value or Decimal(0), "f").partition(".")
    return whole, fraction.rstrip("0")


# States of the digit automata: ("int", digits so far, order against the prefix of low, of high,
# remainder) and ("frac", place in low's fraction, in high's, whether a digit was read); a place
# of None says that the bound no longer binds.
_Int = tuple[str, int, int, int, int]
_Frac = tuple[str, "int | None", "int | None", bool]


def _decimals(low: Decimal, high: Decimal | None, multiple: int | None, fraction: bool,
              limits: Limits) -> Node:
    """Unsigned decimals without exponent from `low` >= 0 to `high`: integers (multiples of
    `multiple`), or with `fraction` those with a fraction part."""
    (low_int, low_frac), (high_int, high_frac) = _split(low), _split(high)
    longest = max(len(low_int), len(high_int) if high is not None else 0) + 1

    def against(count: int, order: int, bound: str) -> int:
        """Order of a number of `count` digits against the bound, given that of its prefix."""
        count = abs(count)
        return order if count == len(bound) else count - len(bound)

    def ended(state: _Int) -> tuple[int, int]:
        _, count, below, above, _ = state
        return (against(count, below, low_int),
                -1 if high is None else against(count, above, high_int))

    def accepts(state: _Int | _Frac) -> bool:
        if state[0] == "frac":
            place = state[1]
            return bool(state[3]) and (place is None or place >= len(low_frac))
        if fraction or not state[1]:
            return False
        over, under = ended(state)  # type: ignore[arg-type]
        return (over > 0 or (over == 0 and not low_frac)) and under <= 0 and not state[4]

    def step(state: _Int | _Frac, c: str) -> _Int | _Frac | None:
        if state[0] == "frac":
            return None if c == "." else _next_place(state, c)  # type: ignore[arg-type]
        _, count, below, above, rest = state
        if c == ".":
            if not fraction or not count:
                return None
            over, under = ended(state)  # type: ignore[arg-type]
            if over < 0 or under > 0:
                return None
            return ("frac", 0 if over == 0 and low_frac else None, 0 if under == 0 else None,
                    False)
        if count < 0:
            return None
        if c == "0" and not count:  # nothing but a point may follow: counted as one digit
            return ("int", -1, *_orders("0", 0, 0, 0), 0)
        if count and high is not None and count >= len(high_int):
            return None
        after = min(count + 1, longest)
        orders = _orders(c, count, below, above)
        return ("int", after, *orders, (rest * 10 + int(c)) % multiple if multiple else 0)

    def _orders(c: str, count: int, below: int, above: int) -> tuple[int, int]:
        out = []
        for order, bound in ((below, low_int), (above, high_int)):
            if order == 0 and count < len(bound):
                order = (c > bound[count]) - (c < bound[count])
            out.append(order)
        return out[0], out[1]

    def _next_place(state: _Frac, c: str) -> _Frac | None:
        _, low_place, high_place, _ = state
        if low_place is not None:
            wanted = low_frac[low_place] if low_place < len(low_frac) else ""
            if wanted and c < wanted:
                return None
            low_place = low_place + 1 if c == wanted and low_place + 1 < len(low_frac) else None
        if high_place is not None:
            wanted = high_frac[high_place] if high_place < len(high_frac) else "0"
            if c > wanted:
                return None
            high_place = min(high_place + 1, len(high_frac)) if c == wanted else None
        return ("frac", low_place, high_place, True)

    start: _Int = ("int", 0, 0, 0, 0)
    alphabet = _DIGITS + "." if fraction else _DIGITS
    return explored(start, alphabet, step, accepts, limits)
