"""Long inputs: several documents, lines, extraction of fields."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, question, tag, text, word, words

CALLS: list[tuple[Any, ...]] = []


# -- map and reduce ---------------------------------------------------------------------------
@sgl.program
def map_reduce(s: Any, documents: list[str], question: str) -> None:
    s += "You summarize.\n"
    forks = s.fork(len(documents))
    for fork, document in zip(forks, documents, strict=True):
        fork += f"Document: {document}\nSummary:" + sgl.gen("summary", max_tokens=8, stop="\n")
    forks.join()
    s += "\n".join(f"- {x.strip()}" for x in s["summary"])
    s += f"\nAll in all, {question.lower()}" + sgl.gen("answer", max_tokens=8)


def documents_arguments(rng: Random) -> dict[str, Any]:
    return {"documents": [text(rng) for _ in range(rng.randint(1, 5))], "question": question(rng)}


# -- many documents in parallel, ids kept -----------------------------------------------------
@sgl.program
def multi_document_qa(s: Any, documents: list[str], question: str) -> None:
    s += sgl.user_begin() + "Answer from these documents.\n"
    forks = s.fork(len(documents))
    forks += lambda i: f"Document {i}:\n" + documents[i] + "\n"
    forks.join("concate_and_append")
    s += "Question: " + question + sgl.user_end()
    s += sgl.assistant_begin() + sgl.gen("answer", max_tokens=10) + sgl.assistant_end()


# -- retrieved documents in any order ---------------------------------------------------------
@sgl.program
def retrieved(s: Any, documents: list[str], question: str) -> None:
    s += "Documents:\n" + sgl.bag(*documents, sep="\n\n")
    s += "\nQuestion: " + question + "\nWords:" + sgl.gen("words", max_tokens=5)
    s += sgl.bag(s["words"], f"{len(documents)} documents", sep=" / ")
    s += "\nAnswer:" + sgl.gen("answer", max_tokens=8)


# -- line retrieval ---------------------------------------------------------------------------
@sgl.program
def line_retrieval(s: Any, lines: list[str], parts: int, wanted: int) -> None:
    s += "Remember every line.\n"
    forks = s.fork(parts)
    size = (len(lines) + parts - 1) // parts
    for i in range(parts):
        forks[i] += "\n".join(lines[i * size:(i + 1) * size]) + "\n"
    forks.join("concate_and_append")
    s += f"The word in line {wanted} is" + sgl.gen("answer", max_tokens=6, stop=[".", "\n"])


def lines_arguments(rng: Random) -> dict[str, Any]:
    lines = [f"line {i}: the word is {w}" for i, w in enumerate(words(rng, 4, 9))]
    return {"lines": lines, "parts": rng.randint(1, 4), "wanted": rng.randrange(len(lines))}


# -- the fields of a document by regular expressions ------------------------------------------
@sgl.program
def json_decode_regex(s: Any, document: str) -> Any:
    s += document + "\nThe same as JSON:\n"
    with s.var_scope("json"):
        s += '{\n  "name": ' + sgl.gen("name", max_tokens=8, regex=r'"[a-z ]{1,6}"') + ",\n"
        s += '  "population": ' + sgl.gen("population", regex=r"[1-9][0-9]{2,4}") + ",\n"
        s += '  "area": ' + sgl.gen("area", regex=r"[0-9]{1,3}\.[0-9]") + ",\n"
        s += '  "year": ' + sgl.gen("year", max_tokens=8, regex=r"(1[0-9]{3}|20[0-2][0-9])")
        s += ',\n  "code": ' + sgl.gen("code", regex=r'"[A-Z]{2}-[0-9]{3}"') + "\n}\n"
    return len(s["json"])


def document_arguments(rng: Random) -> dict[str, Any]:
    return {"document": ". ".join(text(rng) for _ in range(5))}


# -- one regular expression for a whole object ------------------------------------------------
CHARACTER = (
    r'\{\n    "name": "[\w ]{1,8}",\n    "house": "(Amber|Cedar|Flint)",\n'
    r'    "status": "(alive|gone)",\n    "wand": \{\n        "wood": "[a-z]{3,6}",\n'
    r'        "length": [0-9]{1,2}\.[0-9]\n    \},\n    "friends": \["[a-z]{2,5}", "[a-z]{2,5}"\]\n'
    r"\}")


@sgl.program
def json_character(s: Any, name: str) -> None:
    s += f"{name} is a character in a story. As JSON:\n"
    s += sgl.gen("json", max_tokens=256, regex=CHARACTER)


def name_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng).title()}


# -- a long document, an object up to closing quotes ------------------------------------------
@sgl.program
def long_json(s: Any, document: str) -> None:
    s += "Document:\n" + document * 3 + "\n"
    s += '{"title": "' + sgl.gen("title", max_tokens=8, stop='"') + '",\n'
    s += '"place": "' + sgl.gen("place", max_tokens=8, stop='"') + '",\n'
    s += '"people": ["' + sgl.gen("one", max_tokens=8, stop='"') + '", "'
    s += sgl.gen("two", max_tokens=8, stop='"') + '"]}'


# -- the fields that an argument asks for -----------------------------------------------------
@sgl.program
def extract_fields(s: Any, document: str, fields: dict[str, str]) -> dict[str, str]:
    s += f"Fields of a document: {', '.join(fields)}.\n" + document + "\n"
    forks = s.fork(len(fields))
    for fork, (name, pattern) in zip(forks, fields.items(), strict=True):
        fork += f"{name} = " + sgl.gen("value", regex=pattern)
    forks.join()
    found = dict(zip(fields, s["value"], strict=True))
    for name in fields:
        s += f"{name}={found[name]};"
    s += sgl.gen("remark", max_tokens=5)
    return found


def fields_arguments(rng: Random) -> dict[str, Any]:
    patterns = ["[0-9]{2}", "(yes|no)", "[a-z]{1,4}", r"-?[0-9]\.[0-9]{2}"]
    return {"document": text(rng), "fields": {
        w: rng.choice(patterns) for w in words(rng, 1, 4)}}


# -- guess and check: valid JSON, or again ----------------------------------------------------
def check(document: str, reply: str) -> str | None:
    """What is wrong with a reply, None if nothing is."""
    CALLS.append((document, "check", reply))
    try:
        value = json.loads(reply)
    except ValueError as e:
        return f"no JSON: {type(e).__name__}"
    return None if value["n"] > 4 else f"{value['n']} is too small"


@sgl.program
def retry_until_valid(s: Any, document: str, tries: int) -> str:
    s += sgl.user("How many? Answer with JSON. " + document)
    problem = "not asked"
    for _ in range(tries):
        s += sgl.assistant(sgl.gen("reply", max_tokens=12, regex=r'\{"n": [0-9](\}|\]\})'))
        problem = check(document, s["reply"])
        if not problem:
            break
        s += sgl.user(f"That is wrong ({problem}). Again.")
    s += sgl.user("Thank you.")
    return s["reply"] if not problem else "gave up"


def retry_arguments(rng: Random) -> dict[str, Any]:
    return {"document": tag(rng) + " " + text(rng), "tries": rng.randint(1, 4)}


# -- json.loads in the body -------------------------------------------------------------------
@sgl.program
def loads_in_the_body(s: Any, topic: str) -> dict[str, Any]:
    s += f"Facts about {topic}: "
    s += sgl.gen("raw", max_tokens=40, regex=r'\{"size": [1-9], "kind": "(old|new)"\}')
    facts = json.loads(s["raw"])
    s += f"\nIt is {facts['kind']} and has size {facts['size']}."
    if facts["kind"] == "old" and facts["size"] > 5:
        s += " That is remarkable:" + sgl.gen("remark", max_tokens=6)
    s["facts"] = facts
    return facts


def topic_arguments(rng: Random) -> dict[str, Any]:
    return {"topic": text(rng, 1, 3)}


# -- an argument that is no list of texts, and json.dumps of it -------------------------------
@sgl.program
def table_question(s: Any, table: list[dict[str, Any]], question: str) -> None:
    s += "A table:\n"
    for row in table:
        s += " | ".join(f"{key}={value}" for key, value in row.items()) + "\n"
    s += "As JSON: " + json.dumps(table) + "\n"
    s += f"{len(table)} rows, the first {table[0]['name']!r}. {question}"
    s += sgl.gen("answer", max_tokens=8, stop="\n")


def table_arguments(rng: Random) -> dict[str, Any]:
    return {"question": question(rng), "table": [
        {"name": word(rng), "size": rng.randint(1, 99), "share": round(rng.random(), 2)}
        for _ in range(rng.randint(1, 3))]}


# -- an argument changed by a library, then read ----------------------------------------------
@sgl.program
def shuffled(s: Any, seed: int, documents: list[str]) -> None:
    Random(seed).shuffle(documents)
    for document in documents:
        s += document + "\n"
    s += "The last one:" + sgl.gen("last", max_tokens=5)


def shuffled_arguments(rng: Random) -> dict[str, Any]:
    return {"seed": rng.randint(0, 99), "documents": words(rng, 2, 5)}



# -- a list of the body's own is handed over and not looked at again --------------------------
def best_of(document: str, candidates: list[str]) -> str:
    CALLS.append((document, "best_of", list(candidates)))
    return sorted(candidates)[-1]


@sgl.program
def best_candidate(s: Any, document: str, size: int) -> None:
    s += document + "\n"
    candidates = []
    for i in range(size):
        s += f"Title {i}:" + sgl.gen("title", max_tokens=5, stop="\n") + "\n"
        candidates.append(s["title"])
    s += "The best is" + best_of(document, candidates) + "." + sgl.gen("end", max_tokens=3)


def candidates_arguments(rng: Random) -> dict[str, Any]:
    return {"document": tag(rng) + " " + text(rng), "size": rng.randint(1, 3)}


# -- paragraphs of the caller's list, rewritten in place --------------------------------------
@sgl.program
def revise_in_place(s: Any, paragraphs: list[str]) -> int:
    for i in range(len(paragraphs)):
        before = paragraphs[i]  # expect: SGLC110
        s += f"Before: {before}\nAfter:" + sgl.gen("after", max_tokens=6, stop="\n") + "\n"
        paragraphs[i] = s["after"].strip() or "(empty)"
    together = " ".join(paragraphs)  # expect: SGLC110
    s += "All: " + together + sgl.gen("end", max_tokens=4)
    return len(paragraphs)


def paragraphs_arguments(rng: Random) -> dict[str, Any]:
    return {"paragraphs": [text(rng) for _ in range(rng.randint(1, 3))]}


SPECS = [
    Spec(map_reduce, documents_arguments), Spec(multi_document_qa, documents_arguments),
    Spec(retrieved, documents_arguments),
    Spec(line_retrieval, lines_arguments), Spec(json_decode_regex, document_arguments),
    Spec(json_character, name_arguments), Spec(long_json, document_arguments),
    Spec(extract_fields, fields_arguments), Spec(retry_until_valid, retry_arguments),
    Spec(loads_in_the_body, topic_arguments), Spec(table_question, table_arguments),
    Spec(shuffled, shuffled_arguments), Spec(best_candidate, candidates_arguments),
    Spec(revise_in_place, paragraphs_arguments),
]
