"""The 51 ARKit coefficients of a face, bounded, and the layout of Live Link Face.

Letters: E expression coefficients, N vertices.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import lsq_linear

from prnet.faces.face import Face

# Columns of a recording of Live Link Face, in its order and with its capitals; the package's names
# begin in lower case. `TongueOut` and the nine angles have no counterpart among the shapes.
LIVE_LINK_SHAPES = (
    "EyeBlinkLeft",
    "EyeLookDownLeft",
    "EyeLookInLeft",
    "EyeLookOutLeft",
    "EyeLookUpLeft",
    "EyeSquintLeft",
    "EyeWideLeft",
    "EyeBlinkRight",
    "EyeLookDownRight",
    "EyeLookInRight",
    "EyeLookOutRight",
    "EyeLookUpRight",
    "EyeSquintRight",
    "EyeWideRight",
    "JawForward",
    "JawRight",
    "JawLeft",
    "JawOpen",
    "MouthClose",
    "MouthFunnel",
    "MouthPucker",
    "MouthRight",
    "MouthLeft",
    "MouthSmileLeft",
    "MouthSmileRight",
    "MouthFrownLeft",
    "MouthFrownRight",
    "MouthDimpleLeft",
    "MouthDimpleRight",
    "MouthStretchLeft",
    "MouthStretchRight",
    "MouthRollLower",
    "MouthRollUpper",
    "MouthShrugLower",
    "MouthShrugUpper",
    "MouthPressLeft",
    "MouthPressRight",
    "MouthLowerDownLeft",
    "MouthLowerDownRight",
    "MouthUpperUpLeft",
    "MouthUpperUpRight",
    "BrowDownLeft",
    "BrowDownRight",
    "BrowInnerUp",
    "BrowOuterUpLeft",
    "BrowOuterUpRight",
    "CheekPuff",
    "CheekSquintLeft",
    "CheekSquintRight",
    "NoseSneerLeft",
    "NoseSneerRight",
    "TongueOut",
)
LIVE_LINK_ANGLES = (
    *("HeadYaw", "HeadPitch", "HeadRoll"),
    *("LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll"),
    *("RightEyeYaw", "RightEyePitch", "RightEyeRoll"),
)
LIVE_LINK_COLUMNS = ("Timecode", "BlendShapeCount", *LIVE_LINK_SHAPES, *LIVE_LINK_ANGLES)
# What one unit of a coefficient costs beside the vertices' squared distances, share of the mean
# square of a shape: shapes that look alike share what they explain together.
RIDGE = 1e-3


class BoundedExpression:
    """The coefficients in [0, 1] whose face lies nearest to that of given ones."""

    def __init__(self, face: Face) -> None:
        """Raises ValueError for a face whose expressions have no names: such have no bounds."""
        if face.exp_names is None:
            raise ValueError(
                f"face={face.name}: its expressions have no names, so there are no ARKit "
                "coefficients; use a network of face=embedded"
            )
        model = face.morphable_model
        rows = model.basis[model.num_shape :].cpu().double().flatten(1).numpy()  # (E, 3 N)
        gram = rows @ rows.T
        self.names = face.exp_names
        self.mean_square = float(np.trace(gram)) / len(gram)
        self.root = np.linalg.cholesky(gram + 1e-9 * self.mean_square * np.eye(len(gram))).T

    def __call__(self, coefficients: np.ndarray) -> np.ndarray:  # (E,)
        """(E,), the least squared distance of all vertices, by bounded least squares."""
        ridge = np.sqrt(RIDGE * self.mean_square) * np.eye(len(coefficients))
        matrix = np.concatenate([self.root, ridge])
        target = np.concatenate([self.root @ coefficients, np.zeros(len(coefficients))])
        found = lsq_linear(matrix, target, bounds=(0.0, 1.0), method="bvls")
        return found.x.clip(0, 1)


_made: dict[tuple, BoundedExpression] = {}


def bounded_expression(face: Face) -> BoundedExpression:
    """That of a face, made once in a process."""
    key = face.name, face.fingerprint
    if key not in _made:
        _made[key] = BoundedExpression(face)
    return _made[key]


def named_values(names: Sequence[str], coefficients: np.ndarray) -> dict[str, float]:  # (E,)
    """The coefficients as JSON has them."""
    pairs = zip(names, coefficients, strict=True)
    return {name: round(float(value), 4) for name, value in pairs}


def live_link_row(
    names: Sequence[str],
    coefficients: np.ndarray,  # (E,)
    *,
    timecode: str,
    angles_deg: np.ndarray,  # (3,), pitch, yaw, roll of `prnet`
) -> list[str]:
    """One line of the layout: angles in radians, what has no counterpart 0."""
    known = {
        name[0].upper() + name[1:]: value for name, value in zip(names, coefficients, strict=True)
    }
    pitch, yaw, roll = np.radians(angles_deg)
    numbers = [float(known.get(name, 0.0)) for name in LIVE_LINK_SHAPES]
    numbers += [yaw, pitch, roll] + [0.0] * 6
    return [timecode, str(len(LIVE_LINK_SHAPES)), *(f"{number:.6f}" for number in numbers)]


def time_code(time_s: float, fps: float) -> str:
    """Live Link Face's, HH:MM:SS:FF.mmm: whole frames of the rounded rate, without drops, and
    thousandths of a frame."""
    rate = max(round(fps), 1)
    thousandths = round(time_s * fps * 1000)
    frames, part = divmod(thousandths, 1000)
    seconds, frame = divmod(frames, rate)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{frame:02d}.{part:03d}"
