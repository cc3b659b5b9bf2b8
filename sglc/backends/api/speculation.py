"""One call for several gens: text that a model wrote past a gen's stop, kept with the prompt.

A call made ahead leaves out the stop strings.  Where the text that the program adds next is what
the model wrote next, the gen after it finds its text there too, and no call is made for it.  The
first difference drops the rest: the next gen is a call from that point.

The text is that of a run without this, if the model's text does not depend on where calls begin,
because a gen is given ahead text only where what a call would have given is known: up to a stop
string, or the model's own end, within `max_tokens`.  (The idea: SGLang's API speculative
execution, Zheng et al. 2023, section 5.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sglc.config import RunOptions


def manner(options: RunOptions) -> RunOptions:
    """All options but those that only say where a text ends."""
    return replace(options, stop=(), stop_regex=(), max_tokens=0, num_api_spec_tokens=None)


def may_run_ahead(options: RunOptions) -> bool:
    """Whether a call for this gen may go on past its end: the program says so, it ends at a stop
    string, and what it gives is text alone."""
    plain = (options.n == 1 and options.seed is None and not options.return_logprob
             and not options.top_logprobs_num and options.json_schema is None
             and not options.no_stop_trim)
    return bool(options.stop) and plain and options.num_api_spec_tokens is not None


def find_stop(text: str, stops: Sequence[str],
              patterns: Sequence[str] = ()) -> tuple[int, int, str] | None:
    """(start, end, what matched) of the match that is complete first; of those, the longest."""
    found = [(at + len(s), at, s) for s in stops if (at := text.find(s)) >= 0]
    for pattern in patterns:
        found += [(m.end(), m.start(), m.group()) for m in re.finditer(pattern, text)
                  if m.group()][:1]
    if not found:
        return None
    end, start, matched = min(found)
    return start, end, matched


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a text that is a gen's, and what is left of it."""

    text: str
    finish: str  # "stop" (a stop string), "eos" or "length"
    matched: str | None
    rest: RanAhead


@dataclass(frozen=True, slots=True)
class RanAhead:
    """Text that a model wrote beyond a prompt.

    manner: how it was written.  ended: the model came to its end there (else: to `max_tokens`).
    tokens: at most how many tokens there are.  ends: where each ends, None if not known; then
    `aligned` says whether one begins at the beginning.  limit: the call's `max_tokens`, while all
    that it gave is here.
    """

    text: str
    manner: RunOptions
    ended: bool
    tokens: int
    ends: tuple[int, ...] | None = None
    aligned: bool = True
    limit: int = 0

    def after(self, text: str) -> RanAhead | None:
        """What is left behind `text`; None if the text does not begin with it."""
        return self._drop(len(text)) if self.text.startswith(text) else None

    def _drop(self, n: int) -> RanAhead:
        if n == 0:
            return self
        ends, aligned = None, False
        if self.ends is not None:
            ends = tuple([e - n for e in self.ends if e > n])
            aligned = n in self.ends
        return replace(self, text=self.text[n:], ends=ends, aligned=aligned, limit=0)

    def take(self, options: RunOptions) -> Cut | None:
        """What a call with these options would have given; None where that is not known."""
        if self.manner != manner(options):
            return None
        limit = options.max_tokens
        stop = find_stop(self.text, options.stop, options.stop_regex)
        if stop is not None and self._at_most(stop[1]) <= limit:
            return Cut(self.text[:stop[0]], "stop", stop[2], self._drop(stop[0]))
        if self.ends is not None and self.aligned and len(self.ends) >= limit > 0:
            end = self.ends[limit - 1]
            if stop is None or stop[1] > end:
                return Cut(self.text[:end], "length", None, self._drop(end))
        if stop is None and not self.ended and self.limit == limit:
            return Cut(self.text, "length", None, self._drop(len(self.text)))
        if stop is None and self.ended and self._at_most(len(self.text)) < limit:
            return Cut(self.text, "eos", None, self._drop(len(self.text)))
        return None

    def _at_most(self, chars: int) -> int:
        """How many tokens the first characters take at most, when written from the beginning."""
        if self.ends is None:
            return min(self._bytes(chars), self.tokens)
        n = sum(1 for e in self.ends if e < chars) + (chars > 0)
        if not self.aligned and self.ends:  # how the rest of a token would be written is not known
            n += max(0, self._bytes(min(chars, self.ends[0])) - 1)
        return n

    def _bytes(self, chars: int) -> int:
        """No token is shorter than a byte."""
        return len(self.text[:chars].encode("utf-8", "replace"))
