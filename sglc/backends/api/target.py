"""A backend behind a remote API: what programs, the interpreter and the executor need of one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sglc.backends.api.asking import Api
from sglc.backends.api.calls import ApiCalls, ApiStats
from sglc.backends.api.worker import Worker
from sglc.backends.local import INERT, InertBackend
from sglc.backends.templates import registry
from sglc.errors import LanguageError
from sglc.tokens.templates import ChatTemplate, PlainTemplate, Template
from sglc.tokens.text_prompt import ControlName, MessageTemplate


class _Names:
    """What a plain template is bound to where control tokens are sent by their names."""

    def __init__(self, names: Iterable[str]) -> None:
        self.special = {name: ControlName(name) for name in names}


class ApiBackend:
    """Runs programs on a remote API.  Also a context manager.

    Prompts are texts or chat messages here: there is no tokenizer.  Subclasses pass the API, how
    many calls may be under way at once, the chat template of text completion, and the names in it
    that are control tokens.
    """

    tokenizer = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return InertBackend() if INERT.get() else super().__new__(cls)

    def __init__(self, api: Api, *, max_concurrent: int = 64, chat_template: Any = None,
                 control_names: Iterable[str] = ()) -> None:
        if type(max_concurrent) is not int or max_concurrent < 1:
            raise LanguageError("SGLC004", "max_concurrent must be an integer of at least 1, not "
                                f"{max_concurrent!r}")
        self._api = api
        self._worker = Worker(f"sglc {api.can.name}")
        self.template: Template = (MessageTemplate() if api.can.messages  # type: ignore[assignment]
                                   else _plain(chat_template, control_names))
        self.calls = ApiCalls(api, self._worker, max_concurrent)

    # -- for the interpreter and the executor ---------------------------------------------
    def submit(self, requests: Sequence[Any]) -> None:
        """Nothing to do: calls start where they are made."""

    def cancel(self, requests: Sequence[Any]) -> None:
        for request in requests:
            request.cancel()

    def new_space(self) -> None:
        """None: there is no KV to share."""

    def drop_space(self, space: None) -> None:
        pass

    # -- for users ------------------------------------------------------------------------
    def stats(self) -> ApiStats:
        """Counters since the start: calls, gens, merged_gens, prompt_tokens, ..."""
        return replace(self.calls.stats)

    def flush_cache(self) -> None:
        """Nothing is cached here."""

    def close(self) -> None:
        """Cancel what goes on, and close the connections; then gens fail with SGLC503."""
        self._worker.close(self._api.close)

    def __enter__(self) -> ApiBackend:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def _plain(which: str | ChatTemplate | None, names: Iterable[str]) -> PlainTemplate:
    """The template of chat roles as text."""
    template = which if isinstance(which, ChatTemplate) else registry.get(which or "default")
    return PlainTemplate(template, _Names(names))  # type: ignore[arg-type]
