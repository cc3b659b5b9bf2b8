"""Conversations: turns, histories, roles."""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, words

CALLS: list[tuple[Any, ...]] = []


# -- two turns --------------------------------------------------------------------------------
@sgl.program
def mt_bench(s: Any, question_1: str, question_2: str) -> None:
    s += sgl.system("You are helpful.")
    s += sgl.user(question_1)
    s += sgl.assistant(sgl.gen("answer_1", max_tokens=12))
    s += sgl.user(question_2)
    s += sgl.assistant(sgl.gen("answer_2", max_tokens=12))


def two_questions(rng: Random) -> dict[str, Any]:
    return {"question_1": question(rng), "question_2": question(rng)}


# -- turns from a list, each with a length of its own -----------------------------------------
@sgl.program
def multi_turn(s: Any, turns: list[dict[str, Any]]) -> None:
    for turn in turns:
        s += turn["prompt"] + sgl.gen(max_tokens=turn["length"], ignore_eos=True)


def turns_arguments(rng: Random) -> dict[str, Any]:
    return {"turns": [{"prompt": text(rng) + " ", "length": rng.randint(2, 8)}
                      for _ in range(rng.randint(1, 4))]}


# -- a history of messages as an argument -----------------------------------------------------
@sgl.program
def chat_with_history(s: Any, history: list[dict[str, str]], message: str) -> str:
    s += sgl.system("You remember everything.")
    for entry in history:
        if entry["role"] == "user":
            s += sgl.user(entry["content"])
        else:
            s += sgl.assistant(entry["content"])
    s += sgl.user(message) + sgl.assistant(sgl.gen("reply", max_tokens=10))
    return s["reply"]


def history_arguments(rng: Random) -> dict[str, Any]:
    return {"message": question(rng), "history": [
        {"role": role, "content": text(rng)}
        for _ in range(rng.randint(0, 2)) for role in ("user", "assistant")]}


# -- the history is the caller's list and grows -----------------------------------------------
@sgl.program
def chat_that_grows(s: Any, history: list[dict[str, str]], message: str) -> None:
    for entry in history:
        s += f"{entry['role']}: {entry['content']}\n"
    s += "user: " + message + "\nassistant:" + sgl.gen("reply", max_tokens=8, stop="\n")
    history.append({"role": "user", "content": message})
    history.append({"role": "assistant", "content": s["reply"]})


# -- examples as turns ------------------------------------------------------------------------
SHOTS = [{"input": "2 pm", "output": "14:00"}, {"input": "noon", "output": "12:00"},
         {"input": "1 am", "output": "01:00"}]


@sgl.program
def few_shot_chat(s: Any, time: str, shots: int = 2) -> None:
    s += sgl.system(f"Convert times. {shots} examples follow.")
    for shot in SHOTS[:shots]:
        s += sgl.user(shot["input"])
        s += sgl.assistant(shot["output"])
    s += sgl.user(time)
    s += sgl.assistant(sgl.gen("converted", regex="[0-2][0-9]:[0-5][0-9]"))


def time_arguments(rng: Random) -> dict[str, Any]:
    time = f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}"
    return rng.choice(({"time": time}, {"time": time, "shots": rng.randint(0, 3)}))


# -- role blocks, scopes, a part of a message -------------------------------------------------
@sgl.program
def scopes(s: Any, topic: str, adjective: str) -> str:
    with s.system():
        s += "You write " + adjective + " texts."
    with s.user():
        s += f"Write about {topic}, {topic}, and nothing but {topic}."
    with s.assistant():
        with s.var_scope("draft"):
            s += "First" + sgl.gen("one", max_tokens=6, stop=".") + ", then"
            s += sgl.gen("two", max_tokens=6, stop=".")
        s += ".\n"
    with s.user():
        s += f"Now in {len(topic)} letters: {s['draft'].upper()}"
    s += sgl.assistant_begin()
    with s.var_scope("final"):
        s += sgl.gen("short", max_tokens=5) + "!"
    s += sgl.assistant_end()
    return s["final"]


def topic_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 2), "adjective": rng.choice(("short", "dull"))}


# -- control tokens by hand -------------------------------------------------------------------
@sgl.program
def by_hand(s: Any, prompt: str) -> None:
    s += sgl.special("<|im_start|>") + "user\n" + prompt + sgl.special("<|im_end|>") + "\n"
    s += sgl.special("<|im_start|>") + "assistant\n" + sgl.gen("reply", max_tokens=8)
    s += sgl.special("<|im_end|>")


def prompt_arguments(rng: Random) -> dict[str, Any]:
    return {"prompt": text(rng)}


# -- two personas talk to each other ----------------------------------------------------------
@sgl.program
def two_personas(s: Any, names: list[str], opening: str, rounds: int) -> list[str]:
    a, b = s.fork(2)
    a += sgl.system(f"You are {names[0]}.")
    b += sgl.system(f"You are {names[1]}.")
    said = opening
    transcript = [opening]
    for i in range(rounds):
        me, other = (a, names[1]) if i % 2 == 0 else (b, names[0])
        me += sgl.user(f"{other}: {said}") + sgl.assistant(sgl.gen("line", max_tokens=6))
        said = me["line"]
        transcript.append(said)
    s += "\n".join(f"{i}: {line}" for i, line in enumerate(transcript))
    return transcript


def personas_arguments(rng: Random) -> dict[str, Any]:
    return {"names": words(rng, 2, 2), "opening": text(rng), "rounds": rng.randint(1, 4)}


# -- a conversation that ends when the user has had enough ------------------------------------
def answer_of(user: str, line: str) -> str:
    CALLS.append((user, "answer_of", line))
    return "bye" if "s" in line or not line else f"and what about {line.strip()[:3]}?"


@sgl.program
def until_bye(s: Any, user: str, opening: str) -> int:
    s += sgl.user(opening)
    turns = 0
    while turns < 4:
        s += sgl.assistant(sgl.gen("line", max_tokens=6))
        answer = answer_of(user, s["line"])
        turns += 1
        if answer == "bye":
            break
        s += sgl.user(answer)
    else:
        s += sgl.user("I must go.")
    return turns


def bye_arguments(rng: Random) -> dict[str, Any]:
    return {"user": tag(rng), "opening": text(rng)}


# -- the messages so far, handed to the host -------------------------------------------------
def save(user: str, messages: list[dict[str, str]]) -> int:
    CALLS.append((user, "save", messages))
    return len(messages)


@sgl.program
def saved_messages(s: Any, user: str, question: str) -> int:
    s += sgl.user(question) + sgl.assistant(sgl.gen("answer", max_tokens=6))
    n = save(user, s.messages())
    s += sgl.user(f"{n} messages are saved.") + sgl.assistant(sgl.gen("end", max_tokens=4))
    return n


def user_arguments(rng: Random) -> dict[str, Any]:
    return {"user": tag(rng), "question": question(rng)}


SPECS = [
    Spec(mt_bench, two_questions), Spec(multi_turn, turns_arguments),
    Spec(chat_with_history, history_arguments), Spec(chat_that_grows, history_arguments),
    Spec(few_shot_chat, time_arguments), Spec(scopes, topic_arguments),
    Spec(by_hand, prompt_arguments), Spec(two_personas, personas_arguments),
    Spec(until_bye, bye_arguments),
    Spec(saved_messages, user_arguments),
]
