"""How hands and objects are drawn: a gesture or a thing, then every number around it."""

import math
from typing import NamedTuple

import numpy as np

from prnet.synthetic.worn.hands import NUM_FINGERS, NUM_HANDS, HandParameters


class HandRule(NamedTuple):
    """Probabilities."""

    hand: float  # at least one
    both: float  # of those: two
    object: float


class Gesture(NamedTuple):
    """Where the middle knuckle of a hand on the subject's left lies, and how the hand is held:
    ranges to draw from."""

    azimuth_deg: tuple[float, float]
    height_mm: tuple[float, float]
    turn_deg: tuple[float, float]  # positive: fingers towards the nose
    curl: tuple[float, float]
    arm: tuple[float, float, float]


GESTURES = (
    # Over the mouth; on the chin; a fist under it; on the cheek; over an eye; on the brow.
    Gesture((8, 34), (-42, -22), (50, 95), (0.0, 0.5), (0.5, -1.0, 0.3)),
    Gesture((0, 30), (-78, -58), (10, 70), (0.2, 0.9), (0.2, -1.0, 0.4)),
    Gesture((-5, 35), (-92, -76), (20, 90), (0.8, 1.0), (0.1, -1.0, 0.2)),
    Gesture((48, 85), (-45, 5), (-15, 40), (0.0, 0.7), (0.3, -1.0, 0.2)),
    Gesture((18, 45), (5, 45), (10, 80), (0.0, 0.4), (0.7, -0.8, 0.3)),
    Gesture((25, 70), (55, 100), (0, 75), (0.0, 0.6), (0.9, -0.6, 0.2)),
)


class Thing(NamedTuple):
    """An object before the face on the subject's left: ranges to draw from."""

    azimuth_deg: tuple[float, float]
    height_mm: tuple[float, float]
    gap_mm: tuple[float, float]
    half_mm: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    roundness: tuple[float, float]
    spin_deg: float
    stick_mm: tuple[float, float] = (0, 0)
    stick_radius_mm: tuple[float, float] = (1, 1)


MICROPHONE = Thing(
    azimuth_deg=(0, 15),
    height_mm=(-60, -30),
    gap_mm=(8, 45),
    half_mm=((20, 27), (20, 30), (20, 27)),
    roundness=(1, 1),
    spin_deg=40,
    stick_mm=(120, 190),
    stick_radius_mm=(8, 14),
)
CUP = Thing((0, 8), (-80, -60), (2, 14), ((30, 42), (38, 55), (30, 42)), (0.15, 1), 8)
TELEPHONE = Thing((70, 95), (-25, 10), (1, 6), ((28, 38), (55, 78), (4, 9)), (0.2, 0.2), 35)
CIGARETTE = Thing(
    azimuth_deg=(4, 12),
    height_mm=(-34, -28),
    gap_mm=(2, 4),
    half_mm=((4, 6), (4, 6), (4, 6)),
    roundness=(1, 1),
    spin_deg=20,
    stick_mm=(60, 100),
    stick_radius_mm=(3, 5),
)
CARD = Thing((0, 40), (-110, -50), (15, 60), ((45, 90), (35, 70), (2, 12)), (0.1, 0.1), 30)
FRUIT = Thing(
    azimuth_deg=(0, 75),
    height_mm=(-75, 0),
    gap_mm=(2, 30),
    half_mm=((18, 50), (18, 50), (15, 40)),
    roundness=(0.8, 1),
    spin_deg=180,
    stick_mm=(0, 120),
    stick_radius_mm=(3, 7),
)
THINGS = (MICROPHONE, CUP, TELEPHONE, CIGARETTE, CARD, FRUIT)
SHORTEST_STICK_MM = 30  # a shorter one is none


def draw_hands(generator: np.random.Generator, rule: HandRule) -> HandParameters:
    """One sample's hands and the thing before its face."""
    uniform = generator.uniform
    worn = np.zeros(NUM_HANDS)
    worn[0] = generator.random() < rule.hand
    worn[1] = worn[0] * (generator.random() < rule.both)
    first_side = generator.choice([-1.0, 1.0])
    side = np.array([first_side, -first_side])
    index = generator.integers(len(GESTURES), size=NUM_HANDS)
    gestures = [GESTURES[i] for i in index]
    curl = np.array([uniform(*gesture.curl) for gesture in gestures])[:, None]
    curl = curl + 0.15 * generator.normal(size=(NUM_HANDS, NUM_FINGERS))
    # The mirror image for a hand on the subject's right.
    azimuth = side * np.radians([uniform(*gesture.azimuth_deg) for gesture in gestures])
    turn = side * np.radians([uniform(*gesture.turn_deg) for gesture in gestures])
    arm = np.array([gesture.arm for gesture in gestures])
    arm += generator.normal(0, 0.15, arm.shape)
    arm[:, 0] *= side
    gap = uniform(0.5, 5, NUM_HANDS)
    height = np.array([uniform(*gesture.height_mm) for gesture in gestures])

    object_worn = float(generator.random() < rule.object)
    thing = THINGS[generator.integers(len(THINGS))]
    object_side = generator.choice([-1.0, 1.0])
    object_azimuth = object_side * math.radians(uniform(*thing.azimuth_deg))
    object_height = uniform(*thing.height_mm)
    if thing is TELEPHONE and object_worn and generator.random() < 0.7:
        # A hand holds the thing.
        worn[0], side[0], curl[0] = 1.0, object_side, uniform(0.0, 0.4)
        azimuth[0], height[0] = object_azimuth, object_height - 5
        turn[0], gap[0] = object_side * math.radians(uniform(-10, 45)), 2 * thing.half_mm[2][1] + 4
    stick = np.array([generator.normal(0, 0.3), -1.0, uniform(0.2, 0.9)])
    if thing is CIGARETTE:
        stick = np.array([generator.normal(0, 0.5), uniform(-0.5, 0.1), 1.0])
    stick_mm = uniform(*thing.stick_mm)
    return HandParameters(
        worn=worn,
        side=side,
        azimuth=azimuth,
        height_mm=height,
        turn=turn,
        scale=uniform(0.82, 1.12) * np.ones(NUM_HANDS),
        spread=uniform(0.4, 1.6, NUM_HANDS),
        curl=np.clip(curl, 0, 1),
        gap_mm=gap,
        arm=arm,
        object_worn=np.float64(object_worn),
        object_azimuth=np.float64(object_azimuth),
        object_height_mm=np.float64(object_height),
        object_gap_mm=np.float64(uniform(*thing.gap_mm)),
        object_half_mm=np.array([uniform(*half) for half in thing.half_mm]),
        object_roundness=np.array(thing.roundness, float),
        object_spin=np.float64(math.radians(uniform(-thing.spin_deg, thing.spin_deg))),
        stick_mm=np.float64(stick_mm if stick_mm > SHORTEST_STICK_MM else 0.0),
        stick_radius_mm=np.float64(uniform(*thing.stick_radius_mm)),
        stick_direction=stick,
    )
