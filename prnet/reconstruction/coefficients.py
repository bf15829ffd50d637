"""The coefficients of a reconstructed face, whatever its network predicts.

Letters: T texels, S shape and E expression coefficients.
"""

from typing import NamedTuple

import numpy as np
import torch

from prnet.geometry.fitting import fit_landmarks
from prnet.geometry.morphable_model import MorphableModel
from prnet.reconstruction.arkit import bounded_expression
from prnet.reconstruction.reconstructor import FaceReconstruction

# Every so many rows and columns a texel of the map is fitted: some 1,500 of the embedded face.
STEP = 4
# How far a predicted texel may lie from the face, in units of its size: the weight of the map
# beside the prior of the coefficients.
TEXEL_STD = 0.01


class Coefficients(NamedTuple):
    """Of one face with named expressions; float32."""

    names: tuple[str, ...]  # (E,), ARKit's
    shape_params: np.ndarray  # (S,)
    exp_params: np.ndarray  # (E,), in [0, 1]


def named_coefficients(face: FaceReconstruction) -> Coefficients:
    """Those that were predicted, the expression bounded (`BoundedExpression`); of a network of
    maps those of the face that lies nearest to its map, with its pose, all found at once.

    Raises:
        ValueError: a face whose expressions have no names.
    """
    bounded = bounded_expression(face.face)
    if face.exp_params is not None:
        found = face.shape_params, bounded(face.exp_params)
    else:
        found = _fitted(face)
    return Coefficients(bounded.names, *(values.astype(np.float32) for values in found))


def _fitted(face: FaceReconstruction) -> tuple[np.ndarray, np.ndarray]:
    """Shape and expression, (S,) and (E,), of the face nearest to the map where it was learned."""
    uv, whole = face.face.uv, face.face.morphable_model
    row, column = uv.face_index // uv.resolution, uv.face_index % uv.resolution
    texels = uv.face_index[(row % STEP == 0) & (column % STEP == 0)]
    mean, basis = (uv.at_texels(at, texels).cpu() for at in (whole.mean[None], whole.basis))
    model = MorphableModel(mean[0], basis[: whole.num_shape], basis[whole.num_shape :])
    points = torch.from_numpy(face.position_map).flatten(1)[:, texels.cpu()].T
    fit = fit_landmarks(
        model,
        points[None],
        image_height=torch.tensor([float(len(face.picture))]),
        shape_std=face.face.shape_std.cpu(),
        exp_std=face.face.exp_std.cpu(),
        exp_bounds=(0.0, 1.0),
        landmark_std=TEXEL_STD,
        loss="squared",
    )
    return fit.shape_params[0].numpy(), fit.exp_params[0].numpy()
