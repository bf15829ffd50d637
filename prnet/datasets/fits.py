"""3DMM fits as 300W-LP and AFLW2000-3D store them, and where their files lie.

A fit is a `.mat` beside a picture of the same stem: `Pose_Para` = pitch, yaw, roll (rad), t_x, t_y,
t_z (px of the y-up plane), f (px per model unit); `Shape_Para`; `Exp_Para`; AFLW2000-3D adds
`pt3d_68`.
"""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from prnet.checks import require_finite
from prnet.files import read_mat, visible_files, written_whole
from prnet.geometry import camera
from prnet.geometry.morphable_model import MorphableModel
from prnet.sample import Fit

log = logging.getLogger(__name__)

SUBSETS_300W_LP = tuple(
    subset + flip for subset in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip")
)
# Folders of the official archive that hold no samples.
NOT_SUBSETS = ("Code", "landmarks")
# Lengths of the coefficient vectors in 300W-LP's files, whatever the model at hand holds.
BFM_FILE_LENGTHS = (199, 29)
FILE_LENGTHS = {"bfm": BFM_FILE_LENGTHS, "embedded": (80, 51)}
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
# 68 landmarks span this at least, px; none is so many times farther than most from their middle:
# on AFLW2000-3D it is 1.5 to 3.6 times.
LEAST_SPAN, MOST_REACH = 2.0, 10.0
# No pose or coefficient of a fit is larger; those of 300W-LP go to some 1e7.
MOST_PARAMETER = 1e12
HINT_AFLW2000 = "unpack AFLW2000-3D so that DATA_DIR/AFLW2000/image00002.jpg and .mat exist"
HINT_300W_LP = "unpack 300W-LP so that DATA_DIR/300W_LP/AFW/*.jpg and *.mat exist"


class FitFile(NamedTuple):
    """The content of one `.mat`."""

    fit: Fit
    landmarks: np.ndarray | None  # (68, 3), `pt3d_68`: image px, pixel origin "matlab"
    landmarks_2d: np.ndarray | None  # (68, 2), `pt2d` where it has all 68: labels, px, "matlab"
    cast_keys: tuple[str, ...]  # arrays stored as integers (uint8 in 34 files of AFLW2000-3D)


class FacePair(NamedTuple):
    """Where one sample comes from."""

    name: str  # SUBSET/STEM, for AFLW2000-3D the STEM
    picture: Path
    fit: Path

    def read_picture(self) -> bytes:
        """The bytes of the picture's file.

        Raises:
            OSError: it cannot be read, or is not there; other than FileNotFoundError where its fit
                is gone too, since one of the two was there to be found.
        """
        if not self.picture.is_file():
            if not self.fit.is_file():
                raise OSError(errno.ENODEV, "gone since it was found", str(self.picture))
            raise FileNotFoundError(f"no picture {self.picture.name} beside the fit")
        return self.picture.read_bytes()


def read_fit(path: Path) -> FitFile:
    """Read one fit; every array becomes float64 before any arithmetic.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, a key is missing, a length is wrong, or a value is not finite.
    """
    content = read_mat(path, hint="every picture needs the .mat of its fit beside it")
    arrays = {key: value for key, value in content.items() if not key.startswith("__")}
    cast_keys = tuple(
        sorted(
            key
            for key, value in arrays.items()
            if value.dtype.kind in "iub" and (key.endswith("_Para") or key.startswith("pt"))
        )
    )
    pose = _vector(arrays, "Pose_Para", path)
    if len(pose) != 7:
        raise ValueError(
            f"{path}: Pose_Para has {len(pose)} values, expected 7: pitch, yaw, roll, t (3), scale"
        )
    fit = Fit(
        shape_params=_vector(arrays, "Shape_Para", path),
        exp_params=_vector(arrays, "Exp_Para", path),
        angles=pose[:3],
        translation=pose[3:6],
        scale=float(pose[6]),
    )
    if fit.scale == 0:
        raise ValueError(f"{path}: Pose_Para has scale 0: the fit is a single point")
    landmarks = None
    if "pt3d_68" in arrays:
        landmarks = np.asarray(arrays["pt3d_68"], dtype=np.float64).T
        if landmarks.shape != (68, 3):
            raise ValueError(f"{path}: pt3d_68 has shape {landmarks.T.shape}, expected (3, 68)")
        require_finite(f"{path}: pt3d_68", landmarks)
        if "pt3d_68" in cast_keys:
            raise ValueError(
                f"{path}: pt3d_68 holds {arrays['pt3d_68'].dtype}: px cut to whole numbers of that "
                "range; save it as double"
            )
        _require_px(f"{path}: pt3d_68", landmarks[:, :2])
    landmarks_2d = arrays.get("pt2d")
    if landmarks_2d is not None:
        # AFLW2000-3D's pt2d has 21 or 23 columns, -1 where invisible: not these 68 points.
        complete = landmarks_2d.shape == (2, 68)
        landmarks_2d = np.asarray(landmarks_2d, dtype=np.float64).T if complete else None
        if complete:
            require_finite(f"{path}: pt2d", landmarks_2d)
            _require_px(f"{path}: pt2d", landmarks_2d)
    return FitFile(fit, landmarks, landmarks_2d, cast_keys)


def _require_px(what: str, points: np.ndarray) -> None:  # (68, 2)
    """Raise ValueError where points cannot be px of a face: within 2 px, or one so far from the
    others that their box is its own."""
    reach = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    if np.ptp(points, axis=0).max() < LEAST_SPAN:
        raise ValueError(f"{what} lies within {LEAST_SPAN:g} px; expected px, not shares of it")
    if reach.max() > MOST_REACH * np.median(reach):
        worst = int(reach.argmax())
        x, y = points[worst]
        raise ValueError(f"{what} has landmark {worst} at ({x:.5g}, {y:.5g}), far from the others")


def write_fit(
    path: Path | str,
    fit: Fit,
    *,
    height: int,
    width: int,
    landmarks: np.ndarray,  # (68, 3), px, pixel origin "matlab"
    with_depth: bool,
) -> None:
    """One fit in 300W-LP's format, read back by `read_fit` as it was.

    `with_depth` also stores the landmarks as AFLW2000-3D's `pt3d_68`, beside the `pt2d` of both
    archives. `roi` is the whole picture.
    """
    import scipy.io

    pose = np.concatenate([fit.angles, fit.translation, [fit.scale]])
    content = {
        "Pose_Para": pose[None],
        "Shape_Para": fit.shape_params[:, None],
        "Exp_Para": fit.exp_params[:, None],
        "pt2d": landmarks.T[:2],
        "roi": np.array([[1, 1, width, height]], dtype=np.int16),
    }
    if with_depth:
        content["pt3d_68"] = landmarks.T
    with written_whole(path) as temporary:
        scipy.io.savemat(temporary, content)


def _vector(arrays: dict, key: str, path: Path) -> np.ndarray:
    if key not in arrays:
        raise ValueError(f"{path}: no {key}, found {sorted(arrays)}; expected a fit of 300W-LP")
    vector = np.asarray(arrays[key])
    if vector.dtype.kind not in "iubf":
        raise ValueError(f"{path}: {key} holds {vector.dtype}, expected real numbers")
    vector = vector.astype(np.float64).ravel()
    require_finite(f"{path}: {key}", vector)
    if np.abs(vector).max(initial=0) > MOST_PARAMETER:
        raise ValueError(f"{path}: {key} holds {np.abs(vector).max():.3g}, which no fit has")
    return vector


def fit_matrix(fit: Fit, image_height: int, *, pixel_origin: str = "zero_based") -> torch.Tensor:
    """`camera.image_from_model` of one fit, (4, 4), float64: model frame -> image px."""
    return fit_matrices([fit], [image_height], pixel_origin=pixel_origin)[0]


def fit_matrices(
    fits: Sequence[Fit], image_heights: Sequence[int], *, pixel_origin: str = "zero_based"
) -> torch.Tensor:
    """`fit_matrix` of each, (B, 4, 4)."""
    return camera.image_from_model(
        torch.tensor([fit.scale for fit in fits], dtype=torch.float64),
        torch.from_numpy(np.stack([fit.angles for fit in fits])),
        torch.from_numpy(np.stack([fit.translation for fit in fits])),
        torch.tensor(image_heights, dtype=torch.float64),
        pixel_origin=pixel_origin,
    )


def pad_params(params: np.ndarray, count: int) -> np.ndarray:
    """The leading `count` coefficients; zeros stand for those a shorter fit does not have."""
    padded = np.zeros(count)
    kept = min(count, len(params))
    padded[:kept] = params[:kept]
    return padded


class FitOfAnotherFace(ValueError):
    """All of an archive's are, and none is to be left out."""


def require_fit_of(face_name: str, fit: Fit, *, source: object) -> None:
    """Raise FitOfAnotherFace where a fit has as many coefficients as those of another face have:
    decoded by this one it would be some face in the same pose."""
    lengths = len(fit.shape_params), len(fit.exp_params)
    owners = [name for name, own in FILE_LENGTHS.items() if own == lengths]
    if owners and face_name in FILE_LENGTHS and face_name not in owners:
        raise FitOfAnotherFace(
            f"{source}: {lengths[0]} shape and {lengths[1]} expression coefficients, a fit of "
            f"face={owners[0]}; this is face={face_name}: give face={owners[0]}"
        )


def decode_vertices(model: MorphableModel, fit: Fit) -> torch.Tensor:
    """Vertices of one fit in the model frame, (N, 3), in the model's precision."""
    dtype = model.mean.dtype
    shape_params = torch.from_numpy(pad_params(fit.shape_params, model.num_shape)).to(dtype)
    exp_params = torch.from_numpy(pad_params(fit.exp_params, model.num_exp)).to(dtype)
    return model(shape_params[None], exp_params[None])[0]


def find_aflw2000(data_dir: Path | str) -> list[FacePair]:
    """The pairs of DATA_DIR/AFLW2000, sorted by name.

    Raises:
        FileNotFoundError: no folder, or no picture in it.
    """
    folder = Path(data_dir) / "AFLW2000"
    pairs = _pairs(folder, prefix="")
    if not pairs:
        raise FileNotFoundError(f"{folder}: no picture found; {HINT_AFLW2000}")
    return pairs


def find_300w_lp(data_dir: Path | str, subsets: list[str] | None = None) -> list[FacePair]:
    """The pairs of DATA_DIR/300W_LP, sorted by name.

    `subsets` None takes the eight official sub-folders; a warning names those that are not there.

    Raises:
        FileNotFoundError: a sub-folder named in `subsets` is missing, or nothing was found at all.
        ValueError: `subsets` names a folder that is never a sub-set, or names none.
    """
    root = Path(data_dir) / "300W_LP"
    if subsets is None:
        subsets = [subset for subset in SUBSETS_300W_LP if (root / subset).is_dir()]
        if not subsets:
            others = _other_pairs(root)
            own = f"'dataset.subsets=[{','.join(others)}]'" if others else "dataset.subsets=[...]"
            there = f" (there is {_counted(root, others)})" if others else ""
            raise FileNotFoundError(
                f"{root}: none of {', '.join(SUBSETS_300W_LP)} found; {HINT_300W_LP}, "
                f"or name your own sub-folders with {own}{there}"
            )
        for subset in SUBSETS_300W_LP:
            if subset not in subsets:
                log.warning("skipped: %s is not there", root / subset)
        _name_others(root, subsets)
    else:
        if not subsets:
            raise ValueError("dataset.subsets is empty: name at least one sub-folder of 300W_LP")
        for subset in subsets:
            if subset in NOT_SUBSETS:
                raise ValueError(f"dataset.subsets: {subset!r} holds no samples of 300W-LP")
            if not (root / subset).is_dir():
                there = sorted(p.name for p in root.glob("*/") if p.name not in NOT_SUBSETS)
                raise FileNotFoundError(f"{root / subset}: missing; sub-folders there: {there}")
    subsets = sorted(set(subsets))
    pairs = [pair for subset in subsets for pair in _pairs(root / subset, f"{subset}/")]
    if not pairs:
        raise FileNotFoundError(f"{root}: no picture in {subsets}; {HINT_300W_LP}")
    return pairs


def _name_others(root: Path, taken: list[str]) -> None:
    """Say which other folders hold pairs, and how to take them."""
    found = _other_pairs(root)
    if found:
        log.warning(
            "not taken: %s; these are no folders of 300W-LP. To take them, too: "
            "'dataset.subsets=[%s]'",
            _counted(root, found),
            ",".join([*taken, *found]),
        )


def _other_pairs(root: Path) -> dict[str, int]:
    """How many pairs the folders hold that are none of 300W-LP's."""
    counts = {
        folder.name: sum(pair.fit.is_file() for pair in _pairs(folder, ""))
        for folder in sorted(root.glob("*/"))
        if folder.name not in (*SUBSETS_300W_LP, *NOT_SUBSETS) and not folder.name.startswith(".")
    }
    return {name: count for name, count in counts.items() if count}


def _counted(root: Path, found: dict[str, int]) -> str:
    return ", ".join(f"{root / name} ({count} pairs)" for name, count in found.items())


def pictures_in(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by stem, of one stem the first by name."""
    found: dict[str, Path] = {}
    for path in visible_files(folder, PICTURE_SUFFIXES):
        found.setdefault(path.stem, path)
    return found


def _pairs(folder: Path, prefix: str) -> list[FacePair]:
    """Every picture of a folder with the fit expected beside it; also fits whose picture is
    missing."""
    if not folder.is_dir():
        return []
    pictures = pictures_in(folder)
    fits = {path.stem: path for path in visible_files(folder, [".mat"])}
    return [
        FacePair(
            f"{prefix}{stem}",
            pictures.get(stem, folder / f"{stem}.jpg"),
            fits.get(stem, folder / f"{stem}.mat"),
        )
        for stem in sorted(pictures.keys() | fits)
    ]
