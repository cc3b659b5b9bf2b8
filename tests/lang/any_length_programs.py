"""Programs over lists and counts of any length, for test_any_length.py."""

from __future__ import annotations

from typing import Any

import sglc as sgl


@sgl.program
def tell(s: Any, docs: Any) -> None:
    s += "Docs:\n"
    for i, d in enumerate(docs):
        s += f"[{i}] {d}\n" + sgl.gen("note", max_tokens=3)
    s += "So " + sgl.gen("a", max_tokens=4)


@sgl.program
def questions(s: Any, docs: Any) -> Any:
    s += "start "
    forks = s.fork(len(docs))
    for f, d in zip(forks, docs, strict=True):
        f += "doc " + d + sgl.gen("answers", max_tokens=2)
    forks.join()
    return s["answers"]


@sgl.program
def summaries(s: Any, docs: Any) -> Any:
    s += "start "
    forks = s.fork(len(docs))
    for f, d in zip(forks, docs, strict=True):
        f += "doc " + d
    forks += sgl.gen("sum", max_tokens=4, temperature=1.0)
    answers = [f["sum"] for f in forks]
    s += "\n".join(answers) + "|" + "/".join(f["sum"] for f in forks)
    s += sgl.gen("end", max_tokens=3) + forks[0]["sum"]
    return len(docs)


@sgl.program
def parts(s: Any, docs: Any) -> None:
    s += "start "
    forks = s.fork(len(docs))
    forks += lambda i: f"part {i}: "
    for i in range(len(docs)):
        forks[i] += docs[i] + sgl.gen("sum", max_tokens=4)
    forks.join("concate_and_append")
    s += sgl.gen("end", max_tokens=3)


@sgl.program
def carried(s: Any, docs: Any) -> Any:
    seen, best, last = "", None, 0
    for d in docs:
        s += "is " + d + " good? " + sgl.select("c", ["yes", "no"])
        if s["c"] == "yes":
            s += "why" + sgl.gen("why", max_tokens=2)
            best = d
        else:
            s += "bad"
        seen = seen + s["c"] + ","
        last += 1
    s += seen + f"{last} of {len(docs)}" + sgl.gen("z", max_tokens=2)
    return best


@sgl.program
def gathered(s: Any, docs: Any) -> Any:
    out = []
    for d in docs:
        with s.var_scope("part"):
            s += d + sgl.gen("x", max_tokens=2)
        out.append(s["x"] + "!")
    s += ",".join(out)
    for i, x in enumerate(out):
        s += f"{i}{x}"
    s += f"{len(out)}" + sgl.gen("z", max_tokens=2)
    return out


@sgl.program
def formatted(s: Any, docs: Any) -> None:
    s += f"All of {docs}: " + ", ".join(docs) + " and " + ", ".join(f"<{d}>" for d in docs)
    s += docs[0] + sgl.gen("a", max_tokens=3)


@sgl.program
def helped(s: Any, docs: Any) -> None:
    _all_of(s, docs)
    s += sgl.gen("a", max_tokens=3)


def _all_of(s: Any, docs: Any) -> None:
    for number, d in enumerate(docs, 1):
        s += f"{number}. {d}"
        s += sgl.gen("b", max_tokens=2)


@sgl.program
def listed(s: Any, docs: Any) -> Any:
    s += "-"
    for d in docs:
        s += d
    s += sgl.gen("a", max_tokens=1)
    return len(docs)


OVER_DOCS = [listed, tell, questions, summaries, parts, carried, gathered, formatted, helped]


@sgl.program
def counted(s: Any, n: Any) -> None:
    s += "go"
    total = ""
    for i in range(n):
        s += f" step {i}" + sgl.gen("x", max_tokens=3)
        total += s["x"]
    s += "|" + total + "|" + sgl.gen("y", max_tokens=3)


@sgl.program
def voted(s: Any, n: Any) -> Any:
    s += "Think: "
    forks = s.fork(n + 1)
    forks += sgl.gen("thought", max_tokens=3, temperature=1.0)
    thoughts = [f["thought"] for f in forks]
    s += "Thoughts: " + " ".join(thoughts) + sgl.select("best", ["first", "last"])
    return thoughts


@sgl.program
def grid(s: Any, n: Any) -> None:
    for i in range(n):
        for j in range(n):
            s += f"({i},{j})"
        s += sgl.gen("row", max_tokens=2)


OVER_COUNT = [counted, voted, grid]


@sgl.program
def records(s: Any, items: Any) -> None:
    for item in items:
        s += item["name"] + ":"
        for t in item["tags"]:
            s += t + sgl.gen("t", max_tokens=1) + ";"
        s += sgl.gen("done", max_tokens=2)


OVER_RECORDS = [records]


@sgl.program
def aliased(s: Any, docs: Any) -> None:
    a = b = []
    for d in docs:
        s += d
        a.append(sgl.gen("x", max_tokens=1) and d)
    s += "".join(b) + sgl.gen("z", max_tokens=2)


@sgl.program
def stops_early(s: Any, docs: Any) -> None:
    for d in docs:
        if d == "yes":
            break
        s += d
    s += sgl.gen("z", max_tokens=2)


@sgl.program
def named(s: Any, docs: Any) -> None:
    for i, d in enumerate(docs):
        s += d + sgl.gen(f"x{i}", max_tokens=1)


@sgl.program
def goes_back(s: Any, docs: Any) -> None:
    s += sgl.gen("x", max_tokens=1)
    for d in docs:
        s += s["y"] if "y" in s else d
        s += sgl.gen("y", max_tokens=1)


@sgl.program
def chats(s: Any, docs: Any) -> None:
    for d in docs:
        s += sgl.user(d)
        s += sgl.assistant(sgl.gen("x", max_tokens=1))


@sgl.program
def asks(s: Any, docs: Any) -> Any:
    s += sgl.system("Be brief.")
    for d in docs:
        s += sgl.user(d)
        s += sgl.assistant(sgl.gen("x", max_tokens=2))
    s += sgl.user("So?") + sgl.assistant(sgl.gen("y", max_tokens=2))
    return s["x"]


@sgl.program
def as_values(s: Any, docs: Any) -> Any:
    s += "first " + min(docs) if docs else "none"
    for d in sorted(docs):
        s += d
    for d in reversed(docs):
        s += d + sgl.gen("x", max_tokens=1)
    for i in reversed(range(len(docs))):
        s += str(i)
    s += sgl.gen("z", max_tokens=2)
    return max(docs, default="") if not docs else any(docs)


@sgl.program
def given_away(s: Any, docs: Any) -> Any:
    out = []
    for d in docs:
        out.append(d + "!")
        s += d + sgl.gen("x", max_tokens=1)
    s += spoilt(out) + sgl.gen("z", max_tokens=1)
    return s["x"]


def spoilt(values: list[str]) -> str:
    """Change a list, which the caller's must not notice at another place."""
    values.append("new")
    return "".join(values)


@sgl.program
def letters(s: Any, docs: Any) -> None:
    s += "-"
    for d in docs:
        for _ in range(len(f"{d}.") - 2):
            s += d + sgl.gen("x", max_tokens=1)


@sgl.program
def but_the_first(s: Any, docs: Any) -> Any:
    s += "-"
    for d in docs[1:]:
        s += d + sgl.gen("x", max_tokens=1)
    return s["x"] + d


@sgl.program
def crossed(s: Any, docs: Any) -> None:
    for d in docs:
        s += ", ".join((d + "!").upper() for e in docs) + sgl.gen("x", max_tokens=1)
        s += "+".join([e + s["x"] for e in docs])


@sgl.program
def grows(s: Any, docs: Any) -> None:
    out: list[Any] = []
    for d in docs:
        s += f"{len(out)}" + d
        out.append(d)
    s += sgl.gen("z", max_tokens=1)


@sgl.program
def grows_and_asks(s: Any, docs: Any) -> None:
    out: list[Any] = []
    for d in docs:
        if out:
            s += "more: " + ",".join(out)
        out.append(d)
    s += "." + sgl.gen("z", max_tokens=1)


@sgl.program
def as_long_as_text(s: Any, docs: Any) -> None:
    out = []
    for d in docs:
        s += d + "." + sgl.gen("x", max_tokens=3)
        out.append(s["x"])
    for x in out:
        for i in range(len(x)):
            s += f"{i}"


@sgl.program
def a_tuple(s: Any, docs: Any) -> Any:
    for d in docs:
        s += d
    s += f"{tuple(docs)}" + sgl.gen("z", max_tokens=1)
    return tuple(docs)


@sgl.program
def changes_the_argument(s: Any, docs: Any) -> Any:
    for d in docs:
        s += d
    s += spoilt(docs) + sgl.gen("z", max_tokens=1)
    return docs


@sgl.program
def reads_what_it_gave(s: Any, docs: Any) -> Any:
    out = []
    for d in docs:
        s += d
        out.append(d)
    s += spoilt(out) + ",".join(out) + sgl.gen("z", max_tokens=1)
    return out


OVER_DOCS += [chats, asks, as_values, given_away, letters, crossed,
              but_the_first]
KEPT_APART = [aliased, stops_early, named, goes_back, grows, grows_and_asks, as_long_as_text,
              a_tuple, changes_the_argument, reads_what_it_gave]


@sgl.program
def tagged(s: Any, items: Any) -> Any:
    for item in items:
        for t in reversed(item["tags"]):
            s += t + sgl.gen("t", max_tokens=1)
        s += s["t"] + item["name"]
    return t


OVER_RECORDS += [tagged]
