"""Poses, and the drawing of a body from the farthest to the nearest limb."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from ianet.synthetic.figure import Figure, Joint, Paint
from ianet.synthetic.palette import shade
from ianet.synthetic.people import Person

Chain = tuple[Joint, ...]
"""Joints of bones that hang together."""


@dataclass(frozen=True)
class Gait:
    """How a person walks, in radians.

    Attributes:
        stride: how far the legs swing; 0 stands.
        phase: of the walk; the feet are farthest apart at pi / 2.
        elbow: how far the arms bend.
        lift: how much farther the left arm bends.
    """

    stride: float
    phase: float
    elbow: float
    lift: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Gait:
        """Return a random gait: a quarter of the people stand."""
        return cls(
            stride=rng.choice([0.08, rng.uniform(0.25, 0.55)], p=[0.25, 0.75]),  # stands or walks
            phase=rng.uniform(0, 2 * math.pi),
            elbow=rng.uniform(0.1, 0.6),
            lift=rng.choice([0.0, 1.6], p=[0.85, 0.15]),  # to look at a telephone
        )


def pose(person: Person, gait: Gait) -> tuple[list[Chain], list[Chain]]:
    """Return arms and legs, the right limb first.

    An arm is shoulder, elbow and wrist; a leg is hip, knee, ankle and toe.
    """
    arms: list[Chain] = []
    legs: list[Chain] = []
    for side in (-1, 1):
        thigh = side * gait.stride * math.sin(gait.phase)
        shin = thigh - 0.6 * gait.stride * (1 + side * math.cos(gait.phase))
        hip = (0.05 * side, 0.5, 0.0)
        knee = _swing(hip, 0.235, thigh)
        ankle = _swing(knee, 0.225, shin)
        legs.append((hip, knee, ankle, (1.3 * ankle[0], ankle[1] + 0.02, ankle[2] + 0.065)))
        shoulder = (side * (person.shoulders - 0.6 * person.limbs), 0.21, 0.0)
        elbow = _swing((1.15 * shoulder[0], 0.21, 0.0), 0.15, -0.8 * thigh)
        bend = -0.8 * thigh + gait.elbow + (gait.lift if side > 0 else 0)
        arms.append((shoulder, elbow, _swing(elbow, 0.14, bend)))
    return arms, legs


def find_parts(figure: Figure, person: Person, gait: Gait) -> dict[str, Joint]:
    """Return a point of each part of the body that Figure 8 of the paper marks."""
    arms, legs = pose(person, gait)
    _, knee, ankle, toe = max(legs, key=lambda leg: figure.depth(leg[-1]))
    bag = _place_bag(person, arms[0][-1])
    middle = {"backpack": 0.13, "shoulder bag": 0.055, "hand bag": 0.05}
    if person.bag.kind != "none" and figure.depth(bag) >= 0:
        bag_or_belt = bag[0], bag[1] + middle[person.bag.kind], bag[2]
    else:
        bag_or_belt = 0.0, 0.448, 0.0
    return {
        "head": (0.0, 0.075, 0.0),
        "torso": (0.0, 0.3, 0.0),
        "belt or bag": bag_or_belt,
        "leg": _interpolate(knee, ankle, 0.25),  # below the hem of a skirt
        "shoe": _interpolate(ankle, toe, 0.4),
    }


def _swing(joint: Joint, length: float, angle: float) -> Joint:
    """Return the end of a bone that hangs from the joint and swings forward by the angle."""
    x, y, z = joint
    return x, y + length * math.cos(angle), z + length * math.sin(angle)


def _interpolate(start: Joint, end: Joint, share: float) -> Joint:
    """Return the joint at a share of the way from start to end."""
    x, y, z = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return x, y, z


def draw_person(figure: Figure, person: Person, gait: Gait) -> Image.Image:
    """Return a layer with the person, drawn from the farthest part to the nearest."""
    upper, lower = figure.weave(person.upper), figure.weave(person.lower)
    arms, legs = pose(person, gait)
    hair, bag = (0.0, 0.1, -0.2), _place_bag(person, arms[0][-1])
    layers: list[tuple[float, Callable[[], None]]] = [
        (figure.depth(hair), partial(_draw_loose_hair, figure, person)),
        (figure.depth(bag) + 0.01, partial(_draw_bag, figure, person, bag)),
        (0.0, partial(_draw_torso, figure, person, upper, lower)),
        (0.05, partial(_draw_head, figure, person)),
    ]
    for arm in arms:
        layers.append((figure.depth(arm[1]), partial(_draw_arm, figure, person, upper, arm)))
    for leg in legs:  # clothes of the upper body hang over the near leg too
        depth = min(figure.depth(leg[1]), -0.02)
        layers.append((depth, partial(_draw_leg, figure, person, lower, leg)))
    layers.append((-0.02, figure.darken))
    for _, draw in sorted(layers, key=lambda layer: (layer[0], layer[1] != figure.darken)):
        draw()
    return figure.render()


def _draw_leg(figure: Figure, person: Person, cloth: Paint, leg: Chain) -> None:
    hip, knee, ankle, toe = leg
    shoes, thick, thin = person.shoes.colour, 1.8 * person.limbs, 1.05 * person.limbs
    figure.draw_limb(person.skin, (hip, thick), (knee, 0.75 * thick), (ankle, 0.8 * thin))
    figure.draw_limb(shoes, (ankle, 0.03), (toe, 0.024))
    if person.shoes.kind == "boots":
        figure.draw_limb(shoes, (_interpolate(knee, ankle, 0.4), thin), (ankle, thin))
    if person.lower.cut == "trousers":
        end = _interpolate(knee, ankle, 0.5 if person.shoes.kind == "boots" else 0.85)
        figure.draw_limb(cloth, (hip, thick), (knee, 0.85 * thick), (end, thin))
    elif person.lower.cut == "shorts":
        figure.draw_limb(cloth, (hip, thick), (_interpolate(hip, knee, 0.9), 0.95 * thick))


def _draw_arm(figure: Figure, person: Person, cloth: Paint, arm: Chain) -> None:
    shoulder, elbow, wrist = arm
    r = person.limbs
    figure.draw_limb(person.skin, (elbow, 0.8 * r), (wrist, 0.7 * r))
    figure.draw_limb(person.skin, (wrist, 0.026))
    if person.upper.cut == "short":
        sleeve = [(shoulder, r), (_interpolate(shoulder, elbow, 0.75), 1.1 * r)]
    else:
        sleeve = [(shoulder, r), (elbow, r), (_interpolate(elbow, wrist, 0.9), 0.85 * r)]
    edge = [(_interpolate(shoulder, sleeve[1][0], 0.3), r), *sleeve[1:]]
    outline = shade(person.upper.colour, 0.6)  # sets the arm off against the torso
    figure.draw_limb(outline, *((joint, radius + 0.006) for joint, radius in edge))
    figure.draw_limb(cloth, *sleeve)


def _draw_torso(figure: Figure, person: Person, upper: Paint, lower: Paint) -> None:
    waist, wide = person.waist, person.shoulders
    if person.lower.cut == "skirt":
        hips = waist + 0.015
        figure.draw_trunk(
            lower, (0.44, waist, 0.07), (0.55, hips, 0.085), (0.73, hips + 0.04, 0.12)
        )
    hem = {"short": 0.52, "long": 0.54, "coat": 0.66}[person.upper.cut]
    figure.draw_limb(shade(person.skin, 0.85), ((0.0, 0.12, 0.0), 0.03), ((0.0, 0.18, 0.0), 0.036))
    figure.draw_trunk(
        upper,
        (0.162, 0.04, 0.04),
        (0.178, 0.75 * wide, 0.06),
        (0.2, wide, 0.068),
        (0.3, 0.5 * (wide + waist), 0.082),
        (0.43, waist, 0.075),
        (hem, waist + 0.012 + 0.25 * (hem - 0.52), 0.085),
    )
    if person.belt.kind != "none":
        figure.draw_trunk(person.belt.colour, (0.425, waist, 0.077), (0.47, waist, 0.079))
    if person.bag.kind == "backpack" and figure.cosine > 0.1:
        for x in (-0.6 * wide, 0.6 * wide):
            figure.draw_limb(person.bag.colour, ((x, 0.18, 0.05), 0.013), ((x, 0.36, 0.06), 0.011))


def _draw_head(figure: Figure, person: Person) -> None:
    figure.draw_limb(
        person.hair.colour, ((0.0, 0.06, -0.012), 0.058), ((0.0, 0.085, -0.012), 0.056)
    )
    if figure.cosine > -0.5:
        figure.draw_limb(person.skin, ((0.0, 0.083, 0.018), 0.046), ((0.0, 0.1, 0.018), 0.042))
        for x in (-0.02, 0.02):
            if figure.depth((x, 0.08, 0.04)) > 0.015:
                figure.draw_limb((44, 34, 34), ((x, 0.082, 0.04), 0.0065))
    colour, dark = person.hat.colour, shade(person.hat.colour)
    crown = (-0.015, 0.03, 0.03), (0.005, 0.054, 0.054), (0.05, 0.066, 0.066)
    match person.hat.kind:
        case "cap":
            figure.draw_trunk(colour, *crown)
            figure.draw_limb(dark, ((0.0, 0.05, 0.04), 0.016), ((0.0, 0.056, 0.1), 0.012))
        case "beanie":
            figure.draw_trunk(colour, *crown)
            figure.draw_trunk(dark, (0.035, 0.067, 0.067), (0.062, 0.067, 0.067))
        case "sun hat":
            figure.draw_trunk(colour, *crown)
            figure.draw_trunk(dark, (0.035, 0.08, 0.08), (0.05, 0.118, 0.118), (0.06, 0.118, 0.118))


def _draw_loose_hair(figure: Figure, person: Person) -> None:
    colour = shade(person.hair.colour, 0.9)
    if person.hair.kind == "long":
        figure.draw_limb(colour, ((0.0, 0.08, -0.015), 0.06), ((0.0, 0.2, -0.04), 0.055))
    elif person.hair.kind == "tail":
        figure.draw_limb(colour, ((0.0, 0.06, -0.075), 0.024), ((0.0, 0.2, -0.075), 0.015))


def _place_bag(person: Person, wrist: Joint) -> Joint:
    """Return the middle of the bag's upper rim."""
    match person.bag.kind:
        case "backpack":
            return 0.0, 0.19, -0.11
        case "shoulder bag":
            return -person.shoulders - 0.01, 0.42, 0.0
    return wrist[0], wrist[1] + 0.06, wrist[2]


def _draw_bag(figure: Figure, person: Person, place: Joint) -> None:
    colour, dark = person.bag.colour, shade(person.bag.colour)
    x, y, z = place
    match person.bag.kind:
        case "backpack":
            rings = (y, 0.06, 0.05), (0.22, 0.09, 0.07), (0.43, 0.095, 0.075), (0.46, 0.08, 0.06)
            figure.draw_trunk(colour, *rings, axis=(x, z))
            figure.draw_trunk(dark, (0.35, 0.06, 0.05), (0.43, 0.06, 0.06), axis=(x, z - 0.02))
        case "shoulder bag":  # its strap crosses chest and back
            strap = ((0.7 * person.shoulders, 0.18, 0.0), 0.011)
            figure.draw_limb(dark, strap, ((x, y, math.copysign(0.07, figure.cosine)), 0.011))
            figure.draw_trunk(colour, (y, 0.04, 0.07), (y + 0.11, 0.045, 0.075), axis=(x, z))
        case "hand bag":
            figure.draw_limb(dark, ((x, y - 0.06, z), 0.008), ((x, y, z), 0.008))
            figure.draw_trunk(colour, (y, 0.04, 0.06), (y + 0.1, 0.05, 0.075), axis=(x, z))
