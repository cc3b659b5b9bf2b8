"""How programs are put together: nesting, helpers, closures, classes, objects."""

from __future__ import annotations

import functools
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word, words

CALLS: list[tuple[Any, ...]] = []


# -- nested programs with clashing names ------------------------------------------------------
@sgl.program
def inner_most(s: Any, x: str) -> None:
    s += "c " + x + sgl.gen("x", max_tokens=3) + sgl.gen("y", max_tokens=2)


@sgl.program
def inner(s: Any, x: str) -> None:
    s += "b " + x + sgl.gen("x", max_tokens=4)
    child = inner_most(s["x"])
    s += child["x"] + "/" + child["y"] + "/" + s["x"] + sgl.gen("y", max_tokens=3)


@sgl.program
def clashing_names(s: Any, x: str, y: str) -> list[str]:
    s += "a " + x + sgl.gen("x", max_tokens=5)
    one, two = inner(s["x"]), inner(x=y)
    s["y"] = one["y"] + two["y"]
    s += f"{one['x']}, {two['x']}, {s['x']}, {s['y']}, {x}, {y}" + sgl.gen("x", max_tokens=3)
    return [one.text(), two.text(), s["x"]]


def xy_arguments(rng: Random) -> dict[str, Any]:
    return {"x": word(rng), "y": word(rng)}


# -- what a nested program returns ------------------------------------------------------------
@sgl.program
def headline(s: Any, topic: str) -> str:
    s += "A headline about " + topic + ": " + sgl.gen("line", max_tokens=6, stop="\n")
    return s["line"].strip().upper()


@sgl.program
def newspaper(s: Any, topics: list[str]) -> None:
    lines = [headline(topic).ret_value for topic in topics]
    s += "NEWS\n" + "\n".join(lines) + "\nWeather:" + sgl.gen("weather", max_tokens=5)


def topics_arguments(rng: Random) -> dict[str, Any]:
    return {"topics": words(rng, 1, 3)}


# -- helper functions that take a state, some of them closures --------------------------------
def ask(s: Any, text: str, *, name: str, limit: int = 4) -> str:
    s += sgl.user(text) + sgl.assistant(sgl.gen(name, max_tokens=limit))
    return s[name]


def make_asker(prefix: str, limit: int) -> Callable[[Any, str], str]:
    def asker(s: Any, text: str) -> str:
        s += f"{prefix} {text}" + sgl.gen("asked", max_tokens=limit) + "\n"
        return s["asked"]

    return asker


politely = make_asker("Please:", 5)


@sgl.program
def helpers(s: Any, questions: list[str]) -> dict[str, str]:
    shout = lambda x: x.upper() + "!"  # noqa: E731

    def numbered(i: int, x: str) -> str:
        return f"{i + 1}) {x}"

    answers = {}
    for i, q in enumerate(questions):
        answers[q] = ask(s, numbered(i, q), name=f"q{i}", limit=3 + i)
    loud = [shout(a) for a in answers.values() if a != ""]
    s += " ".join(loud) + "\n" + politely(s, "one more") + "."
    return answers


def questions_arguments(rng: Random) -> dict[str, Any]:
    return {"questions": words(rng, 1, 3)}


# -- programs made by a function --------------------------------------------------------------
def make_translator(language: str, examples: tuple[tuple[str, str], ...]) -> Any:
    @sgl.program
    def translate(s: Any, sentence: str) -> None:
        s += "".join(f"{a} -> {b}\n" for a, b in examples)
        s += f"To {language}: {sentence} ->" + sgl.gen("translation", max_tokens=6, stop="\n")

    return translate


to_latin = make_translator("Latin", (("one", "unus"), ("two", "duo")))
to_norse = make_translator("Norse", (("one", "einn"),))


@sgl.program
def there_and_back(s: Any, sentence: str) -> None:
    there = to_latin(sentence)["translation"]
    back = to_norse(there)["translation"]
    s += f"{sentence} = {there} = {back}\nSame meaning? " + sgl.select("same", ["yes", "no"])


def sentence_arguments(rng: Random) -> dict[str, Any]:
    return {"sentence": text(rng)}


# -- a class with prompts, its methods as helpers ---------------------------------------------
class Tutor:
    """Prompts and how to use them."""

    greeting = "Hello."

    def __init__(self, subject: str, hints: list[str]) -> None:
        self.prompt = f"You teach {subject}."
        self.hints = hints

    def start(self, s: Any) -> None:
        s += sgl.system(self.prompt) + sgl.user(self.greeting)

    def hint(self, s: Any, i: int) -> str:
        s += sgl.assistant(self.hints[i] + " " + sgl.gen("hint", max_tokens=5))
        return s["hint"]


tutor = Tutor("algebra", ["Try a letter.", "Divide.", "Look again."])


@sgl.program
def lesson(s: Any, exercise: str, hints: int) -> list[str]:
    tutor.start(s)
    given = []
    for i in range(hints):
        given.append(tutor.hint(s, i))
        s += sgl.user(exercise if i == 0 else "I still do not know.")
    s += sgl.assistant(sgl.gen("solution", max_tokens=6))
    return given


def exercise_arguments(rng: Random) -> dict[str, Any]:
    return {"exercise": text(rng), "hints": rng.randint(0, 3)}


# -- a method as a program --------------------------------------------------------------------
class Critic:
    def __init__(self, taste: str) -> None:
        self.taste = taste

    def review(self, s: Any, work: str) -> None:
        s += f"A critic who likes {self.taste} on {work}:" + sgl.gen("review", max_tokens=8)


method_program = sgl.program(Critic("brevity").review)


def work_arguments(rng: Random) -> dict[str, Any]:
    return {"work": text(rng)}


# -- objects as arguments ---------------------------------------------------------------------
@dataclass
class Notebook:
    """What a row of a batch remembers."""

    owner: str
    pages: list[str] = field(default_factory=list)
    edits: int = 0

    def write(self, page: str) -> int:
        CALLS.append((self.owner, "write", page))
        self.pages.append(page)
        self.edits += 1
        return len(self.pages)


@sgl.program
def notes(s: Any, notebook: Notebook, topic: str) -> None:
    s += "Notes on " + topic + "\n"
    for _ in range(3):
        s += "-" + sgl.gen("note", max_tokens=6, stop="\n") + "\n"
        page = notebook.write(s["note"].strip())
        s += f"(page {page})\n"


def notebook_arguments(rng: Random) -> dict[str, Any]:
    return {"notebook": Notebook(tag(rng)), "topic": text(rng, 1, 3)}


@sgl.program
def store_on_an_object(s: Any, notebook: Notebook, topic: str) -> None:
    s += "A title for " + topic + ":" + sgl.gen("title", max_tokens=6)
    notebook.edits += 1
    notebook.pages = [s["title"]]
    s += "\nSubtitle:" + sgl.gen("subtitle", max_tokens=6)


class Person(NamedTuple):
    name: str
    age: int


@sgl.program
def named_tuples(s: Any, person: Person, question: str) -> None:
    s += f"{person.name} is {person.age}. " + question + sgl.gen("answer", max_tokens=6)
    if person.age > 50:
        s += " (over fifty)"


def person_arguments(rng: Random) -> dict[str, Any]:
    return {"person": Person(word(rng).title(), rng.randint(20, 80)), "question": question(rng)}


# -- templates filled by Python's own means ---------------------------------------------------
TEMPLATE = string.Template("Dear $name,\nabout your $thing:")
join_lines = functools.partial(str.join, "\n")


def shorten(ticket: str, letter: str, width: int) -> str:
    CALLS.append((ticket, "shorten", letter, width))
    return letter[:width] + ("..." if len(letter) > width else "")


@sgl.program
def letters(s: Any, ticket: str, name: str, thing: str) -> str:
    s += TEMPLATE.substitute(name=name, thing=thing) + sgl.gen("body", max_tokens=10)
    s += "\n" + join_lines([name, thing]) + "\n"
    short = shorten(ticket, s["body"], 4)
    s["short"] = short
    s += sgl.user("Is this enough? " + short) + sgl.assistant(sgl.select("ok", ["yes", "no"]))
    return short + "!"


def letters_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "name": word(rng).title(), "thing": word(rng)}


SPECS = [
    Spec(clashing_names, xy_arguments), Spec(newspaper, topics_arguments),
    Spec(helpers, questions_arguments), Spec(there_and_back, sentence_arguments),
    Spec(lesson, exercise_arguments), Spec(method_program, work_arguments),
    Spec(notes, notebook_arguments), Spec(store_on_an_object, notebook_arguments),
    Spec(named_tuples, person_arguments), Spec(letters, letters_arguments),
]
