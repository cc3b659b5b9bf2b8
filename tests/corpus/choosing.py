"""Classification and routing: select, choices, branches on what was chosen."""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word, words

CALLS: list[tuple[Any, ...]] = []


# -- endings of a sentence --------------------------------------------------------------------
SHOTS = "".join(f"Sentence {i}: the {a} went to the {b}.\n" for i, (a, b) in enumerate(
    zip("fox owl cat dog bee".split(), "well barn roof gate hive".split(), strict=True)))


@sgl.program
def hellaswag(s: Any, context: str, endings: list[str]) -> None:
    s += SHOTS
    s += context + " " + sgl.select("ending", choices=endings)


def endings_arguments(rng: Random) -> dict[str, Any]:
    return {"context": text(rng), "endings": [
        f"{w} {text(rng, 1, 3)}" for w in words(rng, 4, 4)]}


# -- word problems with examples --------------------------------------------------------------
EXAMPLES = [{"question": "Two and two?", "answer": "2 + 2 = 4. #### 4"},
            {"question": "Three less one?", "answer": "3 - 1 = 2. #### 2"}]


def few_shot(s: Any, examples: list[dict[str, str]]) -> None:
    for example in examples:
        s += f"Question: {example['question']}\nAnswer: {example['answer']}\n\n"


@sgl.program
def gsm8k(s: Any, question: str) -> None:
    few_shot(s, EXAMPLES)
    s += "Question: " + question + "\n"
    s += "Answer:" + sgl.gen("answer", max_tokens=24, stop=["Question", "\n\n"])


def question_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng)}


# -- a bound prefix of examples, one letter ---------------------------------------------------
@sgl.program
def mmlu(s: Any, examples: str, question: str, options: list[str]) -> str:
    s += examples + question + "\n"
    for letter, option in zip("ABCD", options, strict=False):
        s += f"{letter}. {option}\n"
    s += "Answer:" + sgl.gen("answer", max_tokens=1, temperature=0)
    return s["answer"].strip()[:1]


mmlu_of_rivers = mmlu.bind(examples="Questions about rivers.\n\nWhich one is long?\nA. none\nB. "
                                    "all\nAnswer: B\n\n")


def options_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "options": words(rng, 2, 4)}


# -- few-shot classification, labels from the examples ----------------------------------------
@sgl.program
def few_shot_labels(s: Any, examples: list[dict[str, str]], item: str) -> None:
    labels = []
    for example in examples:
        s += "Text: {}\nLabel: {}\n".format(example["text"], example["label"])
        if example["label"] not in labels:
            labels.append(example["label"])
    s += "Text: %s\nLabel: " % item  # noqa: UP031
    s += sgl.gen("label", choices=labels, choices_method="greedy_token_selection")


def labels_arguments(rng: Random) -> dict[str, Any]:
    return {"item": text(rng), "examples": [
        {"text": text(rng), "label": rng.choice(("good", "bad", "mixed"))} for _ in range(3)]}


# -- a router with a program for each route ---------------------------------------------------
@sgl.program
def poet(s: Any, request: str) -> None:
    s += "A poem about " + request + ":\n" + sgl.gen("answer", max_tokens=8)


@sgl.program
def chemist(s: Any, request: str) -> None:
    s += sgl.user("As a chemist: " + request) + sgl.assistant(sgl.gen("answer", max_tokens=8))


@sgl.program
def router(s: Any, request: str) -> str:
    s += "Who should answer? " + request + "\n"
    s += sgl.select("route", ["poet", "chemist", "nobody"])
    if s["route"] == "poet":
        answer = poet(request)["answer"]
    elif s["route"] == "chemist":
        answer = chemist(request=request)["answer"]
    else:
        return "no answer"
    s += "\nThe answer: " + answer + "\nIs it good? " + sgl.select("good", ["yes", "no"])
    return answer


def request_arguments(rng: Random) -> dict[str, Any]:
    return {"request": text(rng)}


# -- a cascade: coarse, then fine -------------------------------------------------------------
FINE = {"animal": ["bird", "fish", "insect"], "plant": ["tree", "herb"], "thing": ["tool", "toy"]}


@sgl.program
def cascade(s: Any, item: str) -> str:
    s += item + " is a kind of " + sgl.select("coarse", list(FINE))
    for coarse, fine in FINE.items():
        if s["coarse"] == coarse:
            s += f", more exactly a {coarse} of the sort " + sgl.select("fine", fine)
            break
    s += "."
    if s["coarse"] != "thing" and s["fine"] in ("bird", "tree"):
        s += " A bird or a tree:" + sgl.gen("remark", max_tokens=5)
    return s["coarse"] + "/" + s["fine"]


def item_arguments(rng: Random) -> dict[str, Any]:
    return {"item": word(rng).capitalize()}


# -- a table looked up by what was chosen -----------------------------------------------------
PROMPTS = {"short": "Answer in one word:", "long": "Explain at length:", "rude": "Go away."}


@sgl.program
def lookup_by_choice(s: Any, question: str) -> None:
    s += f"{question}\nThe answer should be " + sgl.select("style", list(PROMPTS)) + ".\n"
    s += PROMPTS[s["style"]] + sgl.gen("answer", max_tokens=8)


# -- match ------------------------------------------------------------------------------------
@sgl.program
def match_on_a_choice(s: Any, command: str, tone: str) -> str:
    s += f"{command}: " + sgl.gen("verb", choices=["go", "stay", "turn", "stop"])
    match s["verb"]:
        case "go":
            s += " where?" + sgl.gen("where", max_tokens=5)
        case "stay" | "stop":
            s += " how long?" + sgl.gen("time", regex="[1-9] (min|h)")
        case other:
            s += f" {other}!"
    match tone:
        case "kind":
            s += " Thank you."
        case _:
            s += " Now."
    s += sgl.gen("end", max_tokens=3)
    return s["verb"]


def command_arguments(rng: Random) -> dict[str, Any]:
    return {"command": text(rng), "tone": rng.choice(("kind", "stern", "flat"))}


# -- every parameter of a gen from an argument ------------------------------------------------
@sgl.program
def parameters(s: Any, start: str, stop: Any, limit: int, heat: float, pattern: str,
               labels: list[str]) -> None:
    s += start + sgl.gen("free", max_tokens=limit, stop=stop, temperature=heat)
    s += "|" + sgl.gen("form", regex=pattern) + "|" + sgl.gen("label", choices=labels)
    s += "|" + sgl.gen_int("number", max_tokens=4) + "|" + sgl.gen("name", dtype=str, max_tokens=6)


def parameters_arguments(rng: Random) -> dict[str, Any]:
    return {"start": text(rng), "stop": rng.choice(("e", ["a", "\n"], ". ")),
            "limit": rng.randint(1, 9), "heat": rng.choice((0.0, 0.5, 1.5)),
            "pattern": rng.choice(("[ab]{3}", "x(y|z)+", "[0-9]")), "labels": words(rng, 2, 3)}


# -- moderation: host validation decides, early returns ---------------------------------------
def allowed(ticket: str, reply: str) -> bool:
    CALLS.append((ticket, "allowed", reply))
    return "o" not in reply


@sgl.program
def moderation(s: Any, ticket: str, message: str) -> str:
    if not message.strip():
        return "empty"
    s += sgl.user(message)
    with s.copy() as c:
        c += sgl.assistant("This message is " + sgl.select("kind", ["fine", "spam", "abuse"]))
        kind = c["kind"]
    if kind == "spam":
        return "dropped"
    if kind == "abuse":
        s += sgl.assistant("Please be polite." + sgl.gen("plea", max_tokens=4))
        return "warned"
    s += sgl.assistant(sgl.gen("reply", max_tokens=8))
    if not allowed(ticket, s["reply"]):
        return "blocked " + ticket[:2]
    return s["reply"].title()


def message_arguments(rng: Random) -> dict[str, Any]:
    return {"ticket": tag(rng), "message": rng.choice((text(rng), question(rng), "  "))}


# -- reading the scores of a choice ------------------------------------------------------------
@sgl.program
def confidence(s: Any, question: str) -> float:
    s += question + " " + sgl.select("answer", ["yes", "no"])
    scores = s.get_meta_info("answer")["normalized_prompt_logprobs"]
    if max(scores) - min(scores) < 0.5:
        s += " (unsure)" + sgl.gen("doubt", max_tokens=4)
    return max(scores)


SPECS = [
    Spec(hellaswag, endings_arguments), Spec(gsm8k, question_arguments),
    Spec(mmlu_of_rivers, options_arguments), Spec(few_shot_labels, labels_arguments),
    Spec(router, request_arguments), Spec(cascade, item_arguments),
    Spec(lookup_by_choice, question_arguments), Spec(match_on_a_choice, command_arguments),
    Spec(parameters, parameters_arguments), Spec(moderation, message_arguments),
    Spec(confidence, question_arguments),
]
