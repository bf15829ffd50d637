"""`python -m prnet.fit`: 68 landmarks of photos -> 3DMM fits in 300W-LP's format."""

from prnet.command.running import run_verb

if __name__ == "__main__":
    run_verb("fit")  # ends here: options are read before what follows is imported

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from prnet.building.resumable import log_reasons, some_reasons
from prnet.checks import require_count
from prnet.datasets.fits import (
    BFM_FILE_LENGTHS,
    decode_vertices,
    find_300w_lp,
    fit_matrix,
    pad_params,
    write_fit,
)
from prnet.datasets.hidden_landmarks import require_in_picture
from prnet.datasets.landmark_files import LandmarkItem, find_landmarks, log_marks
from prnet.datasets.pictures import read_upright
from prnet.drawing.contact_sheet import archive_samples, write_sheet
from prnet.faces.face import Face
from prnet.faces.loading import load_face
from prnet.files import of_one_file, write_json, written_whole
from prnet.geometry import camera
from prnet.geometry.fitting import LandmarkFit, fit_landmarks, landmark_model, unfit_reason
from prnet.sample import Fit

log = logging.getLogger(__name__)

# The folder beside fit.json that `find_300w_lp` takes as a sub-set.
SUBSET = "Fitted"


class FitOptions(NamedTuple):
    """What decides a fit; None takes the face's own."""

    shape_std: float | tuple[float, ...] | None = None
    exp_std: float | tuple[float, ...] | None = None
    exp_bounds: tuple[float, float] | None = None
    use_depth: bool = False
    jaw: str = "fixed"
    landmark_std: float = 0.01
    loss: str = "huber"
    robust_scale: float = 0.03
    max_iterations: int = 200


def main(cfg: DictConfig) -> None:
    output = Path(cfg.output)
    require_count("batch_size", cfg.batch_size)
    require_count("fit.max_iterations", cfg.fit.max_iterations)
    items, failed = find_landmarks(
        cfg.landmarks, pictures=cfg.pictures, pixel_origin=cfg.pixel_origin, hidden=cfg.hidden
    )
    log_marks(items)
    face = load_face(**cfg.face)
    options = OmegaConf.to_container(cfg.fit)
    if options["exp_bounds"] == "auto":
        # Named expressions are weights: 0 is the neutral face, 1 the whole expression.
        options["exp_bounds"] = (0.0, 1.0) if face.exp_names is not None else None
    report = fit_photos(
        items, failed, face, FitOptions(**options), output=output, batch_size=cfg.batch_size
    )
    pairs = find_300w_lp(output, [SUBSET])
    pairs = [pair for pair in pairs if pair.fit.stem in report["images"]]
    log_reasons(report["failed"], what="not fitted")
    if cfg.contact_sheet:
        samples = archive_samples(pairs, face, count=cfg.contact_sheet)
        write_sheet(output / "contact_sheet.png", samples, face)
    log.info(
        "%s: %d fits, mean NME %.2f %%; %d not fitted, see fit.json",
        output,
        len(report["images"]),
        report["mean_nme"],
        len(report["failed"]),
    )


def fit_photos(
    items: Sequence[LandmarkItem],
    failed: dict[str, str],
    face: Face,
    options: FitOptions,
    *,
    output: Path,
    batch_size: int,
) -> dict:
    """Fit every photo; write its .mat beside a copy of the picture, and fit.json; returns the
    latter's content.

    `failed` names the photos that could not be read; those that cannot be fitted join them.

    Raises:
        ValueError: nothing could be fitted, or options that do not suit the face.
    """
    model, jaw_paths = landmark_model(face.morphable_model, face.landmark_index, jaw=options.jaw)
    shape_std, exp_std = prior_std(face, options)
    failed = dict(failed)
    images: dict[str, dict] = {}
    errors: list[Tensor] = []
    bar = tqdm(total=len(items), desc="fit", unit="photo")
    for start in range(0, len(items), batch_size):
        photos = []
        for item in items[start : start + batch_size]:
            try:
                photos.append(_load(item, options))
            except (OSError, ValueError) as error:
                if not of_one_file(error):
                    raise
                failed[item.name] = str(error)
        if photos:
            fits = fit_landmarks(
                model,
                torch.stack([photo.landmarks for photo in photos]),
                torch.stack([photo.weights for photo in photos]),
                image_height=torch.tensor([float(photo.height) for photo in photos]),
                shape_std=shape_std,
                exp_std=exp_std,
                exp_bounds=options.exp_bounds,
                jaw_paths=jaw_paths,
                landmark_std=options.landmark_std,
                loss=options.loss,
                robust_scale=options.robust_scale,
                max_iterations=options.max_iterations,
            )
            for number, photo in enumerate(photos):
                images[photo.item.name] = _write(photo, fits, number, face, output)
                error = 100 * fits.residual[number] / fits.size[number]
                errors.append(error.where(photo.weights > 0, torch.nan))
        bar.update(min(batch_size, len(items) - start))
    bar.close()
    if not images:
        raise ValueError(f"not one photo could be fitted ({some_reasons(failed)})")
    report = {
        "face": face.describe(),
        "options": options._asdict(),
        "mean_nme": float(np.mean([entry["nme"] for entry in images.values()])),
        "mean_nme_per_landmark": _rounded(torch.stack(errors).nanmean(0)),
        "not_converged": [name for name, entry in images.items() if not entry["converged"]],
        "images": images,
        "failed": failed,
    }
    write_json(output / "fit.json", report)
    return report


def prior_std(face: Face, options: FitOptions) -> tuple[Tensor, Tensor]:
    """Standard deviations (S,) and (E,) of the coefficients among people, float64.

    Given as one number for all or one each; None takes the face's own. A BFM whose files have none
    takes laws for coefficient k = 0, 1, ... that follow the fits of AFLW2000-3D within a factor of
    2: 5.7e5 exp(-0.58 sqrt(k)) for shape and 2.2 (k + 1)^-0.75 for expression.

    Raises:
        ValueError: a list of another length than the face has coefficients.
    """
    order = torch.arange(max(face.morphable_model.num_shape, face.morphable_model.num_exp)).double()
    laws = (5.7e5 * torch.exp(-0.58 * order.sqrt()), 2.2 * (order + 1).pow(-0.75))
    found = []
    for name, law, count in (
        ("shape_std", laws[0], face.morphable_model.num_shape),
        ("exp_std", laws[1], face.morphable_model.num_exp),
    ):
        given, own = getattr(options, name), getattr(face, name)
        if given is None:
            found.append(law[:count] if own is None else own.double())
            continue
        values = torch.as_tensor(given, dtype=torch.float64)
        if values.ndim and len(values) != count:
            raise ValueError(f"{name}: got {len(values)} values, the face has {count} coefficients")
        found.append(values.expand(count))
    return found[0], found[1]


class _Photo(NamedTuple):
    item: LandmarkItem
    data: bytes  # of the picture, upright
    landmarks: Tensor  # (68, D), image px, 0 where not seen
    weights: Tensor  # (68,)
    height: int
    width: int


def _load(item: LandmarkItem, options: FitOptions) -> _Photo:
    """The landmarks to fit and the size of the picture.

    Raises:
        OSError, ValueError: the picture cannot be read, or no pose can be found.
    """
    data, picture = read_upright(item.picture)
    require_in_picture(item.landmarks, *picture.shape[:2])
    dims = 3 if options.use_depth else 2
    if item.landmarks.shape[1] < dims:
        raise ValueError("the landmarks have no z; use fit.use_depth=false")
    landmarks = torch.from_numpy(item.landmarks[:, :dims])
    weights = landmarks.isfinite().all(1).double()
    landmarks = landmarks.nan_to_num()
    reason = unfit_reason(landmarks, weights)
    if reason is not None:
        raise ValueError(reason)
    return _Photo(item, data, landmarks, weights, *picture.shape[:2])


def _write(photo: _Photo, fits: LandmarkFit, number: int, face: Face, output: Path) -> dict:
    """NAME.mat and a copy of the picture; returns what fit.json says about the photo."""
    shape_params, exp_params = fits.shape_params[number], fits.exp_params[number]
    lengths = BFM_FILE_LENGTHS if face.name == "bfm" else (len(shape_params), len(exp_params))
    fit = Fit(
        shape_params=pad_params(shape_params.numpy(), max(lengths[0], len(shape_params))),
        exp_params=pad_params(exp_params.numpy(), max(lengths[1], len(exp_params))),
        angles=fits.angles()[number].numpy(),
        translation=fits.translation[number].numpy(),
        scale=float(fits.scale[number]),
    )
    vertices = decode_vertices(face.morphable_model, fit)
    image_from_model = fit_matrix(fit, photo.height, pixel_origin="matlab")
    landmarks = camera.transform_points(image_from_model, vertices[face.landmark_index].double())

    folder = output / "300W_LP" / SUBSET
    with written_whole(folder / photo.item.picture.name) as temporary:
        temporary.write_bytes(photo.data)
    write_fit(
        folder / f"{photo.item.name}.mat",
        fit,
        height=photo.height,
        width=photo.width,
        landmarks=landmarks.numpy(),
        with_depth=True,
    )
    return {
        "nme": round(float(fits.nme[number]), 4),
        "converged": bool(fits.converged[number]),
        "iterations": int(fits.iterations[number]),
        "marked": photo.item.marks._asdict(),
        "pitch_yaw_roll_deg": [round(float(np.degrees(angle)), 3) for angle in fit.angles],
        "residual_px": _rounded(fits.residual[number].where(photo.weights > 0, torch.nan)),
    }


def _rounded(values: Tensor) -> list[float | None]:
    """Numbers for JSON; None stands for what was not seen."""
    return [None if np.isnan(value) else round(value, 4) for value in values.tolist()]
