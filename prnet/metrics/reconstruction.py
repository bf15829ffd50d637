"""Errors of a reconstructed face after alignment: six metrics that the papers call by one name.

They answer different questions and their numbers may not be compared: see docs/protocols.md. Every
metric takes one face and is pure; a caller with many faces spreads them over processes. Points are
in px of one frame and pixel origin, z toward the camera; letters: N predicted points, M true ones.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch

from prnet.checks import require_choice
from prnet.geometry.icp import DEFAULT_RULE, IcpRule, fit_similarity, icp
from prnet.metrics.nme import bbox_size

OUTER_EYES = (36, 45)
NORMALIZERS = ("outer_interocular_3d", "box")

STRIDE_2DASL = 50
STOP_2DASL = 0.01  # change of the mean squared distance, px^2
MAX_ITERATIONS_2DASL = 1000


def reconstruction_unit(
    normalizer: str,
    points: np.ndarray,  # (M, 3), true points, px
    landmarks: np.ndarray | None,  # (68, 3), true landmarks, px; None where "box" is asked for
) -> float:
    """What an error is divided by, px: |landmark 36 - landmark 45| in 3D, or sqrt(w h) of the
    points' box in x and y.

    Raises:
        ValueError: another normaliser, or landmarks of another shape.
    """
    require_choice("normalizer", normalizer, NORMALIZERS)
    if normalizer == "box":
        return bbox_size(torch.from_numpy(np.asarray(points, dtype=np.float64))[None]).item()
    shape = None if landmarks is None else np.shape(landmarks)
    if shape != (68, 3):
        raise ValueError(
            f"normalizer outer_interocular_3d: got landmarks {shape}, expected (68, 3)"
        )
    first, second = (np.asarray(landmarks[index], dtype=np.float64) for index in OUTER_EYES)
    return float(np.linalg.norm(first - second))


def reconstruction_error(
    metric: str,
    prediction: np.ndarray,  # (N, 3), px
    truth: np.ndarray,  # (M, 3), px
    *,
    unit: float,
    rule: IcpRule = DEFAULT_RULE,
) -> float:
    """One of `RECONSTRUCTION_METRICS` for one face, in percent of `unit`.

    `rule` says how the three ICPs of ours look for pairs and when they stop; the other metrics
    have no choice left.

    Raises:
        ValueError: another metric, points of the wrong shape or not finite, a unit that is not
            positive, differing numbers of points under a metric that pairs them by index.
    """
    require_choice("metric", metric, RECONSTRUCTION_METRICS)
    if not (math.isfinite(unit) and unit > 0):
        raise ValueError(
            f"unit: got {unit:g} px, expected a positive length: is the truth a point?"
        )
    clouds = []
    for name, points in (("prediction", prediction), ("truth", truth)):
        points = np.array(points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"{name}: got points {points.shape}, expected (N, 3)")
        if not np.isfinite(points).all():
            raise ValueError(f"{name}: holds coordinates that are not finite")
        clouds.append(points)
    if metric in BY_INDEX and len(prediction) != len(truth):
        raise ValueError(
            f"{metric} pairs points by index: got {len(prediction)} predicted and {len(truth)} "
            "true ones; use an icp_ metric for clouds without correspondence"
        )
    return 100 * RECONSTRUCTION_METRICS[metric](*clouds, rule) / unit


def procrustes_corr(prediction: np.ndarray, truth: np.ndarray, rule: IcpRule) -> float:
    """Mean distance of corresponding points, (N, 3) both, after their least-squares similarity,
    px."""
    scale, rotation, translation = fit_similarity(prediction, truth, with_scale=True)
    return _mean_distance(scale * prediction @ rotation.T + translation, truth)


def icp_nearest(
    prediction: np.ndarray, truth: np.ndarray, rule: IcpRule, *, with_scale: bool
) -> float:
    """Mean distance of nearest neighbours after ICP, px of the truth."""
    return float(icp(prediction, truth, with_scale=with_scale, rule=rule).distances.mean())


def icp_correspondence(prediction: np.ndarray, truth: np.ndarray, rule: IcpRule) -> float:
    """Mean distance, before any alignment, of the pairs that rigid ICP ends with, px.

    Only depth is moved: each side loses the mean of its own z.

    Source: VRN (Jackson et al., ICCV 2017) as its author explains it: the aligned cloud serves to
    find correspondences and is thrown away; he was not sure of the rule for depth.
    """
    found = icp(prediction, truth, with_scale=False, rule=rule)
    depth = np.array([0, 0, prediction[:, 2].mean() - truth[:, 2].mean()])
    return _mean_distance(prediction[found.source_index] - depth, truth[found.target_index])


def rec_sadrnet(prediction: np.ndarray, truth: np.ndarray, rule: IcpRule) -> float:
    """Mean distance of corresponding points, (N, 3) both, after SADRNet's alignment, px.

    Its released evaluation has no ICP: one fit on known correspondences whose scale is the ratio of
    summed distances from the first point (the first face pixel, at the edge of the scalp), and
    whose orthogonal matrix may be a reflection, so a mirrored face scores 0.

    Source: RecLoss and cp of the released code, where SADRNet IV-C says ICP.
    """
    scale = _spread_about_first(truth) / _spread_about_first(prediction)
    source, source_mean = scale * prediction, scale * prediction.mean(0)
    covariance = (truth - truth.mean(0)).T @ (source - source_mean)
    left, _, right_t = np.linalg.svd(covariance)
    return _mean_distance((source - source_mean) @ (left @ right_t).T + truth.mean(0), truth)


def rec_2dasl(prediction: np.ndarray, truth: np.ndarray, rule: IcpRule) -> float:
    """Mean distance of vertices of one index, (N, 3) both, after 2DASL's rigid ICP, px.

    Every 50th vertex of the whole mesh; the centroids of the two samples stay on each other and
    only the rotation follows the nearest neighbours (of the truth in the prediction), until their
    mean squared distance changes by at most 0.01 px^2. What is reported pairs vertices by index.

    Raises:
        ValueError: it does not settle.

    Source: nme_for_3DReconstruction.m and icp_process_xgtu.m of the released code.
    """
    from scipy.spatial import cKDTree

    prediction, truth = prediction[::STRIDE_2DASL], truth[::STRIDE_2DASL]
    prediction, truth = prediction - prediction.mean(0), truth - truth.mean(0)
    previous = 0.0
    for _ in range(MAX_ITERATIONS_2DASL):
        distances, nearest = cKDTree(prediction).query(truth)
        _, rotation, _ = fit_similarity(prediction[nearest], truth, with_scale=False)
        prediction = prediction @ rotation.T
        squared = float(distances @ distances) / len(distances)
        if abs(squared - previous) <= STOP_2DASL:
            return _mean_distance(prediction, truth)
        previous = squared
    raise ValueError(f"rec_2dasl: not settled after {MAX_ITERATIONS_2DASL} iterations")


RECONSTRUCTION_METRICS: dict[str, Callable[[np.ndarray, np.ndarray, IcpRule], float]] = {
    "procrustes_corr": procrustes_corr,
    "icp_rigid": functools.partial(icp_nearest, with_scale=False),
    "icp_similarity": functools.partial(icp_nearest, with_scale=True),
    "icp_correspondence": icp_correspondence,
    "rec_sadrnet": rec_sadrnet,
    "rec_2dasl": rec_2dasl,
}
BY_INDEX = ("procrustes_corr", "rec_sadrnet", "rec_2dasl")


def _mean_distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=1).mean())


def _spread_about_first(points: np.ndarray) -> float:  # (N, 3)
    spread = float(np.linalg.norm(points - points[0], axis=1).sum())
    if spread == 0:
        raise ValueError("rec_sadrnet: all points of one side coincide, so no scale is determined")
    return spread
