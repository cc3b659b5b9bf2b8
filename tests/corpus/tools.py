"""Programs that call Python: tools, agents, interpreters."""

from __future__ import annotations

import json
import operator
import time
from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word, words

CALLS: list[tuple[Any, ...]] = []

_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def calculate(session: str, expression: str) -> str:
    CALLS.append((session, "calculate", expression))
    left, sign, right = expression.split(" ")
    return str(_OPERATIONS[sign](int(left), int(right)))


def search(session: str, query: str) -> str:
    CALLS.append((session, "search", query))
    return f"{len(query)} results, the best is about {query.strip()[:6]!r}"


def lookup(session: str, term: str) -> str | None:
    CALLS.append((session, "lookup", term))
    return None if "e" in term else f"the entry of {term}"


EXPRESSION = r"[0-9]{1,3} [-+*] [0-9]{1,2}"


# -- one tool out of three ------------------------------------------------------------------
@sgl.program
def tool_use(s: Any, session: str, question: str) -> None:
    s += "Answer with the help of a tool.\nQuestion: " + question + "\nTool: "
    s += sgl.select("tool", ["calculator", "search", "none"])
    if s["tool"] == "calculator":
        s += "\nExpression: " + sgl.gen("expression", regex=EXPRESSION)
        s += "\nResult: " + calculate(session, s["expression"])
    elif s["tool"] == "search":
        s += "\nQuery: " + sgl.gen("query", max_tokens=10, stop="\n")
        s += "\nResult: " + search(session, s["query"])
    s += "\nAnswer: " + sgl.gen("answer", max_tokens=8, stop="\n")


def question_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "question": question(rng)}


# -- ReAct ----------------------------------------------------------------------------------
@sgl.program
def react(s: Any, session: str, question: str, max_steps: int) -> str:
    s += "Think, act, observe.\nQuestion: " + question + "\n"
    answer = "nothing"
    for i in range(1, max_steps + 1):
        s += f"Thought {i}:" + sgl.gen("thought", max_tokens=8, stop=["\n", "Action"])
        s += f"\nAction {i}: " + sgl.select("action", ["Search", "Lookup", "Finish"])
        s += "[" + sgl.gen("argument", max_tokens=5, stop=["]", "\n"]) + "]\n"
        if s["action"] == "Finish":
            answer = s["argument"]
            break
        if s["action"] == "Search":
            observation = search(session, s["argument"])
        else:
            observation = lookup(session, s["argument"]) or "no such term"
        s += f"Observation {i}: {observation}\n"
    s += "So: " + sgl.gen("so", max_tokens=4)
    return answer


def react_arguments(rng: Random) -> dict[str, Any]:
    return {**question_arguments(rng), "max_steps": rng.randint(1, 3)}


# -- ReAct over a recorded trace: generated steps are thrown away -----------------------------
SHOTS = "\n".join(f"Example {i}: think of {w}, look it up, finish." for i, w in enumerate(
    ("a river", "a bridge", "a summit", "a harbor", "an island", "a canyon")))


@sgl.program
def react_replay(s: Any, question: str, triplets: list[dict[str, str]]) -> None:
    s += SHOTS + "\nQuestion: " + question + "\n"
    for i, triplet in enumerate(triplets):
        forks = s.fork(1)
        forks[0] += f"Thought {i + 1}:" + sgl.gen("step", max_tokens=12, stop="Observation")
        s += (f"Thought {i + 1}: {triplet['thought']}\nAction {i + 1}: {triplet['action']}\n"
              f"Observation {i + 1}: {triplet['observation']}\n")


def replay_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "triplets": [
        {key: text(rng) for key in ("thought", "action", "observation")}
        for _ in range(rng.randint(1, 4))]}


# -- a function call: its name from the argument, its parameters as JSON ----------------------
def dispatch(session: str, name: str, parameters: str) -> dict[str, Any]:
    CALLS.append((session, "dispatch", name, parameters))
    value = json.loads(parameters)["value"]
    return {"name": name, "ok": value % 2 == 0, "result": value * 3}


@sgl.program
def function_call(s: Any, session: str, request: str, tools: list[dict[str, str]]) -> Any:
    s += "Functions:\n"
    for t in tools:
        s += f"- {t['name']}: {t['description']}\n"
    s += sgl.user(request)
    with s.assistant():
        s += "call " + sgl.gen("name", choices=[t["name"] for t in tools])
        s += " with " + sgl.gen("parameters", 20, regex=r'\{"value": [1-9][0-9]{0,2}\}')
    result = dispatch(session, s["name"], s["parameters"])
    s += sgl.user(f"{result['name']} returned {result['result']}")
    if result["ok"]:
        s += sgl.assistant("Done. " + sgl.gen("closing", max_tokens=6))
    else:
        s += sgl.assistant("That is odd. " + sgl.gen("closing", max_tokens=6))
    return result["result"]


def function_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "request": question(rng), "tools": [
        {"name": w, "description": text(rng)} for w in words(rng, 2, 4)]}


# -- running totals: arithmetic on what the host returned ------------------------------------
def number(session: str, digits: str) -> int:
    CALLS.append((session, "number", digits))
    return int(digits)


@sgl.program
def ledger(s: Any, session: str, items: list[str], limit: int) -> Any:
    s += "Prices, one after another.\n"
    total = 0
    for item in items:
        s += f"{item}: " + sgl.gen("price", regex="[1-9][0-9]?") + " coins\n"
        total = total + number(session, s["price"])
        s += f"(so far {total})\n"
    if total > limit:
        s += f"{total} is over {limit}: " + sgl.gen("excuse", max_tokens=6)
    else:
        s += f"{limit - total} left: " + sgl.gen("plan", max_tokens=6)
    return total


def ledger_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "items": words(rng, 1, 4), "limit": rng.randint(40, 160)}


# -- write code, run it, repair it -----------------------------------------------------------
def run_code(session: str, code: str) -> dict[str, Any]:
    CALLS.append((session, "run_code", code))
    bad = [c for c in code if c in "qxz#"]
    return {"ok": not bad, "output": code.strip()[::-1], "error": "".join(bad)}


@sgl.program
def code_interpreter(s: Any, session: str, task: str, attempts: int) -> None:
    s += sgl.system("You write code.")
    s += sgl.user(task)
    s += sgl.assistant("```\n" + sgl.gen("code", max_tokens=16, stop="```") + "\n```")
    result = run_code(session, s["code"])
    for _ in range(attempts - 1):
        if result["ok"]:
            break
        s += sgl.user("It fails: " + result["error"])
        s += sgl.assistant("```\n" + sgl.gen("code", max_tokens=16, stop="```") + "\n```")
        result = run_code(session, s["code"])
    s += sgl.user("It prints: " + result["output"])
    s += sgl.assistant(sgl.gen("comment", max_tokens=6))


def code_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "task": text(rng), "attempts": rng.randint(1, 3)}


# -- a plan, its steps carried out by tools, one of them unreliable ---------------------------
def perform(session: str, step: str, place: str) -> str:
    CALLS.append((session, "perform", step, place))
    if place in step or "a" in step:
        raise LookupError(f"cannot do it at {place}")
    return "done"


@sgl.program
def fallible_plan(s: Any, session: str, goal: str, places: list[str]) -> list[Any]:
    s += f"Goal: {goal}\n"
    outcomes = []
    for place in places:
        s += f"At the {place} I will" + sgl.gen("step", max_tokens=6, stop=".") + ".\n"
        try:
            outcome = perform(session, s["step"], place)
        except LookupError:
            outcome = "it failed"
        s += f"Outcome: {outcome}\n"
        outcomes.append(outcome)
    s += "Lesson:" + sgl.gen("lesson", max_tokens=6)
    return outcomes


def plan_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "goal": text(rng), "places": words(rng, 1, 3)}


# -- no gen depends on the tool: it may run at any time, but in order -------------------------
@sgl.program
def audit(s: Any, session: str, claim: str) -> None:
    search(session, "before " + claim)
    s += "Claim: " + claim + "\nVerdict: " + sgl.select("verdict", ["true", "false", "unknown"])
    search(session, "between")
    s += "\nReason:" + sgl.gen("reason", max_tokens=10)
    search(session, f"after {s['verdict']}")
    print(end="")


def audit_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "claim": text(rng)}


# -- retrieval of a fixed number of passages --------------------------------------------------
def retrieve(session: str, query: str, k: int) -> list[dict[str, Any]]:
    CALLS.append((session, "retrieve", query, k))
    return [{"title": f"{query[:8]} {i}", "score": round(1 / (i + 1), 3)} for i in range(k)]


@sgl.program
def top_two(s: Any, session: str, query: str) -> None:
    hits = retrieve(session, query, 5)
    s += f"First: {hits[0]['title']} ({hits[0]['score']:.2f})\n"
    s += f"Second: {hits[1]['title']} ({hits[1]['score']:.2f}) of {len(hits)}\n"
    s += f"Query: {query}\nAnswer:" + sgl.gen("answer", max_tokens=8)


def query_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "query": question(rng)}


# -- a search whose query the model rewrites, and the tool as an argument ---------------------
class Index:
    """A small index of its own for each row."""

    def __init__(self, session: str, terms: list[str]) -> None:
        self.session = session
        self.terms = terms
        self.asked: list[str] = []

    def find(self, query: str) -> str:
        CALLS.append((self.session, "find", query))
        self.asked.append(query)
        return self.terms[len(query) % len(self.terms)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


@sgl.program
def search_with_an_object(s: Any, index: Index, topic: str) -> str:
    s += "Topic: " + topic + "\n"
    found = topic
    for i in range(2):
        s += f"Query {i}:" + sgl.gen("query", max_tokens=6, stop="\n") + "\n"
        found = index.find(s["query"])
        s += f"Found: {found}\n"
    s += "Summary:" + sgl.gen("summary", max_tokens=8)
    return found


def index_arguments(rng: Random) -> dict[str, Any]:
    return {"index": Index(tag(rng), words(rng, 2, 5)), "topic": word(rng)}


# -- a tool that fails: the error is the run's ------------------------------------------------
def pay(session: str, amount: str) -> str:
    CALLS.append((session, "pay", amount))
    time.sleep(0.02)  # long enough for gens that were started too early
    if int(amount) > 3:
        raise PermissionError(f"{amount} is more than you have")
    return f"paid {amount}"


@sgl.program
def failing_tool(s: Any, session: str, item: str) -> None:
    s += f"{item} costs " + sgl.gen("amount", regex="[0-6]") + "\n"
    receipt = pay(session, s["amount"])
    s += "Thank you," + sgl.gen("thanks", max_tokens=6)
    s += "\n" + receipt
    search(session, s["thanks"])


def item_arguments(rng: Random) -> dict[str, Any]:
    return {"session": tag(rng), "item": word(rng)}


SPECS = [
    Spec(tool_use, question_arguments), Spec(react, react_arguments),
    Spec(react_replay, replay_arguments), Spec(function_call, function_arguments),
    Spec(ledger, ledger_arguments), Spec(code_interpreter, code_arguments),
    Spec(fallible_plan, plan_arguments), Spec(audit, audit_arguments),
    Spec(top_two, query_arguments), Spec(search_with_an_object, index_arguments),
    Spec(failing_tool, item_arguments, fails=True),
]
