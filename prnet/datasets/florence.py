"""Renderings of textured head scans as a test set, as PRN and SADRNet test on Florence (MICC).

`prnet.building.florence` makes them:

DIR/Florence_renderings/SUBJECT/SUBJECT_p+20_y-40.png   pitch and yaw, degrees
DIR/Florence_renderings/SUBJECT/SUBJECT_p+20_y-40.npz   vertices (M, 3) float32, image px,
    zero_based, z toward the camera; outer_eyes (2, 3); pitch_deg, yaw_deg
DIR/Florence_renderings/SUBJECT/subject.json            the scan, and what was found on it
DIR/Florence_renderings/renderings.json                 the rule that all were made by
"""

from pathlib import Path

import numpy as np
import torch

from prnet.checks import require_choice
from prnet.datasets.evaluation import EvaluationItem, TestSet, framed_input
from prnet.datasets.pictures import CropRule
from prnet.files import read_json_object, read_npz, take, visible_files

FOLDER, RULE_FILE, SUBJECT_FILE = "Florence_renderings", "renderings.json", "subject.json"
HINT = "make them with `python -m prnet.build dataset=florence`"
# Mean side of the 68 landmarks' box over that of the region's, on the embedded mean face seen from
# the front: so that a crop scale means about the same here as where landmarks are framed.
LANDMARKS_SHARE = {"nose_radius": 0.894, "uv_mask": 0.866}


class Florence(TestSet):
    """Renderings as evaluation items: `scan` and `outer_eye` are the truth, there are no landmarks.

    `crop` None reads no picture. The square is that of the projected region's box.
    """

    name = "florence"
    metric = "nme_rec"
    has_fits = False
    protocols = ("prn_florence", "sadrnet_florence", "default")

    def __init__(self, data_dir: Path | str, *, crop: CropRule | None = None) -> None:
        self.folder = find_renderings(data_dir)
        self.rule = read_json_object(self.folder / RULE_FILE)
        region = take(self.rule, "region", str, self.folder / RULE_FILE)
        require_choice(f"{self.folder / RULE_FILE}: region", region, LANDMARKS_SHARE)
        self.landmarks_share = LANDMARKS_SHARE[region]
        finished = sorted(path.parent for path in self.folder.glob(f"*/{SUBJECT_FILE}"))
        self.files = [path for subject in finished for path in visible_files(subject, [".npz"])]
        if not self.files:
            raise FileNotFoundError(f"{self.folder}: no finished subject; {HINT}")
        self.names = [path.stem for path in self.files]
        self.crop = crop

    def notes(self) -> dict:
        return {"renderings": self.rule}

    def __getitem__(self, index: int) -> EvaluationItem:
        path = self.files[index]
        truth = read_npz(path, "vertices", "outer_eyes", "yaw_deg", hint=HINT)
        vertices, eyes = truth["vertices"].astype(np.float64), truth["outer_eyes"]
        network_input = None
        if self.crop is not None:
            source = path.with_suffix(".png")
            if not source.is_file():
                raise FileNotFoundError(f"{source}: missing; delete its folder and {HINT}")
            rule = self.crop._replace(scale=self.landmarks_share * self.crop.scale)
            network_input = framed_input(source, vertices, rule, name=path.stem)
        return EvaluationItem(
            name=path.stem,
            yaw_deg=float(truth["yaw_deg"]),
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
