"""Validating a network in training: `prnet.eval`'s own function on the held-out photos."""

import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from prnet.datasets.evaluation import Joined, Kept
from prnet.datasets.training_sets import TrainingData
from prnet.datasets.warp import make_sample
from prnet.drawing.pictures import (
    draw_heading,
    draw_landmarks,
    draw_map_error,
    draw_mesh,
    tile,
    to_picture,
)
from prnet.evaluation.evaluate import EvaluationOptions, Share, evaluate
from prnet.evaluation.protocol import Protocol
from prnet.evaluation.sources import NetworkSource, evaluation_mode
from prnet.faces.face import Face
from prnet.geometry.position_map import PositionMapDecoder
from prnet.models.face_decoder import FaceDecoder
from prnet.models.network import Network
from prnet.sample import FitBatch
from prnet.training.plan import Plan
from prnet.training.processes import Processes

log = logging.getLogger(__name__)

# The metric that chooses best.pt: the 68 landmarks in 2D, which every protocol has.
SCORE = "nme_68_2d"
PANEL_COLUMNS = ("predicted landmarks", "predicted mesh", "true mesh", "error of the map")
HEADING_HEIGHT = 24  # px
# Held-out samples of each set that the panel shows.
SHOWN_SAMPLES = 4
# Bytes of decoded pictures that a process keeps from one validation to the next: the share of
# 300W-LP that is held out has 1.5 GB.
MOST_KEPT = 4e9


class Validation(NamedTuple):
    """What a validation found."""

    score: float  # the mean of `SCORE`; lower is better
    scalars: dict[str, float]  # metric -> mean
    panel: np.ndarray | None  # (H, W, 3), uint8; None: another process draws it


def held_out_validation(
    data: TrainingData,
    face: Face,
    decoder: PositionMapDecoder,
    protocol: Protocol,
    plan: Plan,
    processes: Processes,
) -> Callable[[Network], Validation] | None:
    """What the loop validates with, each process its share; None where no photos are held out."""
    if not data.validation:
        log.warning("no photos are held out: best.pt will be the last state")
        return None
    first, *others = data.validation
    test_set = Joined(data.validation) if others else first
    # A rendered face is worth its 0.26 MB. Where the cores run the network, decoding is no part of
    # the time; beside a card it is most of it.
    on_card = processes.device.type == "cuda"
    kept = data.renders or (on_card and picture_bytes(data, processes) <= MOST_KEPT)
    test_set = (Kept(test_set) if kept else test_set).with_truth_face(face)
    share = Share(processes.rank, processes.size, processes.gather)
    options = EvaluationOptions(
        batch_size=plan.batch_size,
        num_workers=plan.num_workers if on_card and not kept else 0,
        share=share,
        progress=processes.is_first,
    )
    # No scalar is made of the parts, which are not shared.
    protocol = dataclasses.replace(protocol, parts=False)
    shown = data.shown(SHOWN_SAMPLES)

    def validate(model: Network) -> Validation:
        # In fp32, as `prnet.eval` runs it: the score of best.pt is the one that it is given there.
        given = data.given if model.landmark_map == "given" else None
        source = NetworkSource(model, face, description="the network in training", given=given)
        report = evaluate(source, test_set, protocol, options)
        means = {name: summary["mean"] for name, summary in report["metrics"].items()}
        panel = None
        if processes.is_first:
            panel = draw_panel(model, shown.to(processes.device), face, decoder)
        return Validation(means[SCORE], means, panel)

    return validate


def picture_bytes(data: TrainingData, processes: Processes) -> float:
    """Of the held-out pictures that a process scores."""
    return sum(part.picture_bytes() for part in data.validation) / processes.size


@torch.inference_mode()
def draw_panel(
    model: Network, batch: FitBatch, face: Face, decoder: PositionMapDecoder
) -> np.ndarray:
    """Held-out samples, a row each below a line of `PANEL_COLUMNS`: photo with predicted landmarks,
    predicted mesh, true mesh, map error; (H, W, 3), uint8."""
    beside = model.inputs if model.landmark_map == "given" else ()
    sample = make_sample(batch, decoder, targets=("position_map", *beside))
    with evaluation_mode(model):
        prediction = model(sample.image, *(getattr(sample, name) for name in beside))
    predicted = FaceDecoder(model, face)
    mesh, landmarks = predicted.mesh(prediction), predicted.landmarks(prediction)
    found, true = predicted.position_map(prediction, mesh).float(), sample.position_map
    pictures = []
    for index, image in enumerate(sample.image):
        photo = to_picture(image)
        points, true_points = (face.uv.face_points(one[index, None])[0] for one in (found, true))
        pictures += [
            draw_landmarks(photo, landmarks[index]),
            draw_mesh(photo, points, face.uv.grid_triangles),
            draw_mesh(photo, true_points, face.uv.grid_triangles),
            draw_map_error(found[index], true[index], mask=face.uv.face_mask, legend=True),
        ]
    sheet = tile(pictures, columns=len(PANEL_COLUMNS))
    width = sheet.shape[1] // len(PANEL_COLUMNS)
    headings = [draw_heading(text, width=width, height=HEADING_HEIGHT) for text in PANEL_COLUMNS]
    return np.concatenate([np.concatenate(headings, 1), sheet])
