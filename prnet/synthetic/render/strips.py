"""Strips of pixels, and mathematics that a compiler turns into vector instructions.

A strip is an array of float32 whose rows are what is known of its pixels. It is made in the
function that is compiled as a whole, so that its strides are constants there: only then are loops
over it several pixels an instruction. They always run over the whole strip; pixels past its end
are computed from leftovers and never used. Numbers are wrapped, as Python's own would make every
sum a float64.
"""

import math

import numpy as np

from prnet.geometry.compiled import inlined

F = np.float32
STRIP = 128  # pixels: the rows stay in the innermost cache
# Rows of a strip. Until they are known, `NORMAL` is not of length 1 and `COLOR` holds u and v.
NORMAL, COLOR = 0, 3  # three rows each
OCCLUSION, ALPHA, GLOSS, SHARPNESS, TRANSLUCENCY, COSINE, LIT = range(6, 13)
FREE = 13  # from here on: what a surface is computed from
ROWS = 24

# Infinite depths are compared, so those rules of arithmetic stay.
RELAXED = {"contract", "reassoc", "arcp", "nsz"}
compiled = inlined(error_model="numpy", fastmath=RELAXED, forceinline=True)

PER_LN2, PER_PI, PI = F(1 / math.log(2)), F(1 / math.pi), F(math.pi)
LEAST_EXPONENT, MOST_EXPONENT = F(-126), F(126)
# 2^x for |x| <= 1/2 and sin x for |x| <= pi/2, to 2e-7 and 4e-6.
EXP_2, EXP_3, EXP_4, EXP_5, EXP_6 = (
    F(math.log(2) ** power / math.factorial(power)) for power in range(2, 7)
)
EXP_1 = F(math.log(2))
SIN_3, SIN_5, SIN_7, SIN_9 = (
    F((-1) ** (power // 2) / math.factorial(power)) for power in (3, 5, 7, 9)
)


@compiled
def exp(x: float) -> float:
    """e^x, float32."""
    power = clamp(x * PER_LN2, LEAST_EXPONENT, MOST_EXPONENT)
    whole = np.rint(power)
    rest = power - whole
    value = EXP_5 + rest * EXP_6
    value = EXP_3 + rest * (EXP_4 + rest * value)
    value = F(1) + rest * (EXP_1 + rest * (EXP_2 + rest * value))
    return value * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def sin(x: float) -> float:
    """Sine, float32."""
    turns = np.rint(x * PER_PI)
    rest = x - turns * PI
    square = rest * rest
    value = rest + rest * square * (SIN_3 + square * (SIN_5 + square * (SIN_7 + square * SIN_9)))
    odd = turns - F(2) * np.floor(F(0.5) * turns)
    return value - F(2) * odd * value


@compiled
def clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


@compiled
def smooth(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, with level ends; `low` above `high` falls instead. Both are
    best constants."""
    share = clamp((value - low) * (F(1) / (high - low)), F(0), F(1))
    return share * share * (F(3) - F(2) * share)
