"""A morphable model fitted to landmarks under weak perspective: pose, shape and expression at once.

Letters: B batch, K = 68 landmarks, D = 2 or 3 coordinates, N vertices, S shape and E expression
bases, M vertices of a path.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from prnet.checks import require_choice
from prnet.geometry import camera
from prnet.geometry.levenberg_marquardt import LOSSES, Problem, State, minimise, residual_of
from prnet.geometry.morphable_model import MorphableModel

MIN_POINTS = 6
NUM_JAW = 17
# Yaw of the poses that are tried first: any face lies within reach of one.
START_YAWS_DEG = (-80.0, -40.0, 0.0, 40.0, 80.0)
# Enough to tell the starts apart; the fit itself converges.
START_ITERATIONS, START_TOLERANCE = 30, 1e-3
# A second direction of the points this many times shorter than the first makes them a line.
LINE_RATIO = 1e-3
# How often the vertices on the outline are chosen anew; they settle in two or three rounds.
OUTLINE_ROUNDS = 4
# How far from a jaw landmark to the middle of the face its outline may move, and how thick the
# slice of the face is that it moves along, in units of the face's height.
OUTLINE_REACH, SLICE_HALF_HEIGHT = 0.6, 0.015


class LandmarkFit(NamedTuple):
    """Weak-perspective fits in the convention of 300W-LP's files; float64."""

    scale: Tensor  # (B,), px per model unit, > 0
    rotation: Tensor  # (B, 3, 3), det +1
    translation: Tensor  # (B, 3), px of the y-up plane; z is 0 where the landmarks are 2D
    shape_params: Tensor  # (B, S)
    exp_params: Tensor  # (B, E)
    size: Tensor  # (B,), sqrt(w h) of the landmarks that have a weight, px
    residual: Tensor  # (B, K), distance to each landmark, px
    nme: Tensor  # (B,), weighted mean of the residual, percent of the size
    converged: Tensor  # (B,), bool
    iterations: Tensor  # (B,), int64

    def angles(self) -> Tensor:
        """Pitch, yaw, roll in rad, (B, 3), for `camera.rotation_from_angles`.

        Of the two triples that give a rotation this is the one nearer to upright, so that a head
        turned beyond its profile has a yaw beyond 90 degrees and does not stand on its head.
        """
        angles = camera.angles_from_rotation(self.rotation)
        half_turn = torch.pi * torch.where(angles > 0, -1.0, 1.0).to(angles)
        other = angles + half_turn
        other[:, 1] = -half_turn[:, 1] - angles[:, 1]
        tilt, other_tilt = (each[:, [0, 2]].abs().sum(1) for each in (angles, other))
        return torch.where((other_tilt < tilt)[:, None], other, angles)


def fit_landmarks(
    model: MorphableModel,  # its first K vertices are the landmarks; see `landmark_model`
    landmarks: Tensor,  # (B, K, 2 or 3), image px; z toward the camera
    weights: Tensor | None = None,  # (B, K), >= 0, 0: not seen; None: all 1
    *,
    image_height: Tensor,  # (B,), px
    shape_std: Tensor,  # (S,), of a Gaussian prior of mean 0; infinity: none
    exp_std: Tensor,  # (E,)
    exp_bounds: tuple[float, float] | None = None,
    jaw_paths: Tensor | None = None,  # (17, M), vertices of `model`
    pixel_origin: str = "zero_based",
    landmark_std: float = 0.01,
    loss: str = "huber",
    robust_scale: float = 0.03,
    max_iterations: int = 200,
    tolerance: float = 1e-6,
) -> LandmarkFit:
    """Maximum a posteriori of the landmarks y_k = P (f R V_k(a, b) + t).

    E = sum_k w_k rho(|r_k|^2 / landmark_std^2) + sum (a / shape_std)^2 + sum (b / exp_std)^2, where
    r, landmark_std and robust_scale are in units of the landmarks' sqrt(w h), and rho ("huber",
    "geman_mcclure" or "squared") changes from a square to what outliers may cost at robust_scale:
    see `levenberg_marquardt.Problem`. The steps keep R a rotation and f positive, so a mirrored
    face is never met by a mirrored pose. Started from the best of several yaws of the mean face.

    `exp_bounds` keeps every expression coefficient in an interval. `jaw_paths` None holds the 17
    jaw points at their vertices (the "3D" landmarks of 300W-LP); otherwise each is the vertex of
    its path that lies farthest out on its side of the picture, as where the outline of the face was
    annotated. A fit has converged when a step would move it by less than `tolerance` posterior
    standard deviations; one that has not is returned as it is, and says so.

    Convention: pose and pixel origins of `prnet.geometry.camera`. Computed in float64.

    Raises:
        ValueError: shapes or options that do not fit together; an item has fewer than 6 points of
            positive weight, values that are not finite, or points that lie on a line.

    Source: the outline's choice of vertices is the landmark marching of HPEN (Zhu et al., CVPR
    2015).
    """
    weights = torch.ones_like(landmarks[..., 0]) if weights is None else weights
    _require_arguments(model, landmarks, weights, image_height, shape_std, exp_std, jaw_paths, loss)
    num_points, dims = landmarks.shape[1:]
    weights = weights.double()

    # The y-up plane, with the mean of the points as origin and their size as unit.
    shift_x, shift_y = camera.pixel_origin_shift("sadrnet", pixel_origin)
    points = landmarks.double().clone()
    points[..., 0] -= shift_x
    points[..., 1] = (image_height.double() + shift_y)[:, None] - points[..., 1]
    share = weights / weights.sum(1, keepdim=True)
    center = (share[..., None] * points).sum(1)  # (B, D)
    size = _size(points, weights)  # (B,)

    upper = points.new_full((model.num_shape + model.num_exp,), torch.inf)
    lower = -upper
    if exp_bounds is not None:
        lower[model.num_shape :], upper[model.num_shape :] = exp_bounds
    problem = Problem(
        mean=model.mean[None, :num_points].double(),
        basis=model.basis[None, :, :num_points].double(),
        target=(points - center[:, None]) / size[:, None, None],
        weights=weights,
        precision=torch.cat([shape_std, exp_std]).double().pow(-2),
        lower=lower,
        upper=upper,
        point_std=landmark_std,
        loss=loss,
        robust_scale=robust_scale,
    )
    state = _first_pose(problem)
    state = state._replace(
        coefficients=points.new_zeros(len(points), len(lower)).clamp(lower, upper)
    )
    iterations = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for _ in range(1 if jaw_paths is None else OUTLINE_ROUNDS):
        if jaw_paths is not None:
            problem = _at_vertices(problem, model, _on_outline(model, state, jaw_paths))
        solution = minimise(problem, state, max_iterations=max_iterations, tolerance=tolerance)
        state = solution.state
        iterations += solution.iterations

    residual = residual_of(problem, state).norm(dim=-1)  # (B, K), in units of the size
    translation = points.new_zeros(len(points), 3)
    translation[:, :dims] = state.translation * size[:, None] + center
    return LandmarkFit(
        scale=state.scale * size,
        rotation=state.rotation,
        translation=translation,
        shape_params=state.coefficients[:, : model.num_shape],
        exp_params=state.coefficients[:, model.num_shape :],
        size=size,
        residual=residual * size[:, None],
        nme=100 * (share * residual).sum(1),
        converged=solution.converged,
        iterations=iterations,
    )


def landmark_model(
    model: MorphableModel,  # of the whole face
    landmark_index: Tensor,  # (68,)
    *,
    jaw: str = "fixed",
) -> tuple[MorphableModel, Tensor | None]:
    """The model and the `jaw_paths` that `fit_landmarks` takes, for a jaw "fixed" or "outline".

    Raises:
        ValueError: another kind of jaw.
    """
    require_choice("jaw", jaw, ("fixed", "outline"))
    if jaw == "fixed":
        return model.at_vertices(landmark_index), None
    paths = outline_paths(model.mean, landmark_index)
    places = torch.arange(paths.numel(), device=paths.device).view_as(paths) + len(landmark_index)
    return model.at_vertices(torch.cat([landmark_index, paths.flatten()])), places


def outline_paths(
    mean: Tensor,  # (N, 3), model frame
    landmark_index: Tensor,  # (68,)
    *,
    num_steps: int = 16,
) -> Tensor:
    """Where the 17 jaw landmarks may slide when a face turns, (17, num_steps), vertices.

    Each path is cut from the front of the face at the landmark's height, from the landmark itself
    part of the way to the middle: under yaw the outline at a height is a vertex of that slice.
    """
    jaw = mean[landmark_index[:NUM_JAW]]  # (17, 3)
    height = (mean[landmark_index, 1].amax() - mean[landmark_index, 1].amin()).item()
    paths = landmark_index[:NUM_JAW, None].repeat(1, num_steps)
    for number, (x, y, z) in enumerate(jaw.tolist()):
        in_slice = ((mean[:, 1] - y).abs() < SLICE_HALF_HEIGHT * height) & (mean[:, 2] >= z)
        # The share of the way to the middle; the chin, which is there already, has no path.
        way = 1 - mean[:, 0] / x if abs(x) > SLICE_HALF_HEIGHT * height else torch.ones(len(mean))
        for step in range(1, num_steps):
            low, high = ((step + d) * OUTLINE_REACH / (num_steps - 1) for d in (-0.5, 0.5))
            here = (in_slice & (way >= low) & (way < high)).nonzero().flatten()
            if len(here):
                # Of the vertices above each other the front one is skin, not the mouth's inside.
                paths[number, step] = here[mean[here, 2].argmax()]
    return paths


def unfit_reason(
    landmarks: Tensor,  # (K, 2 or 3)
    weights: Tensor,  # (K,)
) -> str | None:
    """Why no pose can be found from these landmarks, or None where one can."""
    if not (weights.isfinite() & (weights >= 0)).all():
        return "weights: expected finite values of at least 0"
    if not landmarks.isfinite().all():
        return "the landmarks hold coordinates that are not finite"
    used = landmarks[weights > 0].double()
    if len(used) < MIN_POINTS:
        return f"{len(used)} landmarks of positive weight, expected at least {MIN_POINTS}"
    spread = torch.linalg.svdvals(used[:, :2] - used[:, :2].mean(0))
    if spread[1] <= LINE_RATIO * spread[0]:
        return "the landmarks coincide or lie on a line"
    return None


def _first_pose(problem: Problem) -> State:
    """The pose of the mean face from which the fit sets out: the best of `START_YAWS_DEG`."""
    count, device = len(problem.target), problem.target.device
    angles = torch.zeros(len(START_YAWS_DEG), 3, dtype=torch.float64, device=device)
    angles[:, 1] = torch.tensor(START_YAWS_DEG, dtype=torch.float64).deg2rad()
    turned = camera.rotation_from_angles(angles).repeat_interleave(count, 0)  # (Y B, 3, 3)
    items = torch.arange(count, device=device).repeat(len(angles))
    starts = problem.pose_only().at(items)
    solution = minimise(
        starts,
        _turned_in_plane(starts, turned),
        max_iterations=START_ITERATIONS,
        tolerance=START_TOLERANCE,
    )
    best = solution.energy.view(len(angles), count).argmin(0)
    return solution.state.at(best * count + torch.arange(count, device=device))


def _turned_in_plane(problem: Problem, rotation: Tensor) -> State:  # (B, 3, 3)
    """The similarity of the plane that takes the rotated mean to the landmarks.

    Its linear part, points as complex numbers, is sum w conj(a) b / sum w |a|^2: it cannot reflect.
    """
    share = problem.weights / problem.weights.sum(1, keepdim=True)
    rotated = problem.mean @ rotation.transpose(1, 2)  # (B, K, 3)
    rotated_mean = (share[..., None] * rotated).sum(1)
    target_mean = (share[..., None] * problem.target).sum(1)
    source, target = (
        torch.view_as_complex(centred[..., :2].contiguous())
        for centred in (rotated - rotated_mean[:, None], problem.target - target_mean[:, None])
    )
    linear = (share * source.conj() * target).sum(1) / (share * source.abs().square()).sum(1)
    angles = torch.zeros_like(rotated_mean)
    angles[:, 2] = -linear.angle()
    in_plane = camera.rotation_from_angles(angles)
    moved = linear.abs()[:, None] * (in_plane @ rotated_mean[..., None]).squeeze(-1)
    return State(
        scale=linear.abs(),
        rotation=in_plane @ rotation,
        translation=target_mean - moved[:, : problem.target.shape[-1]],
        coefficients=linear.abs()[:, None][:, :0],
    )


def _on_outline(
    model: MorphableModel,
    state: State,
    jaw_paths: Tensor,  # (17, M)
) -> Tensor:
    """For each jaw landmark the vertex of its path that lies farthest out, (B, 17)."""
    basis = model.basis[:, jaw_paths].double()  # (S + E, 17, M, 3)
    vertices = model.mean[jaw_paths] + torch.einsum("bc,cjmx->bjmx", state.coefficients, basis)
    # Out is square to the face's upright axis in the picture, the first half to its left.
    up = state.rotation[:, :2, 1]
    right = torch.stack([up[:, 1], -up[:, 0]], -1)
    direction = (right[:, None] @ state.rotation[:, :2]).squeeze(1)  # (B, 3), model frame
    side = torch.sign(torch.arange(NUM_JAW, device=up.device) - NUM_JAW // 2)
    reach = side[:, None] * torch.einsum("bx,bjmx->bjm", direction, vertices)
    rows = torch.arange(NUM_JAW, device=up.device)
    return jaw_paths[rows, reach.argmax(-1)]


def _at_vertices(problem: Problem, model: MorphableModel, jaw: Tensor) -> Problem:  # (B, 17)
    """The problem with each item's jaw landmarks at these vertices."""
    rest = torch.arange(NUM_JAW, problem.target.shape[1], device=jaw.device)
    index = torch.cat([jaw, rest.expand(len(jaw), -1)], 1)  # (B, K)
    return problem._replace(
        mean=model.mean[index].double(),
        basis=model.basis[:, index].double().transpose(0, 1),
    )


def _size(points: Tensor, weights: Tensor) -> Tensor:  # (B, K, D), (B, K)
    """sqrt(w h) of the bounding box of the points that have a weight, (B,)."""
    unseen = (weights <= 0)[..., None]
    low = points[..., :2].masked_fill(unseen, torch.inf).amin(1)
    high = points[..., :2].masked_fill(unseen, -torch.inf).amax(1)
    return (high - low).prod(-1).sqrt()


def _require_arguments(
    model: MorphableModel,
    landmarks: Tensor,
    weights: Tensor,
    image_height: Tensor,
    shape_std: Tensor,
    exp_std: Tensor,
    jaw_paths: Tensor | None,
    loss: str,
) -> None:
    if landmarks.ndim != 3 or landmarks.shape[-1] not in (2, 3):
        raise ValueError(
            f"landmarks: got shape {tuple(landmarks.shape)}, expected (B, K, 2) or (B, K, 3)"
        )
    if jaw_paths is None and model.num_vertices != landmarks.shape[1]:
        raise ValueError(
            f"got {landmarks.shape[1]} landmarks for a model of {model.num_vertices} vertices; "
            "reduce it with landmark_model"
        )
    if jaw_paths is not None and (jaw_paths.ndim != 2 or len(jaw_paths) != NUM_JAW):
        raise ValueError(f"jaw_paths: got {tuple(jaw_paths.shape)}, expected ({NUM_JAW}, M)")
    for name, values, expected in (
        ("weights", weights, landmarks.shape[:2]),
        ("image_height", image_height, landmarks.shape[:1]),
        ("shape_std", shape_std, (model.num_shape,)),
        ("exp_std", exp_std, (model.num_exp,)),
    ):
        if tuple(values.shape) != tuple(expected):
            raise ValueError(f"{name}: got {tuple(values.shape)}, expected {tuple(expected)}")
    for name, std in (("shape_std", shape_std), ("exp_std", exp_std)):
        if not (std > 0).all():
            raise ValueError(f"{name}: expected values above 0, or infinity for no prior")
    require_choice("loss", loss, LOSSES)
    reasons = [
        f"item {item}: {reason}"
        for item, reason in enumerate(map(unfit_reason, landmarks, weights))
        if reason is not None
    ]
    if reasons:
        raise ValueError("; ".join(reasons))
