"""Light on a face: soft lights and an environment as spherical harmonics, and one hard light.

Directions are in the image frame: x right, y down, z toward the camera. Light is linear RGB; a
white matte surface of irradiance 1 has colour 1.
"""

from typing import NamedTuple

import numpy as np

# Irradiance of a normal n is the polynomial with these terms, n being a unit vector.
TERMS = ("1", "x", "y", "z", "xx", "yy", "xy", "xz", "yz")


class Light(NamedTuple):
    """One sample's light; float64."""

    irradiance: np.ndarray  # (9, 3), coefficients of `TERMS`, linear RGB
    direction: np.ndarray  # (3,), unit vector toward the hard light
    color: np.ndarray  # (3,), irradiance of the hard light on a surface that faces it
    shadow: float  # 1: the hard light casts shadows, 0: it does not
    highlight: np.ndarray  # (3,), unit vector toward the brightest light, for highlights
    highlight_color: np.ndarray  # (3,), its radiance as a mirror-like patch shows it


def soft_light(
    direction: np.ndarray,  # (3,), unit vector toward the light
    color: np.ndarray,  # (3,), irradiance on a surface that faces it
) -> np.ndarray:
    """Irradiance polynomial of a distant light, (9, 3).

    max(c, 0) for c = n . direction in harmonics up to the second order, 1/4 + c/2 + 5/32 (3 c^2
    - 1), which is what a light of moderate size gives.

    Source: Ramamoorthi and Hanrahan, SIGGRAPH 2001.
    """
    x, y, z = direction
    # n is a unit vector, so z^2 = 1 - x^2 - y^2 leaves nine terms.
    square = np.array(
        [z * z, 0, 0, 0, x * x - z * z, y * y - z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    )
    polynomial = 15 / 32 * square
    polynomial[0] += 1 / 4 - 5 / 32
    polynomial[1:4] += direction / 2
    return polynomial[:, None] * color


def draw_light(generator: np.random.Generator, *, hard_share: float, shadow_share: float) -> Light:
    """Sky and ground, one to four soft lights, and in a share of the samples a hard one."""
    sky, ground = _tint(generator, 0.12), _tint(generator, 0.2)
    up = np.array([0.0, -1.0, 0.0])
    ambient = generator.uniform(0.1, 1.0)
    irradiance = np.zeros((9, 3))
    irradiance[0] = ambient * (sky + 0.7 * ground) / 2
    irradiance[2] = -ambient * (sky - 0.7 * ground) / 2

    strongest, highlight, highlight_color = 0.0, up, np.zeros(3)
    for _ in range(generator.integers(1, 5)):
        direction, color = _direction(generator), generator.gamma(1.3, 0.5) * _tint(generator, 0.12)
        irradiance += soft_light(direction, color)
        # Only a light in front of the face is mirrored by it.
        if color.mean() * max(direction[2] + 0.3, 0) > strongest:
            strongest = color.mean() * (direction[2] + 0.3)
            highlight, highlight_color = direction, color

    hard = generator.uniform() < hard_share
    direction = _direction(generator)
    color = hard * generator.gamma(2.0, 0.6) * _tint(generator, 0.12)
    shadow = float(generator.uniform() < shadow_share)
    if color.mean() > 0.7 * strongest:
        highlight, highlight_color = direction, color

    # Exposure meters for the face: what a forehead and two cheeks receive on average.
    facing = np.array([[0.0, -0.2, 1.0], [0.6, 0.0, 0.8], [-0.6, 0.0, 0.8]])
    facing /= np.linalg.norm(facing, axis=1, keepdims=True)
    received = polynomial_terms(facing) @ irradiance
    received = received + np.clip(facing @ direction, 0, None)[:, None] * color
    level = np.exp(0.2 * generator.normal()) * 0.95 / max(received.mean(), 0.2)
    return Light(
        irradiance=level * irradiance,
        direction=direction,
        color=level * color,
        shadow=shadow * float(hard),
        highlight=highlight,
        highlight_color=level * highlight_color,
    )


def polynomial_terms(normals: np.ndarray) -> np.ndarray:  # (M, 3)
    """`TERMS` of unit normals, (M, 9)."""
    x, y, z = normals.T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, x * y, x * z, y * z], -1)


def _direction(generator: np.random.Generator) -> np.ndarray:
    """Toward a light: more often from above and from the front than not."""
    direction = generator.normal(size=3) * np.array([1.0, 0.6, 0.8]) + np.array([0, -0.45, 0.5])
    return direction / np.linalg.norm(direction)


def _tint(generator: np.random.Generator, spread: float) -> np.ndarray:
    """A colour of mean about 1: warm or cold, seldom strong."""
    warmth = spread * generator.normal() * (3 if generator.uniform() < 0.06 else 1)
    tint = 0.4 * spread * generator.normal()
    return np.exp(np.array([warmth, tint, -1.2 * warmth]))
