"""The colour a surface sends to the camera. Letters: M pixels, P = M or 1.

Everything is planar, (3, M), in linear RGB and in the crop frame (x right, y down, z toward the
camera). Parameters of a light come as (..., P): gathered for each pixel, or one column where all
pixels belong to one sample.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

# How far beyond the terminator light still leaks through skin, for red, green and blue.
SKIN_WRAP = (0.30, 0.12, 0.07)
SCLERA_EDGE = 0.06
VIEW_Z = 1.0


class Surface(NamedTuple):
    """What light meets at each pixel."""

    albedo: Tensor  # (3, M)
    normal: Tensor  # (3, M), unit vectors
    occlusion: Tensor  # (M,), share of the surroundings it sees
    gloss: Tensor  # (M,), strength of the highlights
    sharpness: Tensor  # (M,), of the highlights: the larger, the smaller they are
    translucency: Tensor  # (M,), 1 for skin


class PixelLight(NamedTuple):
    """`prnet.synthetic.camera.lighting.Light` by pixel."""

    irradiance: Tensor  # (9, 3, P)
    direction: Tensor  # (3, P)
    color: Tensor  # (3, P)
    highlight: Tensor  # (3, P)
    highlight_color: Tensor  # (3, P)


def shade(
    surface: Surface,
    light: PixelLight,
    shadow: Tensor,  # (M,) or (1,), share of the hard light that arrives
) -> Tensor:
    """Radiance toward the camera, (3, M).

    Matte: irradiance of the soft lights times occlusion, plus the hard light with a clamped cosine
    that reaches beyond the terminator on skin. Highlights: a spherical Gaussian
    exp(sharpness (n . h - 1)) about the half vector h of each light.
    """
    normal = surface.normal
    soft = irradiance(normal, light.irradiance) * surface.occlusion
    cosine = dot(normal, light.direction)
    wrap = normal.new_tensor(SKIN_WRAP)[:, None] * surface.translucency
    hard = ((cosine + wrap) / (1 + wrap)).clamp_(min=0).mul_(light.color).mul_(shadow)
    radiance = (soft + hard).mul_(surface.albedo)

    strength = surface.gloss * surface.occlusion
    # Light at a grazing angle is mirrored by all surfaces.
    grazing = (1 - normal[2]).clamp_(0, 1) ** 3
    strength = strength * (1 + 3 * grazing)
    lobe = highlight(normal, light.direction, surface.sharpness) * (cosine > 0) * shadow
    radiance += (strength * lobe) * light.color
    lobe = highlight(normal, light.highlight, 0.6 * surface.sharpness)
    radiance += (0.6 * strength * lobe) * light.highlight_color
    return radiance


def irradiance(
    normal: Tensor,  # (3, M)
    coefficients: Tensor,  # (9, 3, P), of `prnet.synthetic.camera.lighting.TERMS`
) -> Tensor:
    """Soft light on a surface, never negative, (3, M)."""
    x, y, z = normal
    one, of_x, of_y, of_z, of_xx, of_yy, of_xy, of_xz, of_yz = coefficients
    inner = torch.addcmul(of_x, of_xx, x).addcmul_(of_xy, y).addcmul_(of_xz, z)
    total = torch.addcmul(of_y, of_yy, y).addcmul_(of_yz, z).mul_(y)
    total = total.addcmul_(inner, x).addcmul_(of_z, z).add_(one)
    return total.clamp_(min=0.01)


def highlight(
    normal: Tensor,  # (3, M)
    direction: Tensor,  # (3, P), toward the light
    sharpness: Tensor,  # (M,)
) -> Tensor:
    """Spherical Gaussian about the half vector, (M,), 1 at its centre."""
    return torch.exp(sharpness * (dot(normal, half_vector(direction)) - 1))


def half_vector(direction: Tensor) -> Tensor:  # (3, P), toward the light
    """Between light and camera, (3, P) unit vectors."""
    half = direction.clone()
    half[2] += VIEW_Z
    return half / half.square().sum(0).sqrt().clamp(min=1e-6)


def dot(first: Tensor, second: Tensor) -> Tensor:  # (3, M), (3, P)
    """Scalar product, (M,)."""
    return (first[:3] * second[:3]).sum(0)


def unit(vectors: Tensor) -> Tensor:  # (3, M)
    """Vectors of length 1; zero stays zero."""
    return vectors * dot(vectors, vectors).clamp(min=1e-20).rsqrt()


class EyePaint(NamedTuple):
    """An eyeball's colours by pixel; linear RGB."""

    gaze: Tensor  # (3, P), unit vector of the model frame
    iris_angle: Tensor  # (P,), rad, radius of the iris as seen from the eye's centre
    pupil: Tensor  # (P,), radius over the iris's
    iris_color: Tensor  # (3, P)
    sclera_color: Tensor  # (3, P)


def eye_color(
    direction: Tensor,  # (3, M), from the eye's centre, unit vectors of the model frame
    paint: EyePaint,
) -> Tensor:
    """Albedo of the eyeball, (3, M): sclera, limbus, iris with radial fibres, pupil."""
    gaze = paint.gaze
    angle = torch.acos(dot(direction, gaze).clamp(-1, 1))
    radius = angle / paint.iris_angle  # 1 at the limbus
    around = torch.atan2(direction[1] - gaze[1], direction[0] - gaze[0])
    fibres = 1 + 0.22 * torch.sin(23 * around + 6 * radius) * torch.sin(11 * around - 3)
    shade_of_iris = fibres * (0.55 + 0.9 * (radius - paint.pupil).clamp(0, 0.5))
    # The limbus is a soft dark ring.
    shade_of_iris = shade_of_iris * (1 - 0.75 * smooth(radius, 0.78, 1.0))
    iris = paint.iris_color * shade_of_iris
    iris = iris * (1 - 0.97 * smooth(radius, paint.pupil + 0.06, paint.pupil - 0.06))
    # Toward the corners the white turns red.
    redness = 0.3 * smooth(angle, 0.6, 1.3)
    white = paint.sclera_color * (1 - redness * direction.new_tensor([[0.3], [1.0], [1.0]]))
    share = smooth(radius, 1 - SCLERA_EDGE, 1 + SCLERA_EDGE)
    return iris + (white - iris) * share


def smooth(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """0 below `low`, 1 above `high`, with level ends; `low` above `high` falls instead."""
    share = ((value - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def linear_from_srgb(encoded: Tensor) -> Tensor:
    """Linear light from sRGB in [0, 1].

    Source: IEC 61966-2-1.
    """
    curve = ((encoded + 0.055) / 1.055) ** 2.4
    return torch.where(encoded <= 0.04045, encoded / 12.92, curve)


def linear_from_bytes(picture: np.ndarray) -> Tensor:  # (H, W, 3) uint8, sRGB
    """Linear light, (3, H, W)."""
    table = linear_from_srgb(torch.arange(256) / 255).numpy()
    return torch.from_numpy(cv2.LUT(picture, table)).permute(2, 0, 1)
