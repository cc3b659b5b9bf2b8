"""Five programs of one gen each, in the manner of the generative-agents benchmark."""

from __future__ import annotations

from random import Random
from typing import Any

import sglc as sgl
from tests.corpus.spec import Spec, text, word, words

CALLS: list[tuple[Any, ...]] = []


@sgl.program
def poignancy_event(s: Any, name: str, traits: str, event: str) -> None:
    s += f"Here is a short description of {name}.\n{traits}\n\nOn a scale from 1 to 10, how "
    s += f"poignant is this event for {name}?\nEvent: " + event
    s += "\nRate (one number):" + sgl.gen("rating", max_tokens=2)


def poignancy_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng).title(), "traits": text(rng), "event": text(rng)}


@sgl.program
def generate_event_triple(s: Any, name: str, event: str) -> None:
    s += "A sentence as (subject, predicate, object).\nInput: Ann makes tea.\nOutput: (Ann, make, "
    s += "tea)\n---\nInput: " + name + " is " + event + ".\nOutput: (" + name + ","
    s += sgl.gen("triple", max_tokens=20, stop=")")


def triple_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng).title(), "event": text(rng)}


@sgl.program
def generate_pronunciatio(s: Any, action: str) -> None:
    s += "Convert an action to an emoji.\nAction: sleeping\nEmoji: zz\nAction: " + action
    s += "\nEmoji:" + sgl.gen("emoji", max_tokens=6, stop="\n")


def action_arguments(rng: Random) -> dict[str, Any]:
    return {"action": text(rng)}


@sgl.program
def action_location_sector(
        s: Any, name: str, living: str, sectors: str, current: str, daily_plan: str,
        current_areas: str, action: str) -> None:
    s += f"Task: choose an area from the areas for {name}.\n{name} lives in {living}, which has "
    s += f"{current_areas}.\n{name} is now in {current}. " + daily_plan + "\nArea options: {"
    s += sectors + "}.\n* Stay in the current area if that works. *\nFor " + action + ", " + name
    s += " should go to this area: {" + sgl.gen("area", max_tokens=10, stop="}") + "}"


def sector_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng).title(), "living": word(rng), "sectors": ", ".join(words(rng, 3, 5)),
            "current": word(rng), "daily_plan": text(rng), "current_areas": text(rng),
            "action": text(rng)}


@sgl.program
def action_location_object(
        s: Any, name: str, living: str, rooms: str, sector: str, action: str) -> None:
    s += f"{name} lives in {living} with the rooms {rooms}. Options for {sector}: {{{rooms}}}\n"
    s += "For {}, {} in {} uses: {{".format(action, name, sector)  # noqa: UP032
    s += sgl.gen("object", max_tokens=5, stop="}") + "}"


def object_arguments(rng: Random) -> dict[str, Any]:
    return {"name": word(rng).title(), "living": word(rng), "rooms": ", ".join(words(rng, 2, 4)),
            "sector": word(rng), "action": text(rng)}


SPECS = [
    Spec(poignancy_event, poignancy_arguments), Spec(generate_event_triple, triple_arguments),
    Spec(generate_pronunciatio, action_arguments), Spec(action_location_sector, sector_arguments),
    Spec(action_location_object, object_arguments),
]
