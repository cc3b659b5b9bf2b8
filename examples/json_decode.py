"""JSON decoding: the answer is an instance of a pydantic model, in the body and afterwards."""

from typing import Literal

from pydantic import BaseModel, Field

import sglc as sgl


class Wizard(BaseModel):
    name: str = Field(pattern=r"^[A-Z][a-z]{2,11}( [A-Z][a-z]{2,11})?$")
    age: int = Field(ge=20, le=200)
    weapon: Literal["sword", "wand", "hammer", "staff"]


@sgl.function
def wizard_gen(s, place):
    s += f"A wizard who lives in {place}, in the JSON format:\n"
    s += sgl.gen("wizard", schema=Wizard, max_tokens=96, temperature=0)
    s += f"\n{s['wizard'].name}, aged {s['wizard'].age}, raises the " + s["wizard"].weapon
    s += sgl.gen("story", max_tokens=32, stop=".", temperature=0)


class Spell(BaseModel):
    title: str = Field(max_length=16)
    level: Literal[1, 2, 3]


SPELL = sgl.grammar.build_regex_from_object(Spell)  # as in SGLang: the variable is the text


@sgl.function
def spell_gen(s, name):
    s += f"{name} casts a spell. In the JSON format: "
    s += sgl.gen("spell", regex=SPELL, max_tokens=64, temperature=0)


if __name__ == "__main__":
    state = wizard_gen.run(place="the mountains")
    wizard = state["wizard"]
    print(wizard.name, wizard.age, wizard.weapon)
    print(spell_gen.run(name=wizard.name)["spell"])
