"""People's proportions: where the artist's average head differs from what people look like.

MakeHuman's average is flat: from the nose tip back to the jaw's ends it measures 1.16 times the
distance of the outer eye corners, people 1.32. The bumps below were set by hand, in whole
millimetres, by looking at the mean of scanned people (BFM's) and of 300W-LP's fits; nothing is
fitted.
"""

from typing import NamedTuple

import numpy as np


class Bump(NamedTuple):
    """A part that moves, and how far, mm; the subject's right half, which the left mirrors."""

    center: tuple[int, int]  # x and y on the mean
    width: tuple[int, int]  # standard deviations of the bell around it
    up: int = 0
    forward: int = 0
    inward: int = 0  # to the middle


BUMPS = (
    Bump((0, 20), (8, 9), forward=5),  # bridge of the nose
    Bump((0, 2), (7, 9), forward=7),
    Bump((0, -9), (9, 6), up=3, forward=2),  # its tip
    Bump((0, 50), (25, 20), forward=2),  # forehead
    Bump((0, -78), (28, 13), forward=4),  # chin
    Bump((-64, 5), (10, 35), forward=-5),  # side of the face and ear
    Bump((-56, -45), (14, 28), up=2, inward=3),  # jaw
    Bump((-21, -38), (6, 8), forward=-2),  # corner of the mouth
)


def with_proportions(mean: np.ndarray) -> np.ndarray:  # (C, 3), mm
    """The mean with the bumps, (C, 3); exactly symmetric where the mean is."""
    moved = mean.copy()
    for bump in BUMPS:
        for side in (1, -1) if bump.center[0] else (1,):
            offset = (mean[:, :2] - np.array(bump.center) * [side, 1]) / bump.width
            share = np.exp(-(offset**2).sum(1) / 2)
            moved += share[:, None] * [side * bump.inward, bump.up, bump.forward]
    return moved
