"""Model calls on text prompts: what a `gen` and a `select` mean in terms of an API's calls.

The counterpart of `runtime/calls.py`, for prompts without ids.  Knows no particular API and no
programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sglc.backends.api.asking import Answer, Api, Ask, Reply, api_error
from sglc.backends.api.speculation import RanAhead, find_stop, manner, may_run_ahead
from sglc.backends.api.usage import TokenUsage
from sglc.backends.api.worker import Worker
from sglc.config import RunOptions
from sglc.errors import CapabilityError, EngineError, LanguageError, SglcError
from sglc.runtime.calls import Call, Outcome
from sglc.runtime.typed import Reader, TypedText
from sglc.runtime.vision.opening import file_of
from sglc.tokens.text_prompt import Conversation, FileOfImage, TextPrompt, no_images

TRIES = 3  # of a message that is not of the form the program says (SGLang's number)


@dataclass(slots=True)
class ApiStats:
    """Counters since the start.

    calls: answered by the API.  gens, selects: of programs.  merged_gens: those of them that took
    their text from an earlier call.  ahead_calls: calls that went on past their gen's end.
    mismatches: whole messages that were not of the program's form.  prompt_tokens, cached_tokens
    (of them), completion_tokens: as the API counts.
    """

    calls: int = 0
    gens: int = 0
    selects: int = 0
    merged_gens: int = 0
    ahead_calls: int = 0
    mismatches: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(slots=True)
class TextOutcome(Outcome):
    """The outcome of a gen: its text, and what was written beyond it."""

    ahead: RanAhead | None = None

    def extend(self, prompt: Any) -> Any:
        return prompt.written(self.text, self.ahead)


class ApiCalls:
    """Starts calls on one API."""

    def __init__(self, api: Api, worker: Worker, max_concurrent: int) -> None:
        self.api = api
        self.worker = worker
        self.usage = TokenUsage(api.can.name, getattr(api, "model", None), api.can.messages)
        self.stats = ApiStats()  # touched on the worker's thread only
        self._slots = asyncio.Semaphore(max_concurrent)

    # -- what `runtime.calls` is for token ids --------------------------------------------
    def empty_prompt(self, tokenizer: Any) -> TextPrompt:
        return TextPrompt()

    def place_image(self, tokenizer: Any, source: Any) -> FileOfImage:
        """The image's file.  ImageError SGLC510 if it cannot be read, CapabilityError SGLC012
        if the API takes none."""
        if not self.api.can.images:
            raise no_images()
        return FileOfImage(file_of(source))

    def constraint_for(self, options: RunOptions, tokenizer: Any) -> None:
        """None; CapabilityError SGLC012 for options that the API does not have."""
        self.api.can.check(options)

    def start_gen(self, target: Any, prompt: TextPrompt, options: RunOptions,
                  keys: Sequence[int], constraint: Any, done: Callable[[Outcome], None], *,
                  on_text: Callable[[str], None] | None = None, reader: Reader | None = None,
                  **hints: Any) -> Call:
        """Generate on `prompt`; `done` is called once, on the worker's thread.

        keys: not used, as no API takes them.  hints: what is known of KV; of no use here.
        """
        return self._start(lambda: self._gen(prompt, options, on_text, reader), done)

    def start_select(self, target: Any, prompt: TextPrompt, choices: Sequence[str], method: str,
                     done: Callable[[Outcome], None], **hints: Any) -> Call:
        """Choose by the API's means; the winner becomes text of the prompt."""
        return self._start(lambda: self._select(prompt, tuple(choices), method), done)

    def _start(self, work: Callable[[], Any], done: Callable[[Outcome], None]) -> Call:
        def end(outcome: Outcome | None, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, SglcError):
                error = EngineError("SGLC503", f"the backend failed: {error!r}")
            done(Outcome(error=error) if outcome is None else outcome)

        try:
            return Call([self.worker.start(work, end)])  # type: ignore[list-item]
        except EngineError as error:
            done(Outcome(error=error))
            return Call()

    # -- gens -----------------------------------------------------------------------------
    async def _gen(self, prompt: TextPrompt, options: RunOptions,
                   on_text: Callable[[str], None] | None, reader: Reader | None) -> Outcome:
        self.stats.gens += 1
        if options.max_tokens == 0:
            nothing = [Answer(finish="length") for _ in range(options.n)]
            return _outcome(Reply(nothing), options, reader)
        ahead: Any = prompt.ahead
        cut = None if ahead is None else ahead.take(options)
        if cut is not None:
            self.stats.merged_gens += 1
            return _outcome(Reply([Answer(cut.text, cut.finish, cut.matched)]), options, reader,
                            cut.rest)
        conversation = self._content(prompt)
        if may_run_ahead(options):
            found = await self._run_ahead(conversation, options, reader)
            if found is not None:
                return found
        self.api.can.check_place(conversation, False)
        return _outcome(await self._plain(conversation, options, on_text), options, reader)

    def _content(self, prompt: TextPrompt) -> Conversation:
        """What is sent; CapabilityError SGLC012 for images that the API does not take."""
        conversation = prompt.content()
        if conversation.images and not self.api.can.images:
            raise no_images()
        return conversation

    async def _plain(self, conversation: Conversation, options: RunOptions,
                     on_text: Callable[[str], None] | None) -> Reply:
        """One call for one gen."""
        sent = self.api.can.stops(options)
        left = [s for s in options.stop if s not in sent]
        cuts_here = bool(left or options.stop_regex)
        stream = None if cuts_here or options.n > 1 else on_text
        reply = await self._ask(Ask(conversation, options, options.max_tokens, sent, options.n),
                                stream)
        if cuts_here:
            for answer in reply.answers:
                _cut(answer, left, options.stop_regex)
        return reply

    async def _run_ahead(self, conversation: Conversation, options: RunOptions,
                         reader: Reader | None) -> Outcome | None:
        """One call past the end of this gen; None if it does not say what the gen's text is.

        Where the API cannot continue a message, the whole message is asked for, and what there is
        of it must be how it begins.
        """
        can = self.api.can
        begun = conversation.messages[-1][1] if conversation.open else ""
        whole = can.messages and not can.continues and bool(begun)
        if not (whole or options.num_api_spec_tokens):
            return None  # no gen comes after this one
        can.check_place(conversation, whole)
        shown = replace(conversation, messages=(*conversation.messages[:-1], ("assistant", ""))
                        ) if whole else conversation
        # No token is shorter than a byte: there is room for what is begun.
        limit = max(options.max_tokens + len(begun.encode("utf-8", "replace")) * whole,
                    options.num_api_spec_tokens or 0)
        for _ in range(TRIES if whole and options.temperature > 0 else 1):
            self.stats.ahead_calls += 1
            reply = await self._ask(Ask(shown, options, limit, (), token_texts=True), None)
            answer = reply.answers[0]
            ahead: RanAhead | None = RanAhead(
                answer.text, manner(options), answer.finish == "stop",
                reply.output_tokens or limit, _ends(answer), limit=limit)
            if whole:
                assert ahead is not None
                ahead = ahead.after(begun)
            cut = None if ahead is None else ahead.take(options)
            if cut is not None:
                reply.answers = [replace(answer, text=cut.text, finish=cut.finish,
                                         matched=cut.matched, tokens=None, top=[])]
                return _outcome(reply, options, reader, cut.rest)
            if not whole:
                return None
            self.stats.mismatches += 1
        if ahead is None:
            raise api_error(
                f"{can.name} did not write the message in the program's form",
                CapabilityError("SGLC012", f"it began with {answer.text[:200]!r}, where the "
                                f"program has {begun[:200]!r}"),
                fixes=("tell the model in the user message which lines to write",
                       "if the server continues a message that is begun: continues=True"))
        raise api_error(f"{can.name} did not come to the end of the gen",
                        fixes=("raise num_api_spec_tokens",))

    async def _ask(self, ask: Ask, on_text: Callable[[str], None] | None) -> Reply:
        async with self._slots:
            try:
                reply = await self.api.generate(ask, on_text)
            except SglcError:
                raise
            except Exception as error:
                raise self.api.problem(error) from error
        if len(reply.answers) < ask.n:
            raise api_error(f"{self.api.can.name} gave {len(reply.answers)} of {ask.n} samples")
        self._count(reply)
        return reply

    def _count(self, reply: Any, calls: int = 1) -> None:
        stats = self.stats
        stats.calls += calls
        stats.prompt_tokens += reply.prompt_tokens
        stats.cached_tokens += reply.cached_tokens
        stats.completion_tokens += reply.output_tokens
        self.usage.add(reply.prompt_tokens, reply.output_tokens)

    # -- selects --------------------------------------------------------------------------
    async def _select(self, prompt: TextPrompt, choices: tuple[str, ...],
                      method: str) -> Outcome:
        self.stats.selects += 1
        if "" in choices or len(set(choices)) != len(choices):
            what = "an empty string" if "" in choices else "the same text twice"
            raise LanguageError("SGLC005", f"choices holds {what}: {choices!r}"[:200])
        if self.api.can.messages:
            raise CapabilityError(
                "SGLC012", f"{self.api.can.name} has no select",
                why="it gives no log-probabilities of given texts",
                fixes=('use a completion model: api_type="completion"',
                       "ask for one of the choices with gen(), and compare its text"))
        async with self._slots:
            try:
                choice = await self.api.choose(self._content(prompt), choices, method)
            except SglcError:
                raise
            except Exception as error:
                raise self.api.problem(error) from error
        self._count(choice, choice.calls)
        winner = choices[choice.index]
        return Outcome(winner, choice.meta, text=winner)


def _ends(answer: Answer) -> tuple[int, ...] | None:
    """Where each token's text ends; None if not known, or if it is not the text."""
    if answer.tokens is None:
        return None
    ends, at = [], 0
    for text, _ in answer.tokens:
        at += len(text)
        ends.append(at)
    return tuple(ends) if "".join([t for t, _ in answer.tokens]) == answer.text else None


def _cut(answer: Answer, stops: Sequence[str], patterns: Sequence[str]) -> None:
    found = find_stop(answer.text, stops, patterns)
    if found is None:
        return
    start, end, answer.matched = found
    answer.finish = "stop"
    if answer.tokens is not None:  # those up to the one that completed the stop
        ends = _ends(answer)
        n = len(answer.tokens) if ends is None else sum(1 for e in ends if e < end) + 1
        answer.tokens, answer.top = answer.tokens[:n], answer.top[:n]
    answer.text = answer.text[:start]


def _outcome(reply: Reply, options: RunOptions, reader: Reader | None,
             ahead: RanAhead | None = None) -> TextOutcome:
    """The reply as a gen's outcome; the counts are those of the whole call."""
    metas = [_meta(answer, reply, options) for answer in reply.answers]
    texts = [answer.text for answer in reply.answers]
    one = options.n == 1
    value: Any = texts[0] if one else texts
    if reader is not None:
        value = TypedText(reader, texts, metas, not one)
    return TextOutcome(value, metas[0] if one else metas, (), texts[0], ahead=ahead)


def _meta(answer: Answer, reply: Reply, options: RunOptions) -> dict[str, Any]:
    """`get_meta_info` of a gen, with the keys of `runtime.calls.gen_meta` (no token has an id)."""
    kind = "stop" if answer.finish == "eos" else answer.finish
    reason: dict[str, Any] = {"type": kind}
    if kind == "stop":
        reason["matched"] = answer.matched
    elif kind == "length":
        reason["length"] = options.max_tokens
    meta: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.output_tokens,
        "cached_tokens": reply.cached_tokens, "finish_reason": reason}
    if options.return_logprob or options.top_logprobs_num:
        meta["input_token_logprobs"] = []
        meta["output_token_logprobs"] = [(lp, None, text) for text, lp in answer.tokens or ()]
        if options.top_logprobs_num:
            meta["output_top_logprobs"] = [[(lp, None, text) for text, lp in step]
                                           for step in answer.top]
    return meta
