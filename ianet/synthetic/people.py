"""Identities: build, clothes and small cues.

Families of identities share build and clothes, and differ in small cues only: hair, hat, bag, belt
and shoes. So colour and shape alone do not identify a person.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ianet.synthetic.palette import (
    ACCENTS,
    HAIR,
    LOWER_COLOURS,
    SKINS,
    TEXTURES,
    UPPER_COLOURS,
    Colour,
)

CUES: dict[str, tuple[tuple[str, ...], tuple[Colour, ...]]] = {
    "hair": (("short", "long", "tail"), HAIR),
    "hat": (("none", "none", "none", "cap", "beanie", "sun hat"), ACCENTS),
    "bag": (("none", "backpack", "shoulder bag", "hand bag"), ACCENTS),
    "belt": (("none", "none", "belt"), ACCENTS),
    "shoes": (("shoes", "shoes", "boots"), ACCENTS),
}
"""Name of a cue to its kinds and its colours; each entry of the kinds is equally likely."""
FAMILY_SIZES = (3, 1, 1, 1, 2, 1, 1, 1, 4, 1, 1, 1)
"""Sizes of families in turn; half of all people have no family."""


@dataclass(frozen=True)
class Item:
    """A small cue; black where its kind is "none"."""

    kind: str
    colour: Colour


@dataclass(frozen=True)
class Garment:
    """The cut of clothing, its texture and the texture's two colours."""

    cut: str
    texture: str
    colour: Colour
    second: Colour


@dataclass(frozen=True)
class Person:
    """An identity: build, clothes and small cues.

    Attributes:
        shoulders, waist: half the widths there, in statures.
        limbs: radius of an upper arm, in statures.
        skin: colour of the skin.
        upper: cut "short" (sleeves), "long" or "coat".
        lower: cut "trousers", "shorts" or "skirt".
        hair, hat, bag, belt, shoes: the small cues, of the kinds in `CUES`.
    """

    shoulders: float
    waist: float
    limbs: float
    skin: Colour
    upper: Garment
    lower: Garment
    hair: Item
    hat: Item
    bag: Item
    belt: Item
    shoes: Item


def families(people: int, rng: np.random.Generator) -> list[Person]:
    """Return random people in families, which share build and clothes.

    Each further member of a family differs from the first member in one cue, each in another cue.
    So any two members differ in one or two cues.

    Args:
        people: number of people.
        rng: of all random numbers.
    """
    members: list[Person] = []
    sizes = itertools.cycle(FAMILY_SIZES)
    while len(members) < people:
        first = _random_person(rng)
        members.append(first)
        for cue in rng.permutation(list(CUES))[: next(sizes) - 1].tolist():
            while (item := _random_item(cue, rng)) == getattr(first, cue):
                pass
            change: dict[str, Any] = {cue: item}
            members.append(replace(first, **change))
    return members[:people]


def _random_person(rng: np.random.Generator) -> Person:
    shoulders = rng.uniform(0.105, 0.14)
    upper_cut = str(rng.choice(["short", "long", "coat"]))
    lower_cut = str(rng.choice(["trousers", "trousers", "shorts", "skirt"]))
    return Person(
        shoulders=shoulders,
        waist=shoulders * rng.uniform(0.62, 0.95),
        limbs=rng.uniform(0.026, 0.036),
        skin=SKINS[rng.integers(len(SKINS))],
        upper=_random_garment(upper_cut, list(TEXTURES), UPPER_COLOURS, rng),
        lower=_random_garment(
            lower_cut, ["plain", "plain", "pinstripes", "checks"], LOWER_COLOURS, rng
        ),
        **{cue: _random_item(cue, rng) for cue in CUES},
    )


def _random_garment(
    cut: str, textures: list[str], colours: tuple[Colour, ...], rng: np.random.Generator
) -> Garment:
    colour = colours[rng.integers(len(colours))]
    # The two colours must differ in light: the cameras' casts change hues.
    contrasts = [other for other in colours if abs(sum(other) - sum(colour)) > 150]
    return Garment(cut, str(rng.choice(textures)), colour, contrasts[rng.integers(len(contrasts))])


def _random_item(cue: str, rng: np.random.Generator) -> Item:
    kinds, colours = CUES[cue]
    kind = str(rng.choice(kinds))
    return Item(kind, colours[rng.integers(len(colours))] if kind != "none" else (0, 0, 0))
