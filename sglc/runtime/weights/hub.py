"""Models by their Hugging Face hub id, through `huggingface_hub`, which is optional.

Only weights as safetensors or GGUF, and the configuration and tokenizer beside them are fetched;
code and pickles are not.  The library shows its own progress.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sglc.errors import ModelError

_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/(?P<file>[\w./-]+\.gguf))?"
                 r"(@(?P<revision>[\w][\w./-]*))?")
_TOKENIZER = ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json",
              "generation_config.json", "chat_template.json", "chat_template.jinja"]
_MODEL = [*_TOKENIZER, "config.json", "preprocessor_config.json", "processor_config.json",
          "*.safetensors", "model.safetensors.index.json", "LICENSE*"]
# Copies of the weights in other layouts.
_UNWANTED = ["*/*", "consolidated*"]
_SHOWN = 8  # names in an error


@dataclass(frozen=True, slots=True)
class HubId:
    """`owner/name[/file.gguf][@revision]`; the revision is a branch, a tag or a commit."""

    repo: str
    file: str | None = None
    revision: str | None = None


def hub_id(model: str) -> HubId | None:
    """The parts of a hub id; None if it does not have the form of one."""
    found = _ID.fullmatch(model)
    if found is None or ".." in model or found["repo"].endswith(".gguf"):  # a file in a folder
        return None
    return HubId(found["repo"], found["file"], found["revision"])


def is_hub_id(model: str) -> bool:
    """Whether this has the form of a hub id."""
    return hub_id(model) is not None


def fetch_from_hub(model: str, *, weights: bool = True) -> Path:
    """The folder (or GGUF file) of a hub model; downloaded if it is not in the hub's own cache.

    weights: with them; else just what a tokenizer needs.  A model that has GGUF files only has
    to have one, or `model` has to name it.

    Raises ModelError (SGLC504) if `huggingface_hub` is not installed, if there is no network and
    the model was not fetched before, or if the hub does not have it.
    """
    try:
        import huggingface_hub
    except ImportError as e:
        raise ModelError(
            "SGLC504", f"there is no model at {model!r}, and hub ids need huggingface_hub",
            why=str(e), fixes=("give a GGUF file or a Hugging Face folder",
                               "pip install huggingface_hub")) from None
    asked = hub_id(model)
    assert asked is not None
    try:
        return _fetched(huggingface_hub, model, asked, weights)
    except ModelError:
        raise
    # The hub's errors are of many types, of its own and of its HTTP library.
    except Exception as e:
        raise _refused(model, asked, e) from e


def _fetched(hub: Any, model: str, asked: HubId, weights: bool) -> Path:
    if asked.file is not None:
        return Path(hub.hf_hub_download(asked.repo, asked.file, revision=asked.revision))
    folder = Path(hub.snapshot_download(
        asked.repo, revision=asked.revision, allow_patterns=_MODEL if weights else _TOKENIZER,
        ignore_patterns=_UNWANTED))
    if list(folder.glob("*.safetensors" if weights else "tokenizer.*")):
        return folder
    names: list[str] = hub.HfApi().list_repo_files(asked.repo, revision=asked.revision)
    files = sorted(name for name in names if name.endswith(".gguf"))
    if len(files) == 1:
        return Path(hub.hf_hub_download(asked.repo, files[0], revision=asked.revision))
    at = "" if asked.revision is None else f"@{asked.revision}"
    raise ModelError(
        "SGLC504", f"the hub's model {model!r} has "
        + (f"{len(files)} GGUF files" if files else "no files that are read here"),
        why=f"it has {_listed(files or names)}" + (
            "" if files else "; weights are read from safetensors and GGUF, never from pickles"),
        fixes=tuple(f"open one of them: {asked.repo}/{name}{at}" for name in files[:1]))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join([name[:80] for name in names[:_SHOWN]]) + (
        f" and {more} more" if more > 0 else "")


def _refused(model: str, asked: HubId, error: Exception) -> ModelError:
    """What an error of the library says."""
    import huggingface_hub.constants

    kinds = {kind.__name__ for kind in type(error).__mro__}
    what = f"there is no model at {model!r}, and "
    fixes = ["if it is a path, correct it: a GGUF file or a Hugging Face folder"]
    if "GatedRepoError" in kinds:
        what = f"the hub gives the model {asked.repo!r} only to those who have agreed to its terms"
        fixes = ["agree to them on the model's page, and log in with `hf auth login`"]
    elif "RepositoryNotFoundError" in kinds:
        what += f"the hub has none of the name {asked.repo!r}, or it is a private one"
        fixes.append("log in with `hf auth login` if it is private")
    elif "RevisionNotFoundError" in kinds:
        what = f"the hub's model {asked.repo!r} has no revision {asked.revision or 'main'!r}"
        fixes = ["leave out what follows the @, or name a branch, a tag or a commit"]
    elif "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        what = f"the hub's model {asked.repo!r} has no file {asked.file!r}"
        fixes = [f"choose one of those at {asked.repo}"]
    else:
        what += (f"the hub cannot be reached for it: no network, or none that has "
                 f"{huggingface_hub.constants.ENDPOINT}")
        fixes += ["connect to a network that reaches the hub, or set HF_ENDPOINT to a mirror",
                  f"where there is one, run `hf download {asked.repo} --local-dir FOLDER`, and "
                  "give that folder instead of the id"]
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__  # the library's own text goes on about its cache
    text = str(error).strip()
    return ModelError(
        "SGLC504", what, fixes=tuple(fixes),
        why=f"{type(error).__name__}: {text.splitlines()[0][:200] if text else ''}")
