"""A run as it goes: programs in flight, tokens a second, cache hits, KV use.

In a terminal (or a notebook) with `rich`, a panel that is drawn again four times a second; without
either, a line on stderr now and then.  It only looks on.
"""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Any, TextIO

from sglc.viz.samples import Sample, Sampler

EVERY = 0.25  # seconds between samples
PLAIN = 2.0  # seconds between lines without a terminal, or a fifth of the time so far
_RECENT = 2.0  # seconds that a rate is taken over
_MOST = 4000  # samples kept; then every second one goes


class Watch:
    """Watches a backend while a block runs.

    total: rows that will end (None: not known).  shown: if not, it only takes samples.  screen:
    where it is shown (None: stderr).  `samples` holds what was seen.
    """

    def __init__(self, backend: Any, total: int | None = None, name: str = "",
                 shown: bool = True, screen: TextIO | None = None) -> None:
        self.total, self.name, self.done = total, name, 0
        self._sampler = Sampler(backend)
        self._screen = (screen or sys.stderr) if shown else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sglc-watch", daemon=True)
        self._live: Any = None
        self._said = 0.0  # how long it had taken at the last line

    @property
    def samples(self) -> list[Sample]:
        return self._sampler.samples

    def row(self, index: int = 0, state: Any = None) -> None:
        """A row has ended."""
        self.done += 1

    def __enter__(self) -> Watch:
        self._sampler.take()
        self._live = self._panel()
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._sampler.take(self.done)
        if self._live is not None:
            self._live.update(self._table())
            self._live.stop()
        elif self._screen is not None:
            self._say()

    # -- taking and showing -------------------------------------------------------------------
    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._sampler.take(self.done)
            if len(self.samples) > _MOST:
                del self.samples[1::2]
            if self._live is not None:
                self._live.update(self._table())
            elif self._screen is not None:
                now = self.samples[-1].seconds
                if now - self._said > max(PLAIN, now / 5):
                    self._said = now
                    self._say()

    def _say(self) -> None:
        assert self._screen is not None
        print(f"{self.name}: " + ", ".join(f"{k} {v}" for k, v in self.lines()),
              file=self._screen, flush=True)

    def _panel(self) -> Any:
        if self._screen is None:
            return None
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            return None
        console = Console(file=self._screen)
        if not (console.is_terminal or console.is_jupyter):
            return None
        return Live(self._table(), console=console, refresh_per_second=4, transient=False)

    def _table(self) -> Any:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim")
        grid.add_column(min_width=44)
        for name, value in self.lines():
            grid.add_row(name, value)
        now = self.samples[-1]
        if self.total:
            grid.add_row("", ProgressBar(total=self.total, completed=self.done, width=40))
        if now.total and now.in_use is not None:
            grid.add_row("KV pool", ProgressBar(total=now.total, completed=now.in_use, width=40))
        return Panel(grid, title=self.name or None, title_align="left", expand=False)

    def lines(self) -> list[tuple[str, str]]:
        """What is shown, as names and values."""
        now = self.samples[-1]
        before = next((s for s in reversed(self.samples) if now.seconds - s.seconds > _RECENT),
                      self.samples[0])
        span = max(now.seconds - before.seconds, 1e-9)
        of = f" of {self.total}" if self.total is not None else ""
        out = [("programs", f"{self.done}{of} ended"
                + (f", {self.total - self.done} in flight or waiting"
                   if self.total is not None and self.done < self.total else "")),
               ("time", f"{now.seconds:.1f} s")]
        if now.in_use is None:
            return out
        asked = now.prefill + now.cached
        hits = f"{100 * now.cached / asked:.0f} % of {asked:,} prompt tokens" if asked else "none"
        return [*out,
                ("requests", f"{now.running} running, {now.waiting} waiting"),
                ("tokens/s", f"{(now.generated - before.generated) / span:,.0f} generated, "
                             f"{(now.prefill - before.prefill) / span:,.0f} prefilled"),
                ("cache hits", hits),
                ("KV", f"{now.in_use:,} in use, {now.kept:,} cached, of {now.total:,} tokens")]
