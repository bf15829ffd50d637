"""Triangle lists of fixed topology and the points that go with them.

Letters: B batch, P points along, Q points across. Triangles are outward as those of a head: seen
from outside, in the y-up model frame, their corners run clockwise.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Where everything that is not worn is put, mm: one point, so without area, far behind the head.
NOWHERE_MM = (0.0, 0.0, -2000.0)


class Piece(NamedTuple):
    """One piece of a mesh. Letters: n vertices, t triangles."""

    triangles: Tensor  # (t, 3), int64
    uv: Tensor  # (n, 2): across the pattern, along it (strands run along v)
    two_sided: Tensor  # (t,), bool: of a sheet, seen from both sides


def sheet(num_across: int, num_along: int, *, closed: bool = False) -> Piece:
    """A grid of points, (across, along) in row-major order; `closed`: the last column meets the
    first. Outward where columns run to the subject's left in front and rows run down."""
    columns = torch.arange(num_across if closed else num_across - 1)
    corner = columns[:, None] * num_along + torch.arange(num_along - 1)
    beside = (columns[:, None] + 1) % num_across * num_along + torch.arange(num_along - 1)
    quads = torch.stack([corner, beside, beside + 1, corner + 1], -1).reshape(-1, 4)
    u = torch.linspace(0, 1, num_across + closed)[:num_across]
    v = torch.linspace(0, 1, num_along)
    uv = torch.stack(torch.meshgrid(u, v, indexing="ij"), -1).reshape(-1, 2)
    triangles = _split(quads)
    return Piece(triangles, uv, torch.ones(len(triangles), dtype=torch.bool))


def tube(num_around: int, num_along: int, *, ring: bool = False) -> Piece:
    """A closed tube, (along, around) in row-major order; ends are closed by a fan, or meet
    (`ring`). Outward for points of `sweep`."""
    stops = torch.arange(num_along if ring else num_along - 1)
    around = torch.arange(num_around)
    here, there = stops[:, None] * num_around, (stops[:, None] + 1) % num_along * num_around
    beside = (around + 1) % num_around
    quads = torch.stack([here + around, here + beside, there + beside, there + around], -1)
    triangles = [_split(quads.reshape(-1, 4))]
    if not ring:
        inner = torch.arange(1, num_around - 1)
        start = torch.stack([torch.zeros_like(inner), inner + 1, inner], -1)
        end = torch.stack([torch.zeros_like(inner), inner, inner + 1], -1)
        triangles += [start, end + (num_along - 1) * num_around]
    v, u = torch.meshgrid(torch.linspace(0, 1, num_along), around / num_around, indexing="ij")
    triangles = torch.cat(triangles)
    uv = torch.stack([u, v], -1).reshape(-1, 2)
    return Piece(triangles, uv, torch.zeros(len(triangles), dtype=torch.bool))


def sweep(
    path: Tensor,  # (B, P, 3)
    width: Tensor,  # (B, P), half axes across the path
    depth: Tensor,  # (B, P)
    side: Tensor,  # (B, P or 1, 3), roughly the direction of `width`
    num_around: int,
    *,
    ring: bool = False,
) -> Tensor:
    """Points (B, P * around, 3) of an elliptic tube round a path, for `tube`."""
    if ring:
        tangent = path.roll(-1, 1) - path.roll(1, 1)
    else:
        ahead = torch.cat([path[:, 1:], path[:, -1:]], 1)
        tangent = ahead - torch.cat([path[:, :1], path[:, :-1]], 1)
    tangent = unit(tangent)
    across = unit(side - (side * tangent).sum(-1, keepdim=True) * tangent)
    normal = torch.linalg.cross(across, tangent)
    angle = torch.arange(num_around) * (2 * math.pi / num_around)
    points = (
        path[:, :, None]
        + across[:, :, None] * (width[:, :, None, None] * angle.cos()[:, None])
        + normal[:, :, None] * (depth[:, :, None, None] * angle.sin()[:, None])
    )
    return points.flatten(1, 2)


def superquadric(
    half_size: Tensor,  # (B, 3)
    roundness: Tensor,  # (B, 2), along and around: 1 ellipsoid, towards 0 box
    num_around: int,
    num_along: int,
) -> Tensor:
    """Points (B, along * around, 3), for `tube`, of a body about the origin whose axis is y."""
    polar = torch.linspace(-0.49, 0.49, num_along) * math.pi
    around = torch.arange(num_around) * (2 * math.pi / num_around)

    def power(value: Tensor, exponent: Tensor) -> Tensor:
        return value.sign() * value.abs() ** exponent[:, None]

    ring = power(polar.cos(), roundness[:, 0])[:, :, None]  # (B, P, 1)
    x = ring * power(around.cos(), roundness[:, 1])[:, None]
    z = ring * power(around.sin(), roundness[:, 1])[:, None]
    y = power(polar.sin(), roundness[:, 0])[:, :, None].expand_as(x)
    return (torch.stack([x, y, z], -1) * half_size[:, None, None]).flatten(1, 2)


def join(pieces: Sequence[Piece]) -> Piece:
    """Several pieces as one list of triangles."""
    starts = itertools.accumulate((len(piece.uv) for piece in pieces[:-1]), initial=0)
    triangles = [piece.triangles + start for piece, start in zip(pieces, starts, strict=True)]
    uv = torch.cat([piece.uv for piece in pieces])
    return Piece(torch.cat(triangles), uv, torch.cat([piece.two_sided for piece in pieces]))


def meet_at_crown(points: Tensor) -> Tensor:  # (B, Q, P, 3), Q divisible by 4
    """The points with all columns starting at one place, the mean of four of their starts."""
    quarter = points.shape[1] // 4
    a, b, c, d = points[:, ::quarter, 0].unbind(1)
    crown = ((a + b + c + d) / 4)[:, None, None].expand(-1, points.shape[1], -1, -1)
    return torch.cat([crown, points[:, :, 1:]], 2)


def where_worn(
    points: Tensor,  # (B, n, 3), mm
    worn: Tensor,  # (B,), > 0.5: worn
) -> Tensor:
    """The points where they are worn, `NOWHERE_MM` where not."""
    return torch.where(worn[:, None, None] > 0.5, points, points.new_tensor(NOWHERE_MM))


def select(batch, samples: Tensor):  # NamedTuples of tensors, nested, (B, ...); (b,), int64
    """The same of some of the samples."""
    if isinstance(batch, tuple):
        return batch._make(select(field, samples) for field in batch)
    return batch[samples]


def unit(vector: Tensor) -> Tensor:  # (..., D)
    """The vector at length 1; zero stays zero."""
    return vector / vector.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _split(quads: Tensor) -> Tensor:  # (q, 4)
    return torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
