"""Every operation of the three dialects: signature, attributes, traits.

A table rather than classes: the verifier, the builder, the passes and the documentation read it.
Effects: "none" (pure: equal ops may be merged, unused ones removed), "sample" (a model call whose
result depends on its `path`), "observe" (makes a value visible to the caller, or waits for values
as the body does), "host" (calls the user's Python), "end" (a terminator), "mark" (no value;
bookkeeping for the runtime).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Effect = Literal["none", "sample", "observe", "host", "end", "mark"]


@dataclass(frozen=True, slots=True)
class OpDef:
    """What an op looks like.

    operands: type-class names; a trailing "*" means any number of that class ("prompt" accepts
        !prompt or !kv, "text" accepts !text or !choice, "value" accepts anything).
    results: the same, for results; "*" as above.
    attrs: required attributes; optional: attributes that may be there.
    regions: how many ("*": one or more).
    """

    name: str
    operands: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    effect: Effect = "none"
    regions: int | str = 0
    doc: str = field(default="", compare=False)

    @property
    def pure(self) -> bool:
        return self.effect == "none"


SAMPLING_ATTRS = (
    "max_tokens", "min_tokens", "stop", "stop_regex", "stop_token_ids", "temperature", "top_p",
    "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
    "ignore_eos", "no_stop_trim", "regex", "dtype", "json_schema", "ebnf", "n", "seed",
    "return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs",
    "skip_special_tokens", "spaces_between_special_tokens", "heal",
)
"""Only those that the program gives are present: the rest come from the run's defaults."""

CONSTRAINT_ATTRS = ("states", "classes", "longest", "most_tokens", "forced")
"""What lower-regex notes of a gen's constraint; they never change what it generates."""

_DEFS = [
    # --- prompt: model-free ---------------------------------------------------------------
    OpDef("prompt.root", (), ("prompt",), (), ("template",), doc="The empty prompt."),
    OpDef("prompt.append", ("prompt", "text"), ("prompt",), doc="Add text to the last run."),
    OpDef("prompt.special", ("prompt",), ("prompt",), ("token",), doc="Add one control token."),
    OpDef("prompt.image", ("prompt", "value"), ("prompt",), (), ("text",),
          doc="Add an image; the text that the chat template has around one too, unless there is "
              "`text`: what texts show of the image alone."),
    OpDef("prompt.bag", ("prompt", "text", "text*"), ("prompt",),
          doc="prompt, separator, parts: texts in an order that does not matter.  Removed by "
              "functionalize, which keeps it, or by order-bags, which has the batch choose."),
    OpDef("prompt.batch", (), ("value",),
          doc="In how many of the batch's rows each text of their arguments is."),
    OpDef("prompt.role_begin", ("prompt", "value*"), ("prompt",), ("role",), ("history",),
          doc="Open a chat message; `history`: the roles of the messages before it.  A list among "
              "them is repeated as often as the next operand says."),
    OpDef("prompt.role_end", ("prompt", "value*"), ("prompt",), ("role",), ("history",),
          doc="Close a chat message."),
    OpDef("prompt.gen", ("prompt", "value*"), ("prompt", "value", "meta"), ("path",),
          ("name", "offset", "reader", *SAMPLING_ATTRS, *CONSTRAINT_ATTRS), effect="sample",
          doc="Generate; prompt, text, meta.  `offset`: positions in the path; as many !int "
              "operands at the end are added to the numbers there.  `reader`: which of the "
              "trace's calls reads a value from the text; what the gen gives is then opened by "
              "host calls."),
    OpDef("prompt.select", ("prompt", "value*"), ("prompt", "text", "scores"), ("path",),
          ("name", "method", "offset"), effect="sample",
          doc="Choose among texts; prompt, the choice, scores.  `offset` as for gen."),
    OpDef("prompt.fork", ("prompt",), ("prompt*",), ("size",),
          doc="Copies of a prompt; removed by functionalize."),
    OpDef("prompt.join", ("prompt", "prompt", "prompt*"), ("prompt",), ("mode",),
          doc="parent, fork point, children; removed by functionalize."),
    OpDef("prompt.concat", ("prompt", "prompt", "prompt"), ("prompt",),
          doc="parent, child, base: the parent with what the child added after base."),
    OpDef("prompt.text", ("prompt",), ("text",), doc="The prompt's whole text."),
    OpDef("prompt.span", ("prompt", "prompt"), ("text",), doc="begin, end: the text between."),
    OpDef("prompt.format", ("value*",), ("text",), ("parts",),
          doc="An f-string: parts are texts and (index, conversion, spec) triples."),
    OpDef("prompt.compute", ("value*",), ("value",), ("fn",),
          doc="A pure Python operation on values, by its name in ir/compute.py."),
    OpDef("prompt.list", ("value*",), ("value",), doc="A list of values."),
    OpDef("prompt.bind", ("value",), (), ("name",), effect="observe",
          doc="Make a variable observable: state[name]."),
    OpDef("prompt.meta", ("value",), (), ("name",), effect="observe",
          doc="Make a gen's meta or a select's scores observable: state.get_meta_info(name)."),
    OpDef("prompt.message", ("prompt", "prompt"), (), ("role",), effect="observe",
          doc="begin, end: a chat message of state.messages()."),
    OpDef("prompt.read", ("prompt", "value*"), (), effect="observe",
          doc="The body waits for the values, in the order of host calls, and raises if one has "
              "failed.  First operand: the prompt that is kept then."),
    OpDef("prompt.host", ("value*",), ("value*",), ("fn",),
          ("pure", "latency", "reads", "tries", "call", "args", "ordinal", "root"), effect="host",
          doc="Call the user's Python, in program order, once per instance.  The first `args` "
              "operands are its arguments, the others must be there before it runs, but for the "
              "last one with `root`: the prompt that is kept if it raises.  `ordinal`: its number "
              "among the host calls of its path.  `pure`: declared so; `latency`: seconds, "
              "declared; `reads`: it does not change its arguments; `tries`: it runs even where "
              "these failed, and raises their errors where it reads them."),
    OpDef("prompt.check", ("value*",), (), ("fn", "event"), ("call", "args", "root"),
          effect="host",
          doc="Compute a fact that the trace took for granted; go on only where it holds."),
    OpDef("prompt.break", ("value*",), (), ("fn", "event"), ("call", "args", "root"),
          effect="host",
          doc="The trace ends: the fact is computed, and the rest is traced with it."),
    OpDef("prompt.if", ("value", "value*"), ("value*",), (), ("event",), regions=2,
          effect="sample", doc="Two regions, then and else, each ending in prompt.yield."),
    OpDef("prompt.switch", ("value", "value*"), ("value*",), (), (), regions="*",
          effect="sample", doc="One region a case, by label; each ends in prompt.yield."),
    OpDef("prompt.for", ("value", "value*"), ("value*",), (), ("collected",), regions=1,
          effect="sample",
          doc="count, then values to carry.  The region runs `count` times (not at all if that is "
              "negative), one round after the other, with the round's number and the carried "
              "values; it yields these anew, then `collected` values more.  "
              "Results: the carried values at the end, then a list of "
              "each collected one."),
    OpDef("prompt.map", ("value",), ("value*",), (), ("collected",), regions=1, effect="sample",
          doc="As prompt.for with nothing carried: rounds are independent of each other."),
    OpDef("prompt.item", ("value", "value"), ("prompt",),
          doc="list, number: one of the prompts that a loop collected."),
    OpDef("prompt.yield", ("value*",), (), effect="end", doc="The results of a region."),
    OpDef("prompt.return", ("prompt", "value*"), (), effect="end",
          doc="The final prompt, and the body's return value if there is one."),
    # --- kv: bound to a tokenizer ---------------------------------------------------------
    OpDef("kv.root", (), ("kv",), doc="The empty sequence (BOS if the tokenizer adds it)."),
    OpDef("kv.ids", (), ("ids",), ("text", "ids", "held"), ("after",),
          doc="Constant text after a border: stable ids, and the text held back."),
    OpDef("kv.encode", ("kv", "text"), ("ids",), doc="Run-time text, encoded in its context."),
    OpDef("kv.extend", ("kv", "ids"), ("kv",), doc="Add encoded text."),
    OpDef("kv.special", ("kv",), ("kv",), ("token", "id"), doc="Add one control token."),
    OpDef("kv.image", ("kv", "value"), ("kv",), ("text",), doc="As prompt.image."),
    OpDef("kv.concat", ("kv", "kv", "kv"), ("kv",), doc="As prompt.concat."),
    OpDef("kv.role_begin", ("kv", "value*"), ("kv",), ("role", "history"),
          doc="As prompt.role_begin; the template is asked when the history is known."),
    OpDef("kv.role_end", ("kv", "value*"), ("kv",), ("role", "history"),
          doc="As prompt.role_end."),
    OpDef("kv.item", ("value", "value"), ("kv",), doc="As prompt.item."),
    OpDef("kv.decode", ("kv", "value*"), ("kv", "value", "meta"), ("path",),
          ("name", "offset", "fused", "reader", "then", *SAMPLING_ATTRS, *CONSTRAINT_ATTRS),
          effect="sample",
          doc="Generate tokens.  `fused`: in place, right behind the decode before it.  `then`: "
              "texts that it may be, each with the constant texts and control tokens that follow."),
    OpDef("kv.score", ("kv", "value*"), ("kv", "text", "scores"), ("path",),
          ("name", "method", "offset", "after", "first", "shared", "ids", "trie", "then"),
          effect="sample",
          doc="Score choices as a trie and keep the winner.  Where known, behind the open text "
              "`after` (`first`: it opens the prompt): `shared`, the ids before the choices; "
              "`ids`, those of each; `trie`, how many of them are read.  `then`: choices, each "
              "with the constant texts and control tokens that follow."),
    OpDef("kv.release", ("kv",), (), (), (), effect="mark",
          doc="The last use of this sequence is above: its KV may go."),
    OpDef("kv.pin", ("kv",), (), (), ("uses",), effect="mark",
          doc="The KV of this sequence is needed `uses` times more: prefill it first."),
    OpDef("kv.prefill", ("kv",), (), (), (), effect="mark",
          doc="The KV of this sequence may be made from here on: what continues it waits for "
              "more."),
    # --- plan: bound to a batch -----------------------------------------------------------
    OpDef("plan.group", (), ("value*",), ("rows",), ("order", "shared_tokens", "shared"), regions=1,
          effect="host", doc="Instances that are issued together; `shared`: ids all rows share."),
    OpDef("plan.issue", (), ("value*",), ("rank",), ("bound",), regions=1, effect="sample",
          doc="One model call with its rank in the soft order and a bound on its KV tokens."),
    OpDef("plan.await", ("value",), (), effect="host",
          doc="Later host work waits for this value."),
    OpDef("plan.yield", ("value*",), (), effect="end", doc="The results of a plan region."),
]

OPS: dict[str, OpDef] = {d.name: d for d in _DEFS}
