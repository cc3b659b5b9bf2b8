"""A command-line parser that says what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from sglc.errors import meant


class Parser(argparse.ArgumentParser):
    """argparse's, with help in the writer's own lines and "did you mean" for words and flags that
    are not known."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", _Help)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        found, left = self.parse_known_args(args, namespace)
        if left:
            self._unknown(left, found)
        return found

    def error(self, message: str) -> NoReturn:
        """Complain in two lines: a list of all flags would hide what is wrong."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help says what it takes\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, f"{value!r} is not known{meant(str(value), map(str, action.choices))} "
                f"(one of {', '.join(map(str, action.choices))})")

    def _unknown(self, words: Sequence[str], found: argparse.Namespace) -> NoReturn:
        """Complain about what no parser took, in the words of the command that it was given to."""
        owner: argparse.ArgumentParser = self
        for name in (getattr(found, "command", None), getattr(found, "what", None)):
            for action in owner._actions:
                if isinstance(action, argparse._SubParsersAction) and name in action.choices:
                    owner = action.choices[name]
                    break
        flag = next((w for w in words if w.startswith("-")), words[0])
        known = owner._option_string_actions if flag.startswith("-") else ()
        owner.error(f"{flag} is not known here{meant(flag.partition('=')[0], known)}")


class _Help(argparse.HelpFormatter):
    """Text of several lines stays as it is written; other text is wrapped."""

    def __init__(self, prog: str, **options: Any) -> None:
        options.setdefault("max_help_position", 28)
        super().__init__(prog, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)
