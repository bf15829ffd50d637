"""Textured head scans rendered as PRN and SADRNet test on Florence (MICC): pictures and the true
points, in the layout that `prnet.datasets.florence` reads."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from prnet.building.resumable import log_reasons, planned, require_most, resumable, some_reasons
from prnet.building.scan_files import (
    SubjectScans,
    find_scans,
    read_landmarks,
    read_scan,
    require_trimesh,
)
from prnet.building.scan_fitting import fit_face
from prnet.building.scan_rendering import MILLIMETRES, RenderRule, locate, place, render, transform
from prnet.datasets.florence import FOLDER, RULE_FILE, SUBJECT_FILE
from prnet.datasets.pictures import decode_picture, write_picture
from prnet.drawing.pictures import tile
from prnet.faces.embedded import load_embedded
from prnet.faces.face import Face
from prnet.files import of_one_file, read_npz, write_json, written_whole
from prnet.geometry import camera

log = logging.getLogger(__name__)

SHEET_CELL, SHEET_COLUMNS = 192, 5
SECONDS = 5.0  # of work in a subject, about


def build_florence(
    data_dir: Path | str,
    output: Path | str,
    rule: RenderRule,
    *,
    workers: int = 0,
) -> Path:
    """Render every scan of DATA_DIR/Florence in every pose; returns the folder.

    A subject that is finished is left alone. One that cannot be used is named in a warning.

    Raises:
        FileNotFoundError: no scans.
        ValueError: the folder holds renderings of another rule, or no scan can be used.
    """
    files = find_scans(Path(data_dir) / "Florence", rule.scans)
    require_trimesh(files)
    folder = Path(output) / FOLDER
    face = load_embedded().describe()
    with planned(folder, dataset="florence", face=face, **rule._asdict()):
        # A test set of its own: readers need the rule, not how the build went.
        write_json(folder / RULE_FILE, {"format": 1, **rule._asdict()})
        failed = resumable(
            folder,
            [[file] for file in files],
            functools.partial(_write_subject, folder=folder, rule=rule),
            load_embedded,
            lambda subject: folder / subject.name / SUBJECT_FILE,
            title="render",
            unit="subject",
            seconds=SECONDS,
            workers=workers,
        )
    log_reasons(failed, what="left out")
    if len(failed) == len(files):
        raise ValueError(
            f"no scan of {Path(data_dir) / 'Florence'} can be used: {some_reasons(failed)}"
        )
    require_most(folder, len(files) - len(failed), failed)
    return folder


def _write_subject(
    piece: Sequence[SubjectScans], face: Face, *, folder: Path, rule: RenderRule
) -> dict[str, str]:
    """All renderings of the one subject of a piece; why there are none, if so."""
    (file,) = piece
    reasons = []
    for path in file.paths:
        try:
            # Marks are of the scan that is taken first.
            marked = read_landmarks(file.landmarks) if file.landmarks and not reasons else {}
            unit = MILLIMETRES[rule.unit]
            scan = read_scan(path)
            scan = scan._replace(vertices=unit * scan.vertices)
            marks = {index: unit * point for index, point in marked.items()}
            fit = fit_face(scan.vertices, scan.triangles, face, marks)
            located = locate(scan, fit, rule)
            break
        except (ValueError, OSError) as error:
            if not of_one_file(error):
                raise
            reasons.append(str(error))
    else:
        return {file.name: "; ".join(reasons)}
    for pitch in rule.pitch_deg:
        for yaw in rule.yaw_deg:
            name = f"{file.name}_p{pitch:+g}_y{yaw:+g}"
            image_from_scan = place(located.region, pitch, yaw, rule)
            picture = render(located.scan, image_from_scan, rule)
            write_picture(folder / file.name / f"{name}.png", picture)
            with written_whole(folder / file.name / f"{name}.npz") as temporary:
                np.savez_compressed(
                    temporary,
                    vertices=transform(image_from_scan, located.region).astype(np.float32),
                    outer_eyes=transform(image_from_scan, located.outer_eyes),
                    pitch_deg=pitch,
                    yaw_deg=yaw,
                )
    angles = camera.angles_from_rotation(torch.from_numpy(fit.rotation)).rad2deg()
    eyes = located.outer_eyes
    summary = {
        "scan": str(path),
        "skipped": reasons,
        "marked": sorted(marked),
        "pitch_yaw_roll_deg": [round(angle, 2) for angle in angles.tolist()],
        "fit_residual_mm": round(fit.residual, 3),
        "outer_eye_mm": round(float(np.linalg.norm(eyes[0] - eyes[1])), 3),
        "points": len(located.region),
    }
    write_json(folder / file.name / SUBJECT_FILE, summary)
    return {}


def write_renderings_sheet(folder: Path, *, count: int) -> None:
    """FOLDER/contact_sheet.png of the first `count` renderings, true points drawn below each."""
    cells = []
    for path in sorted(folder.glob("*/*.npz"))[:count]:
        picture = decode_picture(path.with_suffix(".png").read_bytes(), source=path)
        truth = read_npz(path, "vertices", "outer_eyes", hint="build it again")
        drawn = picture.copy()
        for name, color in (("vertices", (0, 255, 0)), ("outer_eyes", (255, 0, 0))):
            pixels = np.rint(truth[name][:, :2]).astype(int)
            column, row = pixels[((pixels >= 0) & (pixels < len(drawn))).all(1)].T
            drawn[row, column] = color
        pair = np.concatenate([picture, drawn])
        cells.append(cv2.resize(pair, (SHEET_CELL, 2 * SHEET_CELL), interpolation=cv2.INTER_AREA))
    write_picture(folder / "contact_sheet.png", tile(cells, columns=SHEET_COLUMNS))
