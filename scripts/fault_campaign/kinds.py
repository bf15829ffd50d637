"""Every kind of file that the package reads, each made, and its reader."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from fault_campaign.mutations import Kind
from prnet.building.resumable import write_plan
from prnet.building.scan_files import read_scan
from prnet.checkpoint import load_checkpoint, save_checkpoint
from prnet.datasets.built import BuiltSet
from prnet.datasets.fits import read_fit
from prnet.datasets.landmark_files import read_landmarks
from prnet.datasets.pictures import decode_picture
from prnet.datasets.predictions import read_prediction, write_prediction
from prnet.entry import shipped_values
from prnet.faces.bfm import load_bfm
from prnet.files import read_bytes, read_json_object
from prnet.files.csv_tables import read_csv
from prnet.models.loading import load_model
from prnet.reconstruction.photos import read_photo
from prnet.reports.reading import read_report


def kinds(made: Path, folder: Path) -> list[Kind]:
    """`made` holds `world`, `built`, `trained`, `scored` and `bfm`; the files are put in `folder`,
    which holds nothing else."""
    points = np.random.default_rng(0).uniform(40, 200, (68, 3)).round(3)
    fits = sorted((made / "world" / "AFLW2000").glob("*.mat"))
    found: list[Kind] = []

    def add(
        name: str, source: Path | None, file: str, read: Callable, *, checked: bool = False
    ) -> Path:
        path = folder / name.replace(" ", "_").replace("/", "_") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            shutil.copyfile(source, path)
        found.append(Kind(name, path, read, checked))
        return path

    photo = fits[0].with_suffix(".jpg")
    mask = next((made / "world" / "attention").rglob("*.png"))
    add("picture, JPEG", photo, "photo.jpg", decoded)
    add("picture, PNG", mask, "photo.png", decoded, checked=True)
    add("photo to reconstruct, JPEG", photo, "photo.jpg", read_photo)
    add("fit, .mat", fits[0], "fit.mat", read_fit)

    path = add("landmarks, .txt", None, "face.txt", read_landmarks)
    np.savetxt(path, points[:, :2], fmt="%.3f")
    path = add("landmarks, .pts", None, "face.pts", read_landmarks)
    rows = "\n".join(f"{x} {y}" for x, y in points[:, :2])
    path.write_text(f"version: 1\nn_points: 68\n{{\n{rows}\n}}\n")
    path = add("landmarks, .npy", None, "face.npy", read_landmarks)
    np.save(path, points)
    path = add("landmarks, .mat", None, "face.mat", read_landmarks)
    scipy.io.savemat(path, {"pt3d_68": points.T})
    path = add("boxes, .csv", None, "boxes.csv", read_boxes)
    path.write_text("name,left,top,right,bottom\na,1,2,30,40\nb,5,6,70,80\n")

    path = add("predictions, .npz", None, "face.npz", lambda p: read_prediction([p]))
    origins = {"landmarks_origin": "zero_based", "vertices_origin": "zero_based"}
    write_prediction(path, points, points, **origins)
    path = add("predictions, 3DDFA's .mat", None, "face.mat", lambda p: read_prediction([p]))
    scipy.io.savemat(path, {"vertex": points.T})
    path = add("predictions, PRNet's .txt", None, "face_kpt.txt", lambda p: read_prediction([p]))
    np.savetxt(path, points, fmt="%.3f")

    trained = made / "trained" / "best.pt"
    add("checkpoint, .pt", trained, "best.pt", load_model, checked=True)
    last = made / "trained" / "last.pt"
    add("state of a run, last.pt", last, "last.pt", load_checkpoint, checked=True)
    path = add("weights to share, .safetensors", None, "face.safetensors", load_model)
    kept = {key: value for key, value in load_checkpoint(trained).items() if key != "training"}
    save_checkpoint(path, kept)

    for name in ("records.npy", "pictures/0.bin", "build.json", "format.json"):
        place = folder / f"built_{Path(name).stem}"
        shutil.copytree(made / "built", place)
        checked = name.startswith(("records", "pictures"))
        found.append(Kind(f"built set, {name}", place / name, read_set(place), checked))

    for name in ("BFM.mat", "BFM_info.mat", "BFM_UV.mat"):
        place = folder / f"face_{Path(name).stem}"
        shutil.copytree(made / "bfm", place)
        found.append(Kind(f"face model, {name}", place / name, read_face, False))

    add("report of an evaluation", made / "scored" / "report.json", "report.json", read_scores)
    path = add("plan of a build", None, "plan.json", read_plan)
    path.write_text(json.dumps({"format": 2, "seed": 3}))
    if importlib.util.find_spec("trimesh") is not None:
        place = folder / "scan"
        shutil.copytree(next((made / "world" / "Florence").iterdir()), place)
        found.append(Kind("head scan, .obj", next(place.glob("*.obj")), read_scan, False))
    return found


def decoded(path: Path) -> np.ndarray:
    return decode_picture(read_bytes(path), source=path)


def read_boxes(path: Path) -> object:
    return read_csv(path, ("name", "left", "top", "right", "bottom"), hint="give another")


def read_scores(path: Path) -> object:
    return read_report(path, shipped_values("protocol", "default"))


def read_set(folder: Path) -> Callable[[Path], object]:
    def read(_path: Path) -> object:
        built = BuiltSet(folder)
        return [*built.names, *(built[index].picture for index in range(len(built)))]

    return read


def read_face(path: Path) -> object:
    face = load_bfm(path.parent)
    return face.describe()


def read_plan(path: Path) -> object:
    write_plan(path.parent, seed=3)
    return read_json_object(path)
