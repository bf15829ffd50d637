"""The named expressions: ARKit's face units, exactly mirrored."""

import numpy as np
from scipy.sparse import csr_array

from embedded_face.wheel import FACE_UNITS, Wheel

# The tongue stays in the mouth: it would leave the surface that a position map can hold.
LEFT_OUT = ("tongueOut",)


def read_expressions(
    wheel: Wheel,
    combination: csr_array,  # (C, V)
    mirror: np.ndarray,  # (C,)
    eyeballs: np.ndarray,  # vertices of the eyeballs' caps without the lids' edge
) -> tuple[list[str], np.ndarray]:
    """Names and displacements at weight 1, (E, C, 3).

    The eyeballs do not turn: gaze is painted on them; the lids follow it.
    """
    files = {name.split("/")[-1].removesuffix(".target"): name for name in wheel.names(FACE_UNITS)}
    files = {name: file for name, file in files.items() if name not in LEFT_OUT}
    names = list(files)
    fields = np.stack(
        [combination @ wheel.target(file, combination.shape[1]) for file in files.values()]
    )
    partner = np.array([names.index(mirrored_name(name, names)) for name in names])
    fields = (fields + fields[partner][:, mirror] * [-1, 1, 1]) / 2
    fields[:, eyeballs] = 0
    return names, fields


def mirrored_name(name: str, names: list[str]) -> str:
    """`eyeBlinkLeft` -> `eyeBlinkRight`, `jawOpen` -> itself."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side) and name.removesuffix(side) + other in names:
            return name.removesuffix(side) + other
    return name
