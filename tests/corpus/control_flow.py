"""Python around the prompts: loops, strings, formats, conditions, exceptions."""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, tag, text, word, words

CALLS: list[tuple[Any, ...]] = []


# -- arguments used more than once, in every way ----------------------------------------------
@sgl.program
def everywhere(s: Any, name: str, times: int, notes: list[str], style: str = "plain") -> str:
    s += name + " " + name * 2 + " " + str(times) + name[1:] + name[::-1] + name.title()
    for i in range(times):
        s += f"\n{i}/{times} {name}: {notes[i % len(notes)]}" + sgl.gen(f"a{i}", max_tokens=3)
    s += f"\n{name}, {times}, {notes[-1]}, {style}: " + ", ".join(notes)
    s += sgl.gen("end", max_tokens=4, stop=name[0])
    return f"{name} {s['end']} {times + 1}"


def everywhere_arguments(rng: Random) -> dict[str, Any]:
    out = {"name": word(rng), "times": rng.randint(0, 3), "notes": words(rng, 1, 3)}
    return {**out, "style": "bold"} if rng.random() < 0.5 else out


# -- f-strings of everything ------------------------------------------------------------------
@sgl.program
def formats(s: Any, label: str, count: int, price: float, flag: bool, tags: list[str],
            size: dict[str, int], width: int, extra: Any) -> None:
    s += f"{label!r:>12}|{label:<8}|{label:^{width}}|{label.upper()!s}|{label[:2]}|{label!a}\n"
    s += f"{count:04d}|{count:+}|{count * 2 - 1}|{count / 3:.3f}|{price:.2f}|{price:8.1e}|{flag}\n"
    s += f"{tags[0]}|{len(tags)}|{', '.join(tags)}|{size['x']}x{size['y']:>4}|{extra}|{extra!r}\n"
    s += f"{label} " f"{'many' if count > 5 else 'few'} {{braces}} {f'<{count}>':>6}\n"
    s += "%s and %s, " % (label, count) + "{0} {1} {0}".format(label, count)  # noqa: UP031, UP032
    s += sgl.gen("a", max_tokens=6, ignore_eos=True)
    a = s["a"]
    s += f"|{a}|{a!r}|{a:>12}|{a.strip():.3}|{len(a)}|{a == label}|{a[0]}{a[-2:]}|"
    s += f"{a + label}|{a.count('e') + count}" + sgl.gen("b", max_tokens=3)


def formats_arguments(rng: Random) -> dict[str, Any]:
    return {"label": word(rng), "count": rng.randint(-3, 20), "price": rng.uniform(0, 500),
            "flag": rng.random() < 0.5, "tags": words(rng, 1, 3), "width": rng.randint(4, 9),
            "size": {"x": rng.randint(1, 9), "y": rng.randint(1, 999)},
            "extra": rng.choice((None, "more", 7))}


# -- whole containers in an f-string ----------------------------------------------------------
@sgl.program
def container_formats(s: Any, tags: list[str], sizes: dict[str, int]) -> None:
    s += f"Tags {tags}, sizes {sizes}. " + str(tags) + repr(sizes) + sgl.gen("a", max_tokens=5)
    found = [s["a"], tags[0]]
    s += f"{found}"


def container_arguments(rng: Random) -> dict[str, Any]:
    return {"tags": words(rng, 1, 3), "sizes": {w: rng.randint(1, 9) for w in words(rng, 1, 2)}}


# -- string methods on generated text ---------------------------------------------------------
@sgl.program
def cleaning(s: Any, topic: str) -> list[Any]:
    s += topic + ":" + sgl.gen("raw", max_tokens=14, ignore_eos=True)
    raw = s["raw"]
    clean = raw.strip().lower().replace("e", "3").removeprefix("t").rstrip(".!? ")
    s += f"\nClean: {clean}\nStart: {clean[:4].capitalize()}" + sgl.gen("more", max_tokens=5)
    if clean.startswith("a") or clean.isdigit() or " " not in clean:
        s += "\nOdd:" + sgl.gen("odd", max_tokens=4)
    s += clean.zfill(20) + raw.swapcase() + raw.upper().title()
    return [raw.splitlines(), clean.find("3"), raw.count(" "), raw.isascii(), raw.split()]


def topic_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3)}


# -- parts of generated text ------------------------------------------------------------------
@sgl.program
def first_part(s: Any, topic: str) -> str:
    s += topic + " =" + sgl.gen("raw", max_tokens=12)
    first = s["raw"].split(" ")[0]
    key = s["raw"].partition(":")[0]
    s += f"\n{first}, {key}, {s['raw'].center(20, '*')}" + sgl.gen("more", max_tokens=4)
    return first + key


# -- while, break, continue, else -------------------------------------------------------------
@sgl.program
def while_loops(s: Any, budget: int, stop_word: str) -> str:
    s += "Go on?\n"
    spent = 0
    skipped = 0
    while spent < budget:
        spent += 1
        if spent == 2:
            skipped += 1
            continue
        s += f"{spent}. " + sgl.select("more", ["yes", "no", stop_word]) + "\n"
        if s["more"] == stop_word:
            s += "Stopped." + sgl.gen("why", max_tokens=4)
            break
    else:
        s += f"Out of budget, {skipped} skipped." + sgl.gen("end", max_tokens=4)
    return f"{spent} of {budget}"


def budget_arguments(rng: Random) -> dict[str, Any]:
    return {"budget": rng.randint(0, 5), "stop_word": rng.choice(("enough", "halt"))}


# -- nested loops, comprehensions, conditions -------------------------------------------------
@sgl.program
def comprehensions(s: Any, groups: dict[str, list[str]], limit: int) -> Any:
    flat = [f"{name}:{x}" for name, items in groups.items() for x in items if len(x) > limit]
    lengths = {x: len(x) for x in flat}
    s += " ".join(sorted(flat)) + f"\n{sum(lengths.values())} letters\n"
    forks = s.fork(max(len(flat), 1))
    for fork, x in zip(forks, flat or ["nothing"], strict=True):
        fork += x + " is " + sgl.select("size", ["small", "large"]) + sgl.gen("why", max_tokens=3)
    large = [x for x, fork in zip(flat, forks, strict=False) if fork["size"] == "large"]
    s += f"{len(large)} large ones: {', '.join(large)}" + sgl.gen("end", max_tokens=3)
    reasons = {f["why"] for f in forks} if not flat else None
    return any(fork["size"] == "small" for fork in forks), tuple(large), reasons


def groups_arguments(rng: Random) -> dict[str, Any]:
    return {"groups": {w: words(rng, 1, 2) for w in words(rng, 1, 2)}, "limit": rng.randint(4, 6)}


# -- early returns ----------------------------------------------------------------------------
@sgl.program
def early_return(s: Any, query: str | None, strict: bool) -> Any:
    if query is None:
        s += "no query"
        return None
    s += "Query: " + query + "\nKind: " + sgl.select("kind", ["clear", "vague"])
    if s["kind"] == "vague" and strict:
        return {"refused": query}
    s += "\nAnswer:" + sgl.gen("answer", max_tokens=6)
    return s["answer"] or "empty"


def query_arguments(rng: Random) -> dict[str, Any]:
    return {"query": rng.choice((None, text(rng), text(rng))), "strict": rng.random() < 0.5}


# -- try around host calls only ---------------------------------------------------------------
def parse(ticket: str, raw: str) -> int:
    CALLS.append((ticket, "parse", raw))
    return int(raw)


@sgl.program
def guarded_calls(s: Any, ticket: str, topic: str) -> Any:
    s += topic + " " + sgl.gen("raw", regex="[0-9a]{2}")
    try:
        value = parse(ticket, s["raw"])
    except ValueError:
        value = None
    finally:
        CALLS.append((ticket, "finally"))
    s += f" = {value}" + sgl.gen("more", max_tokens=4)
    return value


def ticket_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "topic": text(rng, 1, 3)}


# -- calculators: a guess against a secret ----------------------------------------------------
def compare(ticket: str, guess: str, secret: int) -> int:
    CALLS.append((ticket, "compare", guess, secret))
    return (int(guess) > secret) - (int(guess) < secret)


@sgl.program
def guess_the_number(s: Any, ticket: str, secret: int, tries: int) -> Any:
    s += "Guess a number from 0 to 9.\n"
    for i in range(tries):
        s += sgl.user(f"Guess {i + 1}?") + sgl.assistant(sgl.gen("guess", regex="[0-9]"))
        sign = compare(ticket, s["guess"], secret)
        if sign == 0:
            s += sgl.user("Right!")
            return i + 1
        s += sgl.user("Too high." if sign > 0 else "Too low.")
    return -1


def secret_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "secret": rng.randint(0, 9), "tries": rng.randint(1, 3)}


# -- variables set by the program -------------------------------------------------------------
@sgl.program
def own_variables(s: Any, name: str, numbers: list[int]) -> None:
    s["name"] = name.title()
    s["total"] = sum(numbers)
    s["copy"] = list(numbers)
    s += f"{s['name']} has {s['total']}: " + sgl.gen("wish", max_tokens=5)
    s["table"] = {"wish": s["wish"], "first": numbers[0]}
    if "wish" in s and "nothing" not in s:
        s += f" {s['wish']!r} and {s['copy'][0]}"


def numbers_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng), "numbers": [rng.randint(0, 9) for _ in range(rng.randint(1, 3))]}


# -- copies that are thrown away, and ones that are kept --------------------------------------
@sgl.program
def side_thoughts(s: Any, question: str) -> str:
    s += "Q: " + question + "\n"
    with s.copy() as c:
        c += "(aside:" + sgl.gen("aside", max_tokens=8, stop=")") + ")"
        aside = c["aside"]
    with s.copy() as c:
        c += "(again:" + sgl.gen("again", max_tokens=4) + ")"
    s += f"A{len(aside)}:" + sgl.gen("answer", max_tokens=6)
    return s["aside"][0] + s["again"][0]


def aside_arguments(rng: Random) -> dict[str, Any]:
    return {"question": text(rng)}


# -- a calculator in the body -----------------------------------------------------------------
@sgl.program
def calculator(s: Any, a: int, b: int) -> int:
    s += f"{a} + {b} = " + sgl.gen("x", regex="[1-9][0-9]?") + "\n"
    error = int(s["x"]) - (a + b)
    if error == 0:
        s += "Right."
    else:
        s += f"Off by {abs(error)}." + sgl.gen("again", max_tokens=4)
    return error


def sum_arguments(rng: Random) -> dict[str, Any]:
    return {"a": rng.randint(1, 40), "b": rng.randint(1, 40)}


# -- arithmetic on what the host returned -----------------------------------------------------
def measure(ticket: str, raw: str) -> int:
    CALLS.append((ticket, "measure", raw))
    return len(raw) + 1


@sgl.program
def arithmetic(s: Any, ticket: str, topic: str) -> Any:
    s += topic + ":" + sgl.gen("raw", max_tokens=6)
    n = measure(ticket, s["raw"])
    s += f"\n{n ** 2}, {100 // n}, {100 / n:.2f}, {100 % n}, {n & 1}, {n << 2}, {-n}"
    s += f"\n{min(n, 4)} of {divmod(n, 3)}, {'odd' if n % 2 else 'even'}"
    s += sgl.gen("end", max_tokens=4)
    return n ** 2


# -- options of the host merged with those of the program -------------------------------------
def preferences(ticket: str) -> dict[str, str]:
    CALLS.append((ticket, "preferences"))
    return {"tone": "calm", "length": ticket[:1]}


@sgl.program
def merged_options(s: Any, ticket: str, topic: str) -> None:
    options = {"tone": "plain", "topic": topic, **preferences(ticket)}
    s += f"Write on {options['topic']} in a {options['tone']} tone."
    s += sgl.gen("text", max_tokens=6) + f" [{options.get('length', 'any')}]"


SPECS = [
    Spec(everywhere, everywhere_arguments), Spec(formats, formats_arguments),
    Spec(container_formats, container_arguments), Spec(cleaning, topic_arguments),
    Spec(first_part, topic_arguments), Spec(while_loops, budget_arguments),
    Spec(comprehensions, groups_arguments), Spec(early_return, query_arguments),
    Spec(guarded_calls, ticket_arguments), Spec(guess_the_number, secret_arguments),
    Spec(own_variables, numbers_arguments), Spec(side_thoughts, aside_arguments),
    Spec(calculator, sum_arguments),
    Spec(arithmetic, ticket_arguments), Spec(merged_options, ticket_arguments),
]
