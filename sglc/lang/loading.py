"""Finding the programs in a user's script without running it.

The script is imported under a name other than `__main__`; backends it opens are inert, and the
first top-level run of a program ends the import (what is defined by then counts).
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from sglc.backends.local import INERT
from sglc.errors import Diagnostic, LanguageError, Place, SglcError, users_place
from sglc.lang.program import LOADING, Program, RunWhileLoading, defaults


@dataclass(frozen=True, slots=True)
class Loaded:
    """The programs of a script by name, in order, and a remark if it was not read to its end."""

    programs: dict[str, Program]
    remark: Diagnostic | None = None


def load_programs(target: str) -> Loaded:
    """The programs of `prog.py`, or one of them: `prog.py:name`.

    Raises LanguageError SGLC009 if there is no such file or program, or if the script itself
    raises an error (its cause).
    """
    path_text, _, name = target.rpartition(":") if _has_name(target) else (target, "", "")
    path = Path(path_text)
    if not path.is_file():
        raise LanguageError("SGLC009", f"there is no file {path_text!r}")
    module_name = f"sglc_program_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise LanguageError("SGLC009", f"{path_text!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    remark = None
    before = defaults.current()
    inert, loading = INERT.set(True), LOADING.set(True)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except RunWhileLoading as e:
        frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == str(path)]
        place = Place(str(path), frames[0].lineno or 1) if frames else None
        remark = Diagnostic("SGLC009", "the script runs a program here; it was read up to here",
                            place, effect="programs defined further down are not seen",
                            fixes=('put runs under: if __name__ == "__main__":',))
    except SglcError as e:
        e.locate(users_place(e.__traceback__))
        raise
    except (Exception, SystemExit) as e:
        place = users_place(e.__traceback__)
        if isinstance(e, SyntaxError) and e.filename is not None:
            place = Place(e.filename, e.lineno or 1, e.offset or 1)
        raise LanguageError("SGLC009", f"the script raises {type(e).__name__}: {e}",
                            place=place) from e
    finally:
        sys.path.remove(str(path.resolve().parent))
        INERT.reset(inert)
        LOADING.reset(loading)
        defaults.set(before)
    found = {k: v for k, v in vars(module).items()
             if isinstance(v, Program) and v.fn.__module__ == module_name}
    programs = {v.name: v for v in found.values()}
    programs.update({k: v for k, v in found.items() if k not in programs and
                     v not in programs.values()})
    if name:
        wanted = found.get(name) or programs.get(name)
        if wanted is None:
            raise LanguageError("SGLC009", f"{path_text} has no program {name!r}",
                                fixes=(f"it has: {', '.join(programs) or 'none'}",))
        programs = {name: wanted}
    if not programs:
        raise LanguageError("SGLC009", f"{path_text} defines no program",
                            fixes=("decorate a function with @sglc.program",))
    return Loaded(programs, remark)


def _has_name(target: str) -> bool:
    head, colon, tail = target.rpartition(":")
    return bool(colon) and head.endswith(".py") and tail.isidentifier()
