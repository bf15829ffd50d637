"""Renderings of textured head scans, as PRN and SADRNet test on the Florence (MICC) scans.

`build_florence` renders, crops and writes the true points; `Florence` reads them as a test set:

OUTPUT/Florence_renderings/SUBJECT/SUBJECT_p+20_y-40.png   pitch and yaw, degrees
OUTPUT/Florence_renderings/SUBJECT/SUBJECT_p+20_y-40.npz   vertices (M, 3) float32, image px,
    zero_based, z toward the camera; outer_eyes (2, 3); pitch_deg, yaw_deg
OUTPUT/Florence_renderings/SUBJECT/subject.json            the scan, and what was found on it
OUTPUT/Florence_renderings/renderings.json                 the rule that all were made by
"""

import functools
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from prnet.datasets.evaluation import EvaluationItem, crop_picture
from prnet.datasets.pictures import CropRule, crop_square, decode_picture, write_picture
from prnet.datasets.scan_files import (
    ScanFile,
    find_scans,
    read_landmarks,
    read_scan,
    require_trimesh,
)
from prnet.datasets.scan_fitting import fit_face
from prnet.datasets.scan_rendering import (
    MILLIMETRES,
    RenderRule,
    locate,
    place,
    render,
    transform,
)
from prnet.datasets.workers import in_processes
from prnet.faces.embedded import load_embedded
from prnet.faces.face import Face
from prnet.files import read_json_object, take, write_json, written_whole
from prnet.geometry import camera

log = logging.getLogger(__name__)

FOLDER, RULE_FILE, SUBJECT_FILE = "Florence_renderings", "renderings.json", "subject.json"
HINT = "make them with `python -m prnet.build dataset=florence`"
# Mean side of the 68 landmarks' box over that of the region's, on the embedded mean face seen from
# the front: so that a crop scale means about the same here as where landmarks are framed.
LANDMARKS_SHARE = {"nose_radius": 0.894, "uv_mask": 0.866}
SHEET_CELL, SHEET_COLUMNS = 192, 5


class Florence(Dataset):
    """Renderings as evaluation items: `scan` and `outer_eye` are the truth, there are no landmarks.

    `crop` None reads no picture. The square is that of the projected region's box.
    """

    point_groups = None

    def __init__(self, data_dir: Path | str, *, crop: CropRule | None = None) -> None:
        self.folder = find_renderings(data_dir)
        self.rule = read_json_object(self.folder / RULE_FILE)
        region = take(self.rule, "region", str, self.folder / RULE_FILE)
        if region not in LANDMARKS_SHARE:
            raise ValueError(
                f"{self.folder / RULE_FILE}: region is {region!r}, expected one of "
                f"{', '.join(LANDMARKS_SHARE)}"
            )
        self.landmarks_share = LANDMARKS_SHARE[region]
        finished = sorted(path.parent for path in self.folder.glob(f"*/{SUBJECT_FILE}"))
        self.files = sorted(path for subject in finished for path in subject.glob("*.npz"))
        if not self.files:
            raise FileNotFoundError(f"{self.folder}: no finished subject; {HINT}")
        self.names = [path.stem for path in self.files]
        self.crop = crop

    def __len__(self) -> int:
        return len(self.files)

    def notes(self) -> dict:
        """What a report says about the renderings: the rule they were made by."""
        return {"renderings": self.rule}

    def __getitem__(self, index: int) -> EvaluationItem:
        path = self.files[index]
        with np.load(path, allow_pickle=False) as archive:
            vertices = archive["vertices"].astype(np.float64)
            eyes, yaw_deg = archive["outer_eyes"], float(archive["yaw_deg"])
        network_input = None
        if self.crop is not None:
            source = path.with_suffix(".png")
            if not source.is_file():
                raise FileNotFoundError(f"{source}: missing; delete its folder and {HINT}")
            data = source.read_bytes()
            rule = self.crop._replace(scale=self.landmarks_share * self.crop.scale)
            center, size = crop_square(vertices, rule, seed_name=path.stem)
            network_input = crop_picture(
                data, decode_picture(data, source=source), center, size, self.crop, source=source
            )
        return EvaluationItem(
            name=path.stem,
            yaw_deg=yaw_deg,
            landmarks=None,
            shape_params=torch.zeros(0),
            exp_params=torch.zeros(0),
            image_from_model=None,
            network_input=network_input,
            scan=torch.from_numpy(vertices),
            outer_eye=float(np.linalg.norm(eyes[0] - eyes[1])),
        )


def find_renderings(data_dir: Path | str) -> Path:
    """Where `prnet.build` put them: in DATA_DIR, or by default in its built/florence.

    Raises:
        FileNotFoundError: in neither.
    """
    places = [Path(data_dir) / FOLDER, Path(data_dir) / "built" / "florence" / FOLDER]
    for folder in places:
        if (folder / RULE_FILE).is_file():
            return folder
    raise FileNotFoundError(f"no renderings in {places[0]} or {places[1]}; {HINT}")


def rendering_name(subject: str, pitch_deg: float, yaw_deg: float) -> str:
    return f"{subject}_p{pitch_deg:+g}_y{yaw_deg:+g}"


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
    plan = json.loads(json.dumps({"format": 1, **rule._asdict()}))
    if (folder / RULE_FILE).is_file():
        if read_json_object(folder / RULE_FILE) != plan:
            raise ValueError(
                f"{folder}: renderings of another rule; choose another output= or delete it"
            )
    write_json(folder / RULE_FILE, plan)
    pending = [file for file in files if not (folder / file.name / SUBJECT_FILE).is_file()]
    failed = {}
    work = functools.partial(_write_subject, folder=folder, rule=rule)
    with tqdm(
        total=len(files), initial=len(files) - len(pending), desc="render", unit="subject"
    ) as bar:
        for file, reason in in_processes(work, pending, load_embedded, workers=workers):
            if reason:
                failed[file.name] = reason
            bar.update()
    for name, reason in sorted(failed.items()):
        log.warning("left out: %s: %s", name, reason)
    if len(failed) == len(files):
        raise ValueError(f"no scan of {Path(data_dir) / 'Florence'} can be used: {reason}")
    return folder


def _write_subject(file: ScanFile, face: Face, *, folder: Path, rule: RenderRule) -> str:
    """All renderings of one subject; why there are none, or nothing."""
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
            reasons.append(str(error))
    else:
        return "; ".join(reasons)
    for pitch in rule.pitch_deg:
        for yaw in rule.yaw_deg:
            name = rendering_name(file.name, pitch, yaw)
            image_from_scan = place(located.region, pitch, yaw, rule)
            picture = render(located.scan, image_from_scan, rule)
            with written_whole(folder / file.name / f"{name}.png") as temporary:
                write_picture(temporary, picture)
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
    return ""


def write_renderings_sheet(folder: Path, *, count: int) -> Path:
    """FOLDER/contact_sheet.png of the first `count` renderings, each with its true points beside
    it."""
    cells = []
    for path in sorted(folder.glob("*/*.npz"))[:count]:
        picture = decode_picture(path.with_suffix(".png").read_bytes(), source=path)
        with np.load(path, allow_pickle=False) as archive:
            points, eyes = archive["vertices"], archive["outer_eyes"]
        drawn = picture.copy()
        for points_2d, color in ((points, (0, 255, 0)), (eyes, (255, 0, 0))):
            column, row = np.rint(points_2d[:, :2]).astype(int).T
            inside = (column >= 0) & (row >= 0) & (row < len(drawn)) & (column < len(drawn))
            drawn[row[inside], column[inside]] = color
        pair = np.concatenate([picture, drawn])
        cells.append(cv2.resize(pair, (SHEET_CELL, 2 * SHEET_CELL), interpolation=cv2.INTER_AREA))
    columns = min(len(cells), SHEET_COLUMNS)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i : i + columns], 1) for i in range(0, len(cells), columns)]
    path = folder / "contact_sheet.png"
    with written_whole(path) as temporary:
        write_picture(temporary, np.concatenate(rows))
    return path
