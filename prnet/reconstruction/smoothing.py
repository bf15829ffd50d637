"""The one-euro filter, and faces of a video smoothed by it.

Source: Casiez, Roussel and Vogel, 1 euro Filter: A Simple Speed-based Low-pass Filter for Noisy
Input in Interactive Systems, CHI 2012, equations 1 to 9 and algorithm 1.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from prnet.reconstruction.reconstructor import FaceReconstruction, HeadPose

# Of the low-pass filter of the speed, Hz: the paper's.
SPEED_CUTOFF = 1.0


class Strength(NamedTuple):
    """How much one filter smooths."""

    min_cutoff: float  # Hz, of what does not move: lower trembles less
    beta: float  # Hz a unit of speed: higher lags less

    def cutoff(self, speed: np.ndarray) -> np.ndarray:
        """Equation 9: Hz."""
        return self.min_cutoff + self.beta * np.abs(speed)


class Smoothing(NamedTuple):
    """How much each of a face's parts is smoothed. Speeds are in sides of the face's box, radians
    and units of coefficients a second."""

    pose: Strength = Strength(0.5, 30.0)
    points: Strength = Strength(1.0, 40.0)  # of the mesh, in the frame of the head
    coefficients: Strength = Strength(1.0, 10.0)

    @classmethod
    def of(cls, **values: dict) -> "Smoothing":
        """Raises ValueError unless cutoffs are above and betas not below 0."""
        made = cls(**{name: Strength(**value) for name, value in values.items()})
        for name, strength in made._asdict().items():
            if not (strength.min_cutoff > 0 and strength.beta >= 0):
                raise ValueError(
                    f"smoothing.{name}: got min_cutoff {strength.min_cutoff} and beta "
                    f"{strength.beta}, expected above 0 and 0 or more"
                )
        return made


def share_of_new(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """How much of a new value a low-pass filter takes: equations 5 and 6."""
    time_constant = 1 / (2 * math.pi * cutoff)
    return 1 / (1 + time_constant / seconds)


class OneEuro:
    """Algorithm 1 for every number of an array."""

    def __init__(self, strength: Strength) -> None:
        self.strength = strength
        self.value: np.ndarray | None = None
        self.speed: np.ndarray | None = None
        self.time_s = 0.0

    def __call__(
        self,
        value: np.ndarray,
        time_s: float,  # later than at the call before
        *,
        unit: float = 1.0,  # of the values that speeds are measured in
    ) -> np.ndarray:
        """The smoothed value; the first one is itself."""
        value = np.asarray(value, np.float64)
        if self.value is None:
            self.value, self.speed = value, np.zeros_like(value)
        else:
            seconds = time_s - self.time_s
            speed = (value - self.value) / seconds
            self.speed = self.speed + share_of_new(SPEED_CUTOFF, seconds) * (speed - self.speed)
            share = share_of_new(self.strength.cutoff(self.speed / unit), seconds)
            self.value = self.value + share * (value - self.value)
        self.time_s = time_s
        return self.value


class RotationOneEuro:
    """Algorithm 1 for a rotation: its speed is that of the angle of the turn from the smoothed
    rotation to the new one, and a share of that turn is taken."""

    def __init__(self, strength: Strength) -> None:
        self.strength = strength
        self.value: Rotation | None = None
        self.speed = np.zeros(3)
        self.time_s = 0.0

    def __call__(self, matrix: np.ndarray, time_s: float) -> np.ndarray:  # (3, 3), det +1
        """The smoothed rotation, (3, 3)."""
        new = Rotation.from_matrix(matrix)
        if self.value is None:
            self.value = new
        else:
            seconds = time_s - self.time_s
            turn = (new * self.value.inv()).as_rotvec()
            self.speed += share_of_new(SPEED_CUTOFF, seconds) * (turn / seconds - self.speed)
            speed = float(np.linalg.norm(self.speed))
            share = share_of_new(self.strength.cutoff(speed), seconds)
            self.value = Rotation.from_rotvec(share * turn) * self.value
        self.time_s = time_s
        return self.value.as_matrix()


class FaceSmoother:
    """One face from frame to frame, for networks of maps and of parameters alike: the pose (place
    of the mesh's centre, size, rotation), the points in the frame of the head, and the
    coefficients."""

    def __init__(self, smoothing: Smoothing) -> None:
        self._place, self._size = OneEuro(smoothing.pose), OneEuro(smoothing.pose)
        self._rotation = RotationOneEuro(smoothing.pose)
        self._points = OneEuro(smoothing.points)
        self._coefficients = OneEuro(smoothing.coefficients)

    def __call__(self, face: FaceReconstruction, time_s: float) -> FaceReconstruction:
        """The face with its vertices, landmarks, pose and coefficients smoothed; its position map
        stays as predicted."""
        pose = face.pose
        up = np.concatenate([face.vertices, face.landmarks]) * [1.0, -1.0, 1.0]
        # Place and rotation are filtered apart, so the place is that of the middle, where an error
        # of the rotation moves nothing. The model's origin goes along as a point of the head.
        place = up[: len(face.vertices)].mean(0)
        points = (np.vstack([up, pose.translation]) - place) @ pose.rotation / pose.scale
        side = face.framing.size

        place = self._place(place, time_s, unit=side)
        scale = float(np.exp(self._size(np.log([pose.scale]), time_s))[0])
        rotation = self._rotation(pose.rotation, time_s)
        points = self._points(points, time_s, unit=side / pose.scale)
        up = scale * points @ rotation.T + place
        down = (up[:-1] * [1.0, -1.0, 1.0]).astype(np.float32)
        vertices, landmarks = np.split(down, [len(face.vertices)])
        return replace(
            face,
            vertices=vertices,
            landmarks=landmarks,
            pose=HeadPose(scale, rotation, up[-1]),
            **self._smoothed_coefficients(face, time_s),
        )

    def _smoothed_coefficients(self, face: FaceReconstruction, time_s: float) -> dict:
        if face.exp_params is None or face.shape_params is None:
            return {}
        both = np.concatenate([face.shape_params, face.exp_params])
        both = self._coefficients(both, time_s).astype(np.float32)
        shape_params, exp_params = np.split(both, [len(face.shape_params)])
        return {"shape_params": shape_params, "exp_params": exp_params}
