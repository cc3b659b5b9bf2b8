"""A vocabulary from a tokenizer.json and the files that usually lie beside it.

Byte-level BPE, and BPE with byte fallback (Llama 2, Mistral); anything else is SGLC320.  In a
folder without it, a tokenizer.model is read instead.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglc.errors import TokenError
from sglc.tokens.vocab import END_NAMES, Vocab
from sglc.tokens.vocab_pieces import fields_of_model

Json = dict[str, Any]


def vocab_from_json(source: str | os.PathLike[str], overrides: Mapping[str, Any]) -> Vocab:
    """The vocabulary of a tokenizer.json (a path, its folder's path, or the JSON text)."""
    path: Path | None = None
    folder: Path | None = None
    if not isinstance(source, str) or not source.lstrip().startswith("{"):
        path = _in_folder(Path(source)) if Path(source).is_dir() else Path(source)
        folder = path.parent
    try:
        if path is None:
            fields = _fields(_parse(str(source), "the given text"))
        elif path.suffix == ".model":
            fields = fields_of_model(path)
            _add_tokens(path.parent, fields)
        else:
            fields = _fields(_load(path))
        fields |= _companions(folder, fields)
        fields["name"] = "tokenizer" if folder is None else folder.name
        return Vocab(**(fields | dict(overrides)))
    except TokenError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        what = "tokenizer.json" if path is None else path.name
        raise TokenError("SGLC320", f"the {what}, or a file beside it, is malformed",
                         why=f"{type(error).__name__}: {error}") from error


def _in_folder(folder: Path) -> Path:
    """The file to read; a tokenizer.json that is missing is for the reader to refuse."""
    path, pieces = folder / "tokenizer.json", folder / "tokenizer.model"
    return pieces if pieces.is_file() and not path.exists() else path


def _load(path: Path) -> Json:
    try:
        return _parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError("SGLC320", f"{path.name} cannot be read", why=str(error)) from error


def _parse(text: str, what: str) -> Json:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenError("SGLC320", f"{what} is not JSON", why=str(error)) from error
    if not isinstance(data, dict):
        raise TokenError("SGLC320", f"{what} is no JSON object")
    return data


def _fields(data: Json) -> Json:
    """The fields of `Vocab` that a tokenizer.json alone gives."""
    model = data["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "unknown")
    if kind != "BPE":
        raise TokenError("SGLC320", f"tokenizers of type {kind} are not supported",
                         why="only byte-pair encodings are (byte-level, or with byte fallback)")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenError("SGLC320", f"a BPE with {key} is not supported")
    first_pre, first_norm = data.get("pre_tokenizer"), data.get("normalizer")
    pre, norm = _without_prefix(first_pre), _without_prefix(first_norm)
    byte_level = any(step["type"] == "ByteLevel" for step in _steps(first_pre))
    if not byte_level and not model.get("byte_fallback"):
        raise TokenError("SGLC320", "this BPE works on characters, not on bytes",
                         why="it has neither a ByteLevel pre-tokenizer nor byte_fallback")
    tokens = model["vocab"]
    special: dict[str, int] = {}
    added: dict[str, int] = {}
    flags: dict[str, dict[str, bool]] = {}
    for entry in data.get("added_tokens") or []:
        table = special if entry.get("special") else added
        table[entry["content"]] = entry["id"]
        flags[entry["content"]] = {
            key: bool(entry.get(key)) for key in ("single_word", "lstrip", "rstrip")}
    return {
        "tokens": tokens, "special": special, "added": added, "added_flags": flags,
        "merges": tuple(tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m)
                        for m in model["merges"]),
        "pre_tokenizer": pre, "normalizer": norm,
        "dummy_prefix": (pre, norm) != (first_pre, first_norm),
        "first_pre_tokenizer": first_pre, "first_normalizer": first_norm,
        "byte_level": byte_level, "ignore_merges": bool(model.get("ignore_merges")),
        "fuse_unk": bool(model.get("fuse_unk")), "unk_token": model.get("unk_token"),
        "bos_id": _bos_of(data.get("post_processor"))}


def _add_tokens(folder: Path, fields: Json) -> None:
    """Enter the tokens that were added to a tokenizer.model afterwards."""
    config = _beside(folder, "tokenizer_config.json").get("added_tokens_decoder") or {}
    entries = [(entry["content"], int(i), bool(entry.get("special")))
               for i, entry in config.items()]
    entries += [(name, i, False) for name, i in _beside(folder, "added_tokens.json").items()
                if str(i) not in config]
    for name, i, special in entries:
        if name not in fields["tokens"]:
            fields["special" if special else "added"][name] = i


def _steps(config: Json | None) -> list[Json]:
    if config is None:
        return []
    if config["type"] == "Sequence":
        return config.get("pretokenizers") or config.get("normalizers") or []
    return [config]


def _without_prefix(config: Json | None) -> Json | None:
    """The same pre-tokenizer or normalizer, adding no dummy prefix."""
    if config is None or config["type"] == "Prepend":
        return None
    out = copy.deepcopy(config)
    for key in ("normalizers", "pretokenizers"):
        if key in out:
            out[key] = [s for s in map(_without_prefix, out[key]) if s is not None]
    if out["type"] == "Metaspace":
        out["prepend_scheme"] = "never"
        out.pop("add_prefix_space", None)
    elif out.get("add_prefix_space"):
        out["add_prefix_space"] = False
    return out


def _beside(folder: Path | None, name: str) -> Json:
    path = None if folder is None else folder / name
    return _load(path) if path is not None and path.is_file() else {}


def _companions(folder: Path | None, fields: Json) -> Json:
    """BOS, EOS and the chat template, from the files in `folder`; without, `fields` has them."""
    config = _beside(folder, "tokenizer_config.json")
    generation = _beside(folder, "generation_config.json")
    ids = {**fields["tokens"], **fields["added"], **fields["special"]}
    bos_token = _named(config.get("bos_token"))
    eos_token = _named(config.get("eos_token")) or fields.get("eos_token", "")
    adds_bos = config.get("add_bos_token")
    bos_id = fields["bos_id"]
    if adds_bos is False:
        bos_id = None
    elif adds_bos and bos_token in ids:
        bos_id = ids[bos_token]
    ends = {i for n, i in fields["special"].items() if n in END_NAMES}
    if eos_token in ids:
        ends.add(ids[eos_token])
    more = generation.get("eos_token_id")
    if more is not None:
        ends.update(more if isinstance(more, list) else [more])
    if bos_id is not None and not bos_token:
        bos_token = next((n for n, i in fields["special"].items() if i == bos_id), "")
    template = config.get("chat_template") or _beside(
        folder, "chat_template.json").get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t["name"]: t["template"] for t in template}.get("default")
    path = None if folder is None else folder / "chat_template.jinja"
    if path is not None and path.is_file():
        template = path.read_text(encoding="utf-8")
    return {"bos_id": bos_id, "bos_token": bos_token, "eos_token": eos_token,
            "eos_ids": frozenset(ends), "chat_template": template}


def _named(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _bos_of(post: Json | None) -> int | None:
    """The id that the post-processor puts before a text."""
    if post is None:
        return None
    if post["type"] == "Sequence":
        found = [_bos_of(step) for step in post["processors"]]
        return next((i for i in found if i is not None), None)
    if post["type"] == "TemplateProcessing" and "SpecialToken" in post["single"][0]:
        return post["special_tokens"][post["single"][0]["SpecialToken"]["id"]]["ids"][0]
    return None
