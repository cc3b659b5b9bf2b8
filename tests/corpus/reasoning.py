"""Trees, votes, debates: programs made of forks and joins."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word

CALLS: list[tuple[Any, ...]] = []


# -- tree of thought, level by level ----------------------------------------------------------
def propose_plan(s: Any, question: str, branches: int) -> Any:
    s += sgl.user("Make a plan for this. " + question)
    forks = s.fork(branches)
    forks += sgl.assistant(sgl.gen("plan", max_tokens=6))
    return forks


def execute_plan(s: Any, branches: int) -> Any:
    s += sgl.user("Carry the plan out.")
    forks = s.fork(branches)
    forks += sgl.assistant(sgl.gen("answer", max_tokens=6))
    return forks


def reflect(s: Any, branches: int) -> Any:
    s += sgl.user("Is that right? Think again.")
    forks = s.fork(branches)
    forks += sgl.assistant(sgl.gen("score", max_tokens=4))
    return forks


@sgl.program
def tree_of_thought(s: Any, question: str, branches: int) -> None:
    plans = propose_plan(s, question, branches)
    all_answers = []
    for plan in plans:
        answers = execute_plan(plan, branches)
        all_answers.append(answers)
        for answer in answers:
            reflect(answer, branches).join()
        answers.join()
    plans.join()
    s += sgl.user(f"{len(all_answers)} plans were tried.")
    s += sgl.assistant(sgl.gen("final", max_tokens=6))


def tree_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "branches": rng.randint(2, 3)}


# -- tree of thought, depth first -------------------------------------------------------------
STEPS = ("Plan it.", "Do it.", "Check it.", "Give the answer.")


def explore(s: Any, depth: int, branches: int) -> list[Any]:
    """The answers at the leaves below s."""
    s += sgl.user(STEPS[depth])
    forks = s.fork(branches)
    forks += sgl.assistant(sgl.gen(f"step{depth}", max_tokens=4, temperature=0.3))
    if depth == len(STEPS) - 1:
        return [f[f"step{depth}"] for f in forks]
    return [leaf for f in forks for leaf in explore(f, depth + 1, branches)]


@sgl.program
def tree_of_thought_deep(s: Any, question: str) -> list[str]:
    s += sgl.system("Solve step by step.") + sgl.user("Question: " + question)
    s += sgl.assistant("Yes.")
    return explore(s, 0, 2)


def question_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng)}


# -- skeleton of thought ----------------------------------------------------------------------
@sgl.program
def skeleton_of_thought(s: Any, topic: str, points: int) -> None:
    s += f"An outline of {topic} in {points} points.\n"
    for i in range(points):
        s += f"{i + 1}." + sgl.gen(f"point{i}", max_tokens=6, stop="\n") + "\n"
    forks = s.fork(points)
    for i in range(points):
        forks[i] += f"Point {i + 1},{s[f'point{i}']}, in full:"
        forks[i] += sgl.gen("body", max_tokens=12, stop="\n\n")
    forks.join()
    s += "The whole text:\n" + "\n".join(
        f"{i + 1}.{s[f'point{i}'].rstrip('.')}. {body.strip()}"
        for i, body in enumerate(s["body"]))
    s += "\nTitle:" + sgl.gen("title", max_tokens=6, stop="\n")


def skeleton_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3), "points": rng.randint(1, 4)}


# -- the tips of SGLang's README, each expanded by a program of its own -----------------------
@sgl.program
def expand_tip(s: Any, topic: str, tip: str) -> None:
    s += ("Tips are expanded into paragraphs.\nTip: eat well.\nParagraph: a good meal is a start."
          f"\nTopic: {topic}\nTip: {tip.strip()}\nParagraph:")
    s += sgl.gen("paragraph", max_tokens=12, stop=["\n", "Tip:"])


@sgl.program
def tip_suggestion(s: Any, topic: str, number: int) -> list[str]:
    s += f"Tips on {topic}, {number} of them.\n"
    paragraphs = []
    for i in range(number):
        s += f"{i + 1}." + sgl.gen(f"tip_{i}", max_tokens=8, stop=[".", "\n"]) + ".\n"
        paragraphs.append(expand_tip(topic=topic, tip=s[f"tip_{i}"]))
    for i, state in enumerate(paragraphs):
        s += f"{i + 1}: {state['paragraph']}\n"
    return [state.text() for state in paragraphs]


def tip_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3), "number": rng.randint(1, 4)}


# -- several chains, one summary --------------------------------------------------------------
@sgl.program
def multi_chain(s: Any, question: str, chains: int) -> None:
    s += "Question: " + question + "\n"
    forks = s.fork(chains)
    for i, fork in enumerate(forks):
        fork += f"Answer {i} (think about {'first' if i == 0 else 'other'} things first):"
        fork += sgl.gen("chain", max_tokens=10, temperature=0.3, stop="Question")
    forks.join()
    for i in range(chains):
        s += f"Chain {i}: {s['chain'][i]}\n"
    s += "Therefore" + sgl.gen("answer", max_tokens=6)


def chain_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "chains": rng.randint(1, 5)}


# -- self-consistency: by a counter, by a host function, by n= ---------------------------------
@sgl.program
def vote_by_counter(s: Any, problem: str, votes: int) -> str:
    s += "Problem: " + problem + "\n"
    forks = s.fork(votes)
    forks += "Answer: " + sgl.gen("vote", regex="[1-3]", temperature=0.7) + "\n"
    forks.join()
    winner = Counter(s["vote"]).most_common(1)[0][0]
    s += f"Most say {winner}, because" + sgl.gen("because", max_tokens=8)
    return winner


def majority(problem: str, votes: list[str]) -> dict[str, Any]:
    CALLS.append((problem, "majority", list(votes)))
    best = max(sorted(set(votes)), key=votes.count)
    return {"winner": best, "share": votes.count(best) / len(votes)}


@sgl.program
def vote_by_host(s: Any, problem: str, votes: int) -> Any:
    s += "Problem: " + problem + "\n"
    forks = s.fork(votes)
    for fork in forks:
        fork += "Think:" + sgl.gen("thought", max_tokens=5, stop="\n")
        fork += "\nAnswer: " + sgl.select("vote", ["yes", "no"])
    result = majority(problem, [fork["vote"] for fork in forks])
    if result["share"] < 0.6:
        s += "No agreement.\n" + sgl.gen("doubt", max_tokens=6)
    s += f"The answer is {result['winner']} ({result['share']:.0%})."
    return result


def vote_arguments(rng: Random) -> dict[str, Any]:
    return {"problem": f"{tag(rng)} {question(rng)}", "votes": rng.randint(2, 5)}


@sgl.program
def vote_by_samples(s: Any, problem: str) -> list[str]:
    s += "Problem: " + problem + "\nAnswer: " + sgl.gen("samples", regex="[a-c]{2}", n=4)
    s["winner"] = majority(problem, s["samples"])["winner"]
    s += "\nBest: " + s["winner"] + sgl.gen("end", max_tokens=4)
    return s["samples"]


def problem_arguments(rng: Random) -> dict[str, Any]:
    return {"problem": f"{tag(rng)} {question(rng)}"}


# -- a debate ---------------------------------------------------------------------------------
@sgl.program
def debate(s: Any, motion: str, sides: list[str], rounds: int) -> None:
    s += f"Motion: {motion}\n"
    speakers = s.fork(len(sides))
    for side, speaker in zip(sides, speakers):  # noqa: B905
        speaker += f"You speak for {side}.\n"
    for r in range(rounds):
        for side, speaker in zip(sides, speakers, strict=True):
            speaker += f"Round {r + 1}, {side}:" + sgl.gen(f"speech{r}", max_tokens=6, stop="\n")
        for i, speaker in enumerate(speakers):
            for j, other in enumerate(speakers):
                if i != j:
                    speaker += f"\n{sides[j]} said:{other[f'speech{r}']}"
            speaker += "\n"
    speakers.join("concate_and_append")
    s += "\nThe judge finds for " + sgl.select("winner", choices=sides)
    s += " because" + sgl.gen("because", max_tokens=6)


def debate_arguments(rng: Random) -> dict[str, Any]:
    sides = rng.choice((["the city", "the country"], ["red", "green", "blue"]))
    return {"motion": text(rng), "sides": sides, "rounds": rng.randint(1, 2)}


# -- a judge with several dimensions ----------------------------------------------------------
DIMENSIONS = ["clarity", "originality", "evidence", "style"]


@sgl.program
def llm_judge(s: Any, article: str) -> None:
    s += "Read this article.\n" + article + "\n"
    forks = s.fork(len(DIMENSIONS))
    for i in range(len(DIMENSIONS)):
        forks[i] += f"Judge its {DIMENSIONS[i]}. End with END.\n"
        forks[i] += "Judgment:" + sgl.gen("judgment", max_tokens=10, stop="END")
    forks.join()
    s += "Judgments:\n"
    for dimension, judgment in zip(DIMENSIONS, s["judgment"], strict=True):
        s += f"{dimension}: {judgment.strip()}\n"
    s += "Grade (A-D):" + sgl.gen("grade", max_tokens=2)


def article_arguments(rng: Random) -> dict[str, Any]:
    return {"article": ". ".join(text(rng) for _ in range(rng.randint(2, 6)))}


# -- two answers compared in both orders ------------------------------------------------------
@sgl.program
def pairwise_judge(s: Any, question: str, first: str, second: str) -> str:
    s += sgl.system("Compare two answers.")
    orders = [(first, second), (second, first)]
    verdicts = []
    for a, b in orders:
        with s.copy() as c:
            c += sgl.user(f"Question: {question}\nA: {a}\nB: {b}\nWhich one is better?")
            c += sgl.assistant("Answer " + sgl.select("verdict", ["A", "B", "tie"]))
            verdicts.append(c["verdict"])
    if verdicts[0] == "A" and verdicts[1] == "B":
        result = "first"
    elif verdicts[0] == "B" and verdicts[1] == "A":
        result = "second"
    else:
        result = "unclear"
    s += sgl.user(f"The result is {result}.") + sgl.assistant(sgl.gen("why", max_tokens=8))
    return result


def pair_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "first": word(rng), "second": text(rng)}


SPECS = [
    Spec(tree_of_thought, tree_arguments), Spec(tree_of_thought_deep, question_arguments),
    Spec(skeleton_of_thought, skeleton_arguments), Spec(tip_suggestion, tip_arguments),
    Spec(multi_chain, chain_arguments), Spec(vote_by_counter, vote_arguments),
    Spec(vote_by_host, vote_arguments), Spec(vote_by_samples, problem_arguments),
    Spec(debate, debate_arguments), Spec(llm_judge, article_arguments),
    Spec(pairwise_judge, pair_arguments),
]
