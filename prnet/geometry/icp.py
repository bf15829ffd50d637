"""The iterative closest point: a similarity between point clouds without known correspondences.

Plain ICP pairs every query point with its nearest neighbour, fits the similarity of the pairs, and
repeats. What is found here is a fixed point of exactly that, sooner: coarse levels use a part of
the queries, and a neighbour is searched again only where the motion could have changed it.
Letters: N source points, M target points, Q queries.
"""

from typing import NamedTuple

import numpy as np
import torch

from prnet.checks import require_choice
from prnet.geometry.align import umeyama
from prnet.geometry.pairing import Pairing, motion_of
from prnet.geometry.search_tree import search_tree

DIRECTIONS = ("target_to_source", "source_to_target")
STARTS = ("centroids", "identity")
# A coarse level has at least as many queries: with fewer it may lead to another minimum.
MIN_QUERIES = 1000


class IcpRule(NamedTuple):
    """What moves the result of an ICP; every protocol states all of it.

    direction: which points look for their nearest neighbour, and so count in the error. From the
        target ("target_to_source") no point of the truth is left out; with a free scale the other
        direction rewards a source that shrinks into the target.
    iterations: at most this many on each level; 0 pairs the points where they start.
    tolerance: done when a plain step moves the source by less than this share of the target's
        root-mean-square radius; at level n, by less than n^2 times that, since a part of the
        queries does not define the result any better.
    trim: share of the pairs, the farthest, that the fit leaves out. Their distances still count.
    start: "centroids" on each other, or "identity", the coordinates as they are.
    levels: at level n one query in n is used, drawn with a fixed seed; the last must be 1.
    memory: previous steps that an extrapolation (Anderson's) looks at. It saves a quarter of the
        time and may leave for another minimum, where 0 keeps to the one of plain ICP.
    """

    direction: str = "target_to_source"
    iterations: int = 200
    tolerance: float = 3e-6
    trim: float = 0.0
    start: str = "centroids"
    levels: tuple[int, ...] = (16, 4, 1)
    memory: int = 0


DEFAULT_RULE = IcpRule()


class IcpResult(NamedTuple):
    """target = scale rotation source + translation, and who was paired with whom at the end."""

    scale: float
    rotation: np.ndarray  # (3, 3), det +1
    translation: np.ndarray  # (3,)
    source_index: np.ndarray  # (Q,)
    target_index: np.ndarray  # (Q,)
    distances: np.ndarray  # (Q,), of the pairs after alignment, in the target's unit
    iterations: int  # of the last level
    converged: bool


def icp(
    source: np.ndarray,  # (N, 3)
    target: np.ndarray,  # (M, 3)
    *,
    with_scale: bool,
    rule: IcpRule = DEFAULT_RULE,
) -> IcpResult:
    """A local minimum of the mean squared nearest-neighbour distance over similarities, or, without
    scale, over rigid motions.

    Convention: column vectors, det R = +1; both sides in frames of one handedness, any unit. The
    minimum is the one downhill of the start: for faces turned apart by much, align them first.

    Raises:
        ValueError: a side is not (3 or more, 3) finite points, a field of the rule is not one of
            its choices, or the paired points of one side coincide or lie on a line.

    Source: Besl and McKay, PAMI 1992; trimming: Chetverikov et al., 2005; extrapolation and its
    safeguard: Zhang, Yao and Deng, "Fast and Robust Iterative Closest Point", PAMI 2022.
    """
    _require_rule(rule)
    source, target = _require_cloud("source", source), _require_cloud("target", target)

    # Unit radius about the centroids: one number then measures turn, shift and growth alike.
    source_mean, target_mean = source.mean(0), target.mean(0)
    radius = float(np.sqrt(((target - target_mean) ** 2).sum(1).mean()))
    if radius == 0:
        raise ValueError("target: all points coincide, so no rotation is determined")
    source = (source - source_mean) / radius
    target = (target - target_mean) / radius
    shift = (source_mean - target_mean) / radius
    params = np.zeros(7)
    if rule.start == "identity":
        params[3:6] = shift

    from_target = rule.direction == "target_to_source"
    queries, static = (target, source) if from_target else (source, target)
    tree = search_tree(static)
    random = np.random.default_rng(0)
    for level in rule.levels:
        chosen = np.arange(len(queries))
        if level > 1:
            count = max(len(queries) // level, min(len(queries), MIN_QUERIES))
            # In their order neighbours stay neighbours, which the search profits from.
            chosen = np.sort(random.choice(len(queries), count, replace=False))
        pairing = Pairing(queries[chosen], tree, with_scale, from_target, rule.trim)
        params, iterations, converged = _descend(pairing, params, rule, rule.tolerance * level**2)

    distances = pairing.match(params)
    neighbours = tree.order[pairing.neighbour]
    scale, rotation, translation = motion_of(params)
    own = np.arange(len(queries))
    return IcpResult(
        scale=scale,
        rotation=rotation,
        translation=target_mean + radius * translation - scale * rotation @ source_mean,
        source_index=neighbours if from_target else own,
        target_index=own if from_target else neighbours,
        distances=radius * distances,
        iterations=iterations,
        converged=converged,
    )


def fit_similarity(
    source: np.ndarray,  # (N, 3)
    target: np.ndarray,  # (N, 3)
    *,
    with_scale: bool,
) -> tuple[float, np.ndarray, np.ndarray]:
    """`umeyama` of one pair of arrays: scale, rotation (3, 3), translation (3,).

    Raises:
        ValueError: as `umeyama`.
    """
    found = umeyama(
        torch.from_numpy(source)[None], torch.from_numpy(target)[None], with_scale=with_scale
    )
    return found.scale.item(), found.rotation[0].numpy(), found.translation[0].numpy()


def _descend(
    pairing: Pairing,
    params: np.ndarray,  # (7,)
    rule: IcpRule,
    tolerance: float,
) -> tuple[np.ndarray, int, bool]:
    """Parameters at the fixed point of one level, iterations used, and whether it was reached."""
    plain, residuals = [], []
    energy = np.inf
    retreat = None
    for iteration in range(rule.iterations):
        found, stepped = pairing.step(params)
        if found > energy and retreat is not None:
            # The extrapolation went uphill; a plain step cannot.
            params, retreat = retreat, None
            plain, residuals = plain[-1:], residuals[-1:]
            continue
        energy = found
        plain.append(stepped)
        residuals.append(stepped - params)
        if np.linalg.norm(residuals[-1]) < tolerance:
            return stepped, iteration + 1, True
        plain, residuals = plain[-rule.memory - 1 :], residuals[-rule.memory - 1 :]
        retreat = stepped
        params = _extrapolate(plain, residuals)
    return params if retreat is None else retreat, rule.iterations, False


def _extrapolate(plain: list[np.ndarray], residuals: list[np.ndarray]) -> np.ndarray:
    """Anderson's step: the combination of the plain steps whose residual is smallest, (7,)."""
    if len(plain) == 1:
        return plain[0]
    weights, *_ = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=1e-6)
    return plain[-1] - np.diff(plain, axis=0).T @ weights


def _require_cloud(name: str, points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 3:
        raise ValueError(f"{name}: got points {points.shape}, expected (N, 3) with N >= 3")
    if not np.isfinite(points).all():
        raise ValueError(f"{name}: holds coordinates that are not finite")
    return points


def _require_rule(rule: IcpRule) -> None:
    require_choice("direction", rule.direction, DIRECTIONS)
    require_choice("start", rule.start, STARTS)
    if rule.iterations < 0 or rule.memory < 0 or rule.tolerance < 0:
        raise ValueError(
            f"got iterations {rule.iterations}, memory {rule.memory}, tolerance "
            f"{rule.tolerance:g}; expected none below 0"
        )
    if not 0 <= rule.trim < 1:
        raise ValueError(f"trim: got {rule.trim:g}, expected a share of at least 0 and below 1")
    if not rule.levels or rule.levels[-1] != 1 or min(rule.levels) < 1:
        raise ValueError(f"levels: got {rule.levels}, expected whole numbers that end in 1")
