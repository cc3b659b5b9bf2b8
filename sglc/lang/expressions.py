"""What a program writes into a prompt: gens, selects, roles, control tokens, and their sums.

Expressions are plain immutable values.  Who runs them (the eager interpreter, the tracer)
decides what they do; nothing here knows a model.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sglc import config
from sglc.config import CHOICES_METHODS, GenParams
from sglc.errors import LanguageError, meant
from sglc.lang.places import calling_place

if TYPE_CHECKING:
    from sglc.runtime.typed import Reader


class Expr:
    """Something that can be added to a prompt; `+` puts parts after one another."""

    __slots__ = ()

    def __add__(self, other: Any) -> Expr:
        return concat(self, other)

    def __radd__(self, other: Any) -> Expr:
        return concat(other, self)

    def __str__(self) -> str:
        """Never a text: what `f"Answer: {gen('x')}"` means is not what it would say."""
        name = type(self).__name__.lower()
        raise LanguageError(
            "SGLC002", f"a {name} is no text while the prompt is written, so it cannot stand in "
            "an f-string, in str() or in print()", fixes=(
                f's += f"Answer: " + {name}(...), beside the text, not inside it',
                "repr() shows what it is"))


@dataclass(frozen=True, slots=True)
class Concat(Expr):
    """Parts in order; each a text (or a traced value that stands for one) or an expression."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Gen(Expr):
    """Generate text into variable `name` (None: unnamed).

    reader: what makes the text the variable's value; None if it is the value.
    """

    name: str | None
    params: GenParams
    reader: Reader | None = None


@dataclass(frozen=True, slots=True)
class Select(Expr):
    """Pick the most likely of `choices` into variable `name`."""

    name: str | None
    choices: tuple[Any, ...]
    method: str = "token_length_normalized"


@dataclass(frozen=True, slots=True)
class RoleBegin(Expr):
    role: str


@dataclass(frozen=True, slots=True)
class RoleEnd(Expr):
    role: str


@dataclass(frozen=True, slots=True)
class SpecialToken(Expr):
    """One control token of the tokenizer, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Image(Expr):
    """An image, with the text that the chat template has around one.

    source: a path, bytes, a data: URL, a PIL image, or a traced value that stands for one.
    """

    source: Any


@dataclass(frozen=True, slots=True)
class Bag(Expr):
    """Texts whose order the program does not care about, with a separator between them."""

    parts: tuple[Any, ...]
    separator: Any = ""


def concat(*parts: Any) -> Expr:
    """The sum of parts; nested sums are flattened."""
    flat: list[Any] = []
    for part in parts:
        if isinstance(part, Concat):
            flat.extend(part.parts)
        else:
            check_part(part)
            flat.append(part)
    return Concat(tuple(flat))


def check_part(part: Any) -> None:
    """Raise LanguageError SGLC002 unless `part` can be added to a prompt."""
    if isinstance(part, (str, Expr)) or getattr(part, "__sglc_symbolic__", False):
        return
    kind = "None" if part is None else f"a value of type {type(part).__name__}"
    fixes = ["append a str or an expression such as gen(...)"]
    if part is None:
        fixes.append("check that the function called here returns its text")
    elif callable(getattr(type(part), "model_dump_json", None)):
        fixes = ['append its JSON text: s += s["x"].model_dump_json()',
                 'append a part of it: s += s["x"].name']
    else:
        fixes.append("convert it first: s += str(value), or use an f-string")
    raise LanguageError("SGLC002", f"{kind} cannot be appended to a prompt: {part!r}"[:200],
                        fixes=fixes)


def gen(name: str | None = None, max_tokens: int | None = None, *,
        min_tokens: int | None = None, n: int | None = None,
        stop: str | Sequence[str] | None = None,
        stop_token_ids: Sequence[int] | None = None,
        stop_regex: str | Sequence[str] | None = None,
        temperature: float | None = None, top_p: float | None = None, top_k: int | None = None,
        min_p: float | None = None, frequency_penalty: float | None = None,
        presence_penalty: float | None = None, repetition_penalty: float | None = None,
        ignore_eos: bool | None = None, seed: int | None = None,
        return_logprob: bool | None = None, logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None, return_text_in_logprobs: bool | None = None,
        dtype: type | str | None = None, choices: Sequence[str] | None = None,
        choices_method: str | None = None, regex: str | None = None,
        json_schema: str | dict | None = None, ebnf: str | None = None,
        schema: Any = None, heal: bool | None = None, no_stop_trim: bool | None = None,
        skip_special_tokens: bool | None = None,
        spaces_between_special_tokens: bool | None = None,
        min_new_tokens: int | None = None, max_new_tokens: int | None = None,
        sampling_seed: int | None = None, **unsupported: Any) -> Expr:
    """Generate text here.

    Parameters left at None follow the run's.  With `choices` this is `select`.  Raises
    LanguageError for a value out of range or a bad regex, at once.
    Source of the surface: SGLang's `gen` (0.5); see docs for each parameter.

    schema: a pydantic model, or another type that pydantic has a JSON schema for
    (`list[Model]`, a dataclass, a TypedDict).  The text is JSON that fits it, and `s["x"]` and
    `state["x"]` are the value that it stands for, with `n > 1` a list of these; the prompt and
    streams have the text.  The value is made when first read, once.  Where it cannot be made
    (`max_tokens` cut the text, a validator refuses it) reading it raises SchemaError SGLC508;
    everything else can be read as ever.  A schema as dict or JSON text is the same as
    `json_schema=`: the variable is the text.  Only one of schema, json_schema, regex, ebnf,
    dtype and choices may be given.

    heal: generate across the border to the text before.  How that text ends in tokens was
    decided without what follows (`http:` and `//` where the tokenizer would write `http` and
    `://`).  With `heal` the last tokens of the prompt are held back: those from the first one on
    at which a longer token could stand, one that spells all the rest of the prompt and goes on
    as the generation's constraint allows.  The generation begins with the held-back tokens, as
    they were, up to one at which the model may prefer such a longer token; its span takes their
    place.
    - Held back are tokens of the prompt's last run of text only: never control tokens, never
      generated ones.  At least one token stays before the generation.
    - The variable's text, stop strings, stop patterns, stop tokens and streams begin behind
      the held-back text; the prompt's text is what it would be without healing.
    - A constraint is meant for what follows the held-back text.
    - `max_tokens` and `min_tokens` count as many tokens more as were held back.  Counts and
      log-probabilities of `get_meta_info` are those of all generated tokens, and of the prompt
      that was sent.  Penalties see the held-back tokens as generated.
    - Where a stop or a limit ends the generation before or in the token that completes the
      held-back text, the prompt keeps its own tokens.
    - `join("concate_and_append")` adds the text of a healed span, not its tokens, to a prompt
      that does not end in the held-back tokens.
    """
    _name(name)
    if unsupported:
        raise _unsupported("gen", unsupported)
    constraints = {"schema": schema, "json_schema": json_schema, "regex": regex, "ebnf": ebnf,
                   "dtype": dtype, "choices": choices}
    given = [k for k, v in constraints.items() if v is not None]
    if len(given) > 1:
        raise LanguageError("SGLC004", f"a gen takes one constraint, not {' and '.join(given)}",
                            fixes=[f"leave out {k}=" for k in given])
    if choices is not None:
        return select(name, choices, temperature=0.0 if temperature is None else temperature,
                      choices_method=choices_method)
    reader = None
    if isinstance(schema, (str, dict)):
        json_schema = schema
    elif schema is not None:
        from sglc.runtime.typed import reader_of

        reader = reader_of(schema, name, calling_place())
        json_schema = reader.json_schema
    if json_schema is not None and not isinstance(json_schema, str):
        import json

        json_schema = json.dumps(json_schema)
    return Gen(name, GenParams(**config.check({
        "max_tokens": max_tokens if max_tokens is not None else max_new_tokens,
        "min_tokens": min_tokens if min_tokens is not None else min_new_tokens,
        "stop": stop, "stop_token_ids": stop_token_ids, "stop_regex": stop_regex,
        "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "frequency_penalty": frequency_penalty, "presence_penalty": presence_penalty,
        "repetition_penalty": repetition_penalty, "ignore_eos": ignore_eos,
        "no_stop_trim": no_stop_trim, "n": n,
        "seed": seed if seed is not None else sampling_seed, "return_logprob": return_logprob,
        "logprob_start_len": logprob_start_len, "top_logprobs_num": top_logprobs_num,
        "return_text_in_logprobs": return_text_in_logprobs,
        "skip_special_tokens": skip_special_tokens,
        "spaces_between_special_tokens": spaces_between_special_tokens,
        "dtype": dtype, "regex": regex, "json_schema": json_schema, "ebnf": ebnf, "heal": heal,
    })), reader)


def gen_int(name: str | None = None, max_tokens: int | None = None, **kwargs: Any) -> Expr:
    """`gen` of an integer: text that `int()` reads."""
    return gen(name, max_tokens, dtype=int, **kwargs)


def gen_string(name: str | None = None, max_tokens: int | None = None, **kwargs: Any) -> Expr:
    """`gen` of a double-quoted string of word characters and spaces."""
    return gen(name, max_tokens, dtype=str, **kwargs)


def select(name: str | None = None, choices: Sequence[str] | None = None,
           temperature: float = 0.0, choices_method: str | None = None) -> Expr:
    """Pick one of `choices` by the model's probabilities (design section 3; SGLang's methods).

    `temperature` other than 0 is refused: a select has no randomness.
    """
    _name(name)
    if not getattr(temperature, "__sglc_symbolic__", False) and temperature > 1e-5:
        raise LanguageError("SGLC004", f"select takes no temperature ({temperature!r} given)",
                            fixes=["leave temperature out", "sample with gen(regex=...) instead"])
    method = getattr(choices_method, "name", choices_method) or CHOICES_METHODS[0]
    if method not in CHOICES_METHODS:
        raise LanguageError("SGLC004", f"unknown choices_method {choices_method!r}",
                            fixes=[f"use one of: {', '.join(CHOICES_METHODS)}"])
    return Select(name, check_choices(choices), method)


MAX_CHOICES = 65_536  # of one select: each is scored on its own


def check_choices(choices: Any) -> tuple[Any, ...]:
    """The choices as a tuple; LanguageError SGLC005 unless non-empty, distinct, non-empty texts."""
    def bad(what: str) -> LanguageError:
        return LanguageError("SGLC005", what, fixes=['pass a list such as choices=["yes", "no"]'])

    if choices is None or isinstance(choices, str):
        raise bad(f"choices must be a list of strings, not {choices!r}")
    try:
        out = tuple(choices)
    except TypeError:
        raise bad(f"choices must be a list of strings, not {choices!r}") from None
    if not out:
        raise bad("choices is empty")
    if len(out) > MAX_CHOICES:
        raise bad(f"choices holds {len(out):,} texts; at most {MAX_CHOICES:,} can be scored")
    concrete = [c for c in out if not getattr(c, "__sglc_symbolic__", False)]
    for c in concrete:
        if not isinstance(c, str):
            raise bad(f"choices must hold strings, not {c!r}")
        if not c:
            raise bad("choices holds an empty string")
    if len(set(concrete)) != len(concrete):
        raise bad(f"choices holds the same text twice: {concrete!r}"[:200])
    return out


def message(role: str, expr: Any) -> Expr:
    """A message of a role."""
    if expr is None:
        return Concat((RoleBegin(role), RoleEnd(role)))
    return concat(RoleBegin(role), expr, RoleEnd(role))


def system(expr: Any = None) -> Expr:
    """A system message."""
    return message("system", expr)


def user(expr: Any = None) -> Expr:
    """A user message."""
    return message("user", expr)


def assistant(expr: Any = None) -> Expr:
    """An assistant message."""
    return message("assistant", expr)


def system_begin() -> Expr:
    return RoleBegin("system")


def system_end() -> Expr:
    return RoleEnd("system")


def user_begin() -> Expr:
    return RoleBegin("user")


def user_end() -> Expr:
    return RoleEnd("user")


def assistant_begin() -> Expr:
    return RoleBegin("assistant")


def assistant_end() -> Expr:
    return RoleEnd("assistant")


def bag(*parts: Any, sep: Any = "") -> Expr:
    """Texts in an order that does not matter to the program, with `sep` between them.

    They stand in the order given, unless the program is made with `opt_level=3`: then those that
    most rows of the batch have among their arguments go first, in either mode, so that rows begin
    alike and share more.  Raises LanguageError SGLC002 for what is no text.
    """
    for part in (*parts, sep):
        if not (isinstance(part, str) or getattr(part, "__sglc_symbolic__", False)):
            raise LanguageError("SGLC002", f"a bag holds texts, not {part!r}"[:200],
                                fixes=["give its items one by one: bag(*documents)"])
    return Bag(parts, sep)


def special(name: str) -> Expr:
    """One control token by name, such as `special("<|im_start|>")`."""
    if not isinstance(name, str) or not name:
        raise LanguageError("SGLC002", f"a control token is given by name, not {name!r}")
    return SpecialToken(name)


def image(source: Any) -> Expr:
    """An image: the path of a PNG, JPEG, WebP, GIF (its first frame) or BMP file, the bytes of
    one, a `data:` URL with base64, or a PIL image.

    A prompt may hold several.  In texts it is what the chat template's `image_token` says.  The
    file is read when the program runs; what is wrong with it is ImageError SGLC510 where the
    state is read.  Models without vision refuse it (SGLC008).
    """
    if source is None or isinstance(source, (int, float, Expr)):
        raise LanguageError("SGLC002", f"an image is given by a path, bytes or a PIL image, not "
                                       f"{source!r}"[:200])
    return Image(source)


def video(*args: Any, **kwargs: Any) -> Expr:
    """Refused: there are no video models here."""
    raise LanguageError("SGLC008", "video is not supported",
                        fixes=["extract frames and describe them as text"])


def separate_reasoning(*args: Any, **kwargs: Any) -> Expr:
    """Refused: reasoning is not split off."""
    raise LanguageError("SGLC008", "separate_reasoning is not supported",
                        fixes=["generate the reasoning and the answer with two gens and a stop"])


def _name(name: Any) -> None:
    if name is not None and not isinstance(name, str):
        raise LanguageError("SGLC004", f"a variable name must be a string, not {name!r}")


def _unsupported(where: str, given: dict[str, Any]) -> LanguageError:
    names = ", ".join(sorted(given))
    near = meant(min(given), inspect.signature(gen).parameters) if len(given) == 1 else ""
    return LanguageError("SGLC008", f"{where} does not take: {names}{near}",
                         fixes=["remove the argument", "see the docs for the parameters of gen"])
