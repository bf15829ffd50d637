"""One face's texture on another face's geometry, blended into the photo.

Source: face texture editing of PRNet (demo_texture.py): the source's texture drawn at the target's
    vertices, its region pasted by Poisson blending (Perez et al., SIGGRAPH 2003).
"""

from collections.abc import Sequence

import cv2
import numpy as np

from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.reconstruction.reconstructor import FaceReconstruction
from prnet.reconstruction.rendering import seen_values, texture_colours
from prnet.reconstruction.texture import texture_of

WHOLE = "face"
PARTS = (WHOLE, "eyes", "nose", "mouth")
# Side of the texture over the size of the target's face, and its bounds.
TEXELS_A_PX, LEAST_TEXTURE, MOST_TEXTURE = 2.5, 256, 1024
# How far parts reach beyond the model's own regions and the whole face beyond its brows, share of
# the UV layout's side; how far it stays away from the jaw line, share of the way to the nose: there
# lie hair and what is behind, whose tone the blending would carry into the face.
REACH, INSET = 0.03, 0.1
# Over how much what was pasted fades into the photo, share of the face's size.
FADE = 0.02
# Of the 68 landmarks: one past the jaw's and the brows' last, the tip of the nose.
NUM_JAW, BROWS_END, BRIDGE_END = 17, 27, 30
# Blending looks at the pixels around the region; where it ends at the photo's border, copies of the
# border's stand for them.
AROUND = 8


def require_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Raise ValueError unless all of them are known, and there is one."""
    for name in parts:
        require_choice("parts", name, PARTS)
    if not parts:
        raise ValueError(f"parts: none given, choose among {', '.join(PARTS)}")
    return tuple(parts)


def swap_face(
    source: FaceReconstruction,
    target: FaceReconstruction,
    picture: np.ndarray | None = None,  # (H, W, 3), uint8 RGB; None: the target's
    *,
    parts: Sequence[str] = (WHOLE,),
) -> np.ndarray:
    """The target's picture with the source's face in its place: pose, expression and light stay the
    target's, eyes, skin and what is on it are the source's. Pixels beside the face stay as they
    are, to the bit.

    `picture` is what earlier swaps made of the target's. Whatever covers the target's face, hair or
    a hand, is painted over.
    """
    picture = target.picture if picture is None else picture
    height, width = picture.shape[:2]
    seen = seen_values(
        target.vertices, target.triangles, target.texture_coords, height=height, width=width
    )
    region = np.zeros((height, width), np.uint8)
    region[seen.rows, seen.columns] = _looked_up(parts_mask(target.face, parts), seen.values)
    if not region.any():
        return picture.copy()
    size = np.clip(TEXELS_A_PX * target.framing.size, LEAST_TEXTURE, MOST_TEXTURE)
    pasted = picture.copy()
    pasted[seen.rows, seen.columns] = texture_colours(
        texture_of(source, size=round(size)), seen.values
    )
    return _blended(pasted, picture, region, size=target.framing.size)


def parts_mask(face: Face, parts: Sequence[str]) -> np.ndarray:
    """The texels that parts cover, (H, W) bool."""
    uv = face.uv
    reach = round(REACH * uv.resolution)
    mask = np.zeros((uv.resolution, uv.resolution), np.uint8)
    if WHOLE in parts:
        cells = uv.landmark_cells.cpu().numpy()[:, ::-1].astype(np.float64)  # column, row
        jaw, brows = cells[:NUM_JAW], cells[NUM_JAW:BROWS_END]
        jaw += INSET * (cells[BRIDGE_END] - jaw)
        brows[:, 1] -= reach
        outline = cv2.convexHull(np.rint(np.concatenate([jaw, brows])).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 1)
    for part in parts:
        if part != WHOLE:
            values = uv.position_map(face.regions[part].float()[None, :, None])[0, 0]
            inside = (values > 0.5).cpu().numpy().astype(np.uint8)
            mask |= cv2.dilate(inside, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return (mask > 0) & uv.face_mask.cpu().numpy()


def _looked_up(mask: np.ndarray, coords: np.ndarray) -> np.ndarray:  # (H, W), bool; (P, 2)
    """The mask at places of the UV layout, (P,) bool."""
    last = len(mask) - 1
    column, row = np.rint(last * coords[:, 0]), np.rint(last * (1 - coords[:, 1]))
    within = (column >= 0) & (column <= last) & (row >= 0) & (row <= last)
    return within & mask[row.clip(0, last).astype(int), column.clip(0, last).astype(int)]


def _blended(
    pasted: np.ndarray,  # (H, W, 3), uint8
    picture: np.ndarray,  # (H, W, 3), uint8
    region: np.ndarray,  # (H, W), uint8, 1 where `pasted` is shown
    *,
    size: float,  # of the face, px
) -> np.ndarray:
    """`pasted` in the region, its gradients kept and its tone that of the picture around."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ring = [AROUND] * 4
    new, old = (
        cv2.copyMakeBorder(one[window], *ring, cv2.BORDER_REPLICATE) for one in (pasted, picture)
    )
    mask = cv2.copyMakeBorder(region[window], *ring, cv2.BORDER_CONSTANT, value=0)
    left, top, wide, high = cv2.boundingRect(mask)
    middle = left + wide // 2, top + high // 2
    cloned = cv2.seamlessClone(new, old, 255 * mask, middle, cv2.NORMAL_CLONE)
    inside = np.s_[AROUND:-AROUND, AROUND:-AROUND]
    share = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(FADE * size, 0.5))
    share = (np.clip(2 * share - 1, 0, 1) * mask)[inside][..., None]
    result = picture.copy()
    mixed = share * cloned[inside] + (1 - share) * picture[window]
    result[window] = np.rint(mixed).astype(np.uint8)
    return result
