"""Regexes for tests: the README's, and hypothesis strategies for random ones."""

from __future__ import annotations

from hypothesis import strategies as st

from sglc.grammar.automaton import Automaton
from sglc.grammar.nfa import Limits
from sglc.grammar.regex_parser import parse_regex

IP = r"((25[0-5]|2[0-4]\d|[01]?\d\d?).){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)"
CHARACTER = (
    r"""\{\n"""
    r"""    "name": "[\w\d\s]{1,16}",\n"""
    r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater"""
    r"""|order of the phoenix)",\n"""
    r"""    "wand": \{\n"""
    r"""        "wood": "[\w\d\s]{1,16}",\n"""
    r"""        "core": "[\w\d\s]{1,16}",\n"""
    r"""        "length": [0-9]{1,2}\.[0-9]{0,2}\n"""
    r"""    \},\n"""
    r"""    "alive": "(Alive|Deceased)",\n"""
    r"""    "patronus": "[\w\d\s]{1,16}",\n"""
    r"""    "bogart": "[\w\d\s]{1,16}"\n"""
    r"""\}""")
EMAIL = r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}"
DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"

ATOMS = st.sampled_from([
    "a", "b", "c", "A", "B", "k", "K", "ſ", "é", "É", "漢", "\n", " ", "0", "_", r"\n", r"\x41",
    r"\u00e9", r"\141", r"\.", ".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab]", "[^ab]",
    "[a-c]", "[^\\W0]", "[^\n]", r"[\dab]", r"[\s_]", "[]a]", "[^]a]", "[a-]", "[k-m]", "(?:x{,2})",
    "{", "a{", "(?#note)", "İ", "ß", "[ǅσ]"])
ANCHORS = st.sampled_from(["^", "$", r"\A", r"\Z"])
QUANTIFIERS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,1}", "{,2}",
                               "{1,}?", "{0}"])


def _wider(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    group = st.sampled_from(["(", "(?:", "(?i:", "(?s:", "(?m:", "(?a:", "(?-i:", "(?is-m:"])
    grouped = st.tuples(group, inner).map(lambda p: f"{p[0]}{p[1]})")
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        grouped,
        st.tuples(grouped, QUANTIFIERS).map("".join),
        st.tuples(ATOMS, QUANTIFIERS).map("".join))


PATTERNS = st.tuples(
    st.sampled_from(["", "", "", "(?i)", "(?m)", "(?s)", "(?a)", "(?x)", "(?im)"]),
    st.recursive(st.one_of(ATOMS, ATOMS, ATOMS, ANCHORS), _wider, max_leaves=8)).map("".join)
SUBJECTS = st.text(st.sampled_from("abcABkKſéÉ漢\n 0_.-]{x\u212aİßσǆ"), max_size=7)


def automaton(pattern: str) -> Automaton:
    return Automaton(parse_regex(pattern), Limits())


def accepts(machine: Automaton, text: str) -> bool:
    """Whether the automaton accepts the text's UTF-8, byte by byte."""
    if not machine.rows:
        return False
    q = node = 0
    front = machine.front
    for byte in text.encode():
        code = int(front.table[node * 256 + byte])
        q = int(machine.step[q, code])
        if q < 0:
            return False
        node = code - front.atoms + 1 if code >= front.atoms else 0
    return node == 0 and machine.accepting[q]
