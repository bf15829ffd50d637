"""Checks of fits before training: unusual angles, scales, number types and landmarks."""

import math

import numpy as np

from prnet.datasets.fits import FitFile
from prnet.geometry.camera import pixel_origin_shift

LARGE_ANGLE_DEG = 99.0
# BFM-2009 with 300W-LP's expressions: only with all of them do decoded landmarks meet `pt3d_68`.
FULL_BASES = (199, 29)
FULL_BASES_MISMATCH_PX = 1.0
MISMATCH_BOX_SHARE = 0.25
JAW = 17


class Audit:
    """Fits that are unusual, listed by name and kind; they stay in the set."""

    def __init__(self, *, full_bases: bool) -> None:
        self.full_bases = full_bases
        self.lists = {
            "large_angles": [],
            "negative_scale": [],
            "cast_dtypes": {},  # name -> keys
            "landmark_mismatch": {},  # name -> px
            "landmarks_unchecked": [],
        }

    def check(
        self,
        name: str,
        file: FitFile,
        landmarks: np.ndarray,  # (68, 3), decoded, image px
        pixel_origin: str,
    ) -> None:
        if np.abs(np.degrees(file.fit.angles)).max() > LARGE_ANGLE_DEG:
            self.lists["large_angles"].append(name)
        if file.fit.scale < 0:
            self.lists["negative_scale"].append(name)
        if file.cast_keys:
            self.lists["cast_dtypes"][name] = list(file.cast_keys)

        shift = np.array([*pixel_origin_shift(pixel_origin, "matlab"), 0.0])
        decoded = landmarks + shift
        limit = FULL_BASES_MISMATCH_PX
        if file.landmarks is not None:
            annotated = file.landmarks
        elif file.landmarks_2d is not None:
            # Hand-labelled points never coincide with a fit, and their jaw follows the outline of
            # the face: at large yaw it is up to 50 px from the model's jaw, so it is left out.
            annotated, decoded, limit = file.landmarks_2d[JAW:], decoded[JAW:, :2], None
        else:
            self.lists["landmarks_unchecked"].append(name)
            return
        if limit is None or not self.full_bases:
            sides = np.ptp(file.landmarks_2d if limit is None else annotated, axis=0)[:2]
            limit = MISMATCH_BOX_SHARE * math.sqrt(sides.prod())
        distance = float(np.linalg.norm(decoded - annotated, axis=1).max())
        if distance > limit:
            self.lists["landmark_mismatch"][name] = round(distance, 3)
