"""`python -m prnet.eval`: a network, or saved predictions, against the ground truth of a test set.

`evaluate_model` is also what the trainer validates with. Letters: B batch, N vertices, H W = 256.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from prnet.checkpoint import describe_source, load_checkpoint, load_weights
from prnet.config_path import CONFIG_DIR
from prnet.datasets.aflw2000 import AFLW2000, read_boxes, read_yaw_labels
from prnet.datasets.builder import FaceFiles
from prnet.datasets.evaluation import EvaluationBatch, evaluation_loader
from prnet.datasets.fits import FacePair, find_aflw2000
from prnet.datasets.pictures import CropRule
from prnet.datasets.predictions import (
    NUM_PRNET_FACE_PIXELS,
    SavedPrediction,
    Topology,
    find_predictions,
    find_topology,
    landmarks_of,
    read_prediction,
    write_prediction,
)
from prnet.datasets.synthetic import SyntheticRule, held_out_faces
from prnet.datasets.warp import warp_to_crop
from prnet.entry import loader_workers, one_line_errors, resolve_device
from prnet.faces.face import Face
from prnet.faces.loading import FACES, load_face
from prnet.gallery import Gallery, errors_to_rank
from prnet.geometry import camera
from prnet.protocol import METRICS, FacePoints, Protocol, score
from prnet.report import (
    ScoredImage,
    make_report,
    name_list,
    require_json_name,
    table,
    write_report,
)

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16")
TEST_SETS = ("aflw2000", "synthetic")
NO_NECK = (
    "a position map is trained on the face pixels alone, and protocol.dense=vertices compares the "
    "neck and the ears too"
)
NO_DENSE_TRUTH = "protocol.dense is none"
OTHER_FACE = "the network's face {} and the data set's {} have no dense points in common"
NO_DEPTH = "the landmarks have no z"


def ground_truth(
    batch: EvaluationBatch,
    face: Face | None,
    protocol: Protocol,
    *,
    dense: bool,
) -> FacePoints:
    """What the protocol calls the truth, float64, each in the pixel origin it is scored in.

    Where a batch has no `pt3d_68`, the fit's own vertices at the landmarks stand for it: it is made
    of them. Without a face there is nothing but `pt3d_68`.
    """
    landmarks = dense_points = None
    if protocol.landmarks == "pt3d_68" and batch.landmarks is not None:
        landmarks = camera.convert_origin(batch.landmarks, "matlab", protocol.landmark_origin)
    if face is None or (landmarks is not None and not dense):
        return FacePoints(landmarks, None)

    vertices = face.morphable_model(batch.shape_params, batch.exp_params)  # (B, N, 3), model frame

    def project(points: Tensor, matrix: Tensor, pixel_origin: str) -> Tensor:
        image_points = camera.transform_points(matrix, points.double())
        return camera.convert_origin(image_points, "zero_based", pixel_origin)

    if landmarks is None and protocol.landmarks == "pt3d_68":
        at_landmarks = vertices[:, face.landmark_index]
        landmarks = project(at_landmarks, batch.image_from_model, protocol.landmark_origin)
    if dense and protocol.dense == "vertices":
        dense_points = project(vertices, batch.image_from_model, protocol.pixel_origin)
    if landmarks is None or (dense and protocol.dense == "map"):
        # Interpolation and projection commute: only the texels that are scored are made, in the
        # model frame. A position map's depth starts at the smallest z of its mesh.
        matrix = batch.image_from_model.clone()
        depth = vertices @ matrix[:, 2, :3, None].to(vertices.dtype)  # (B, N, 1)
        matrix[:, 2, 3] = -depth.amin((1, 2)).double()
        if landmarks is None:
            cells = face.uv.at_texels(vertices, face.uv.landmark_texels)
            landmarks = project(cells, matrix, protocol.landmark_origin)
        if dense and protocol.dense == "map":
            pixels = face.uv.at_texels(vertices, face.uv.face_index)
            dense_points = project(pixels, matrix, protocol.pixel_origin)
    return FacePoints(landmarks, dense_points)


def network_points(
    position_map: Tensor,  # (B, 3, H, W), crop px
    image_from_crop: Tensor,  # (B, 4, 4), float64
    face: Face,
    protocol: Protocol,
    *,
    pixel_origin: str,
) -> FacePoints:
    """A network's landmarks and face pixels in the image, float32.

    They are placed in the pixel origin of the truth they are scored against: the crop is ours, and
    `pixel_origin` that of the labels the network learned from, so no convention stands between the
    two. Depth is in image px from the network's own zero.
    """

    def project(points: Tensor, target: str) -> Tensor:
        image_points = camera.transform_points(image_from_crop, points.double())
        return camera.convert_origin(image_points, pixel_origin, target).float()

    return FacePoints(
        project(face.uv.landmarks(position_map), protocol.landmark_origin),
        project(face.uv.face_points(position_map), protocol.pixel_origin),
    )


def saved_points(
    prediction: SavedPrediction,
    face: Face | None,
    topology: Topology,
    protocol: Protocol,
    *,
    device: torch.device,
) -> tuple[FacePoints, str | None]:
    """A saved prediction as a batch of one, and why it has no dense points, if it has none.

    A mesh is rasterised into the UV layout where the protocol compares maps; a map has no vertices.

    Raises:
        ValueError: the 68 landmarks are neither saved nor to be found among the vertices.
    """

    def prepare(points: object, source: str, target: str) -> Tensor:
        tensor = torch.from_numpy(points).double()[None].to(device)
        return camera.convert_origin(tensor, source, target) if protocol.convert_origin else tensor

    stored, origin = landmarks_of(prediction, topology)
    landmarks = prepare(stored, origin, protocol.landmark_origin)
    if prediction.vertices is None:
        return FacePoints(landmarks, None), "no vertices, landmarks alone"
    if face is None:
        return FacePoints(landmarks, None), "the face model is not there"
    vertices = prepare(prediction.vertices, prediction.vertices_origin, protocol.pixel_origin)
    count = vertices.shape[1]
    num_vertices, num_pixels = face.morphable_model.num_vertices, face.uv.face_index.numel()
    if count == num_vertices:
        if protocol.dense == "map":
            vertices = face.uv.at_texels(vertices, face.uv.face_index)
        return FacePoints(landmarks, vertices), None
    if count == num_pixels:
        if protocol.dense == "map":
            return FacePoints(landmarks, vertices), None
        return FacePoints(landmarks, None), (
            f"the {count} face pixels of a position map are not the {num_vertices} vertices that "
            "protocol.dense=vertices compares"
        )
    reason = (
        f"{count} points are neither the {num_vertices} vertices nor the {num_pixels} face pixels "
        "of the face model"
    )
    if count == NUM_PRNET_FACE_PIXELS:
        reason += "; bring PRNet's Data/uv-data to DATA_DIR/PRNet_uv, its pixels are those"
    return FacePoints(landmarks, None), reason


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model.eval()` for the time of the block; then every module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.inference_mode()
def evaluate_model(
    model: nn.Module,
    batches: Iterable[EvaluationBatch],
    *,
    face: Face,
    protocol: Protocol,
    dataset: str,
    source: str,
    truth_face: Face | None = None,
    no_face: str = "",
    yaw_labels: Mapping[str, float] | None = None,
    pixel_origin: str = "zero_based",
    precision: str = "fp32",
    save_predictions: Path | str | None = None,
    gallery: Gallery | None = None,
    progress: bool = True,
) -> dict:
    """Run a network over a test set, once an image, and report its errors.

    `face` is the network's, `truth_face` that of the data set's fits; where they differ, or the
    latter is not there (`no_face` says why in the report), the 68 landmarks alone are scored,
    against `pt3d_68`. Faces and `model` are on the same device; `yaw_labels` replace the yaw of the
    fits; `pixel_origin` is that of the labels the network learned from. The report is that of
    `prnet.report.make_report`; the model's modes are as they were. A `gallery` is shown every
    image.

    Raises:
        ValueError: an option is none of its choices, the network returns what is not finite, or the
            protocol takes the landmarks from a map that there is no face to make.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if truth_face is None and protocol.landmarks == "map":
        raise ValueError(f"protocol.landmarks=map: {no_face}")
    device = next(model.parameters()).device
    no_dense = NO_NECK if protocol.dense == "vertices" else NO_DENSE_TRUTH
    if truth_face is None:
        no_dense = no_face
    elif truth_face.describe() != face.describe():
        no_dense = OTHER_FACE.format(face.name, truth_face.name)
    scores_dense = protocol.scores_dense and no_dense == NO_DENSE_TRUTH
    images: list[ScoredImage] = []
    with evaluation_mode(model):
        for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
            batch = batch.to(device)
            image = warp_to_crop(batch.picture, batch.crop_from_picture)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                prediction = model(image.contiguous(memory_format=torch.channels_last))
            predicted = network_points(
                prediction.position_map.float(),
                batch.image_from_crop,
                face,
                protocol,
                pixel_origin=pixel_origin,
            )
            if save_predictions is not None:
                save_points(Path(save_predictions), batch.names, predicted, protocol)
            if not scores_dense:
                predicted = predicted._replace(dense=None)
            truth = ground_truth(batch, truth_face, protocol, dense=scores_dense)
            reasons = {"dense": no_dense, "landmarks": no_face}
            errors = score(predicted, truth, protocol)
            images += scored_images(batch, errors, reasons, protocol, yaw_labels)
            if gallery is not None:
                ranks = errors_to_rank(errors, len(image))
                gallery.add(image, prediction.position_map, ranks)
    return {
        **make_report(images, protocol, dataset=dataset, source=source),
        "face": face.describe(),
    }


def save_points(directory: Path, names: list[str], points: FacePoints, protocol: Protocol) -> None:
    """NAME.npz of a batch; scored under the same protocol they give the same errors."""
    landmarks, dense = points.landmarks.cpu().numpy(), points.dense.cpu().numpy()
    for name, one_landmarks, one_dense in zip(names, landmarks, dense, strict=True):
        write_prediction(
            directory / f"{name}.npz",
            one_landmarks,
            one_dense,
            landmarks_origin=protocol.landmark_origin,
            vertices_origin=protocol.pixel_origin,
        )


@torch.inference_mode()
def evaluate_predictions(
    predictions: Mapping[str, list[Path]],
    batches: Iterable[EvaluationBatch],
    *,
    face: Face | None,
    topology: Topology,
    protocol: Protocol,
    dataset: str,
    source: str,
    missing: Iterable[str] = (),
    unknown: Iterable[str] = (),
    no_face: str = "the face model is not there",
    yaw_labels: Mapping[str, float] | None = None,
    device: torch.device,
    progress: bool = True,
) -> dict:
    """Score saved predictions, one for every image of `batches`; the report as `evaluate_model`'s.

    `face` None scores 68 landmarks against `pt3d_68` alone; `no_face` says why in the report.

    Raises:
        ValueError: a prediction cannot be read, or its landmarks cannot be found.
    """
    images: list[ScoredImage] = []
    for batch in tqdm(batches, desc="evaluate", unit="batch", disable=not progress):
        batch = batch.to(device)
        saved = [
            saved_points(
                read_prediction(predictions[name]), face, topology, protocol, device=device
            )
            for name in batch.names
        ]
        dense = protocol.scores_dense and any(points.dense is not None for points, _ in saved)
        truth = ground_truth(batch, face, protocol, dense=dense)
        for index, (points, no_dense) in enumerate(saved):
            one = slice(index, index + 1)
            own_truth = FacePoints(*(None if side is None else side[one] for side in truth))
            if face is None:
                no_dense = no_face
            elif not protocol.scores_dense:
                no_dense = NO_DENSE_TRUTH
            reasons = {"dense": no_dense}
            if own_truth.landmarks is None:
                reasons["landmarks"] = no_face
            images += scored_images(
                batch._replace(names=batch.names[one], yaw_deg=batch.yaw_deg[one]),
                score(points, own_truth, protocol),
                reasons,
                protocol,
                yaw_labels,
            )
    report = make_report(
        images, protocol, dataset=dataset, source=source, missing=missing, unknown=unknown
    )
    return report if face is None else {**report, "face": face.describe()}


def scored_images(
    batch: EvaluationBatch,
    errors: Mapping[str, Tensor],  # metric -> (B,)
    reasons: Mapping[str, str],  # field of `FacePoints` -> why it is lacking
    protocol: Protocol,
    yaw_labels: Mapping[str, float] | None,
) -> list[ScoredImage]:
    """The rows of a batch."""
    columns = {metric: values.tolist() for metric, values in errors.items()}
    lacking = {
        metric: reasons.get(METRICS[metric].points, NO_DEPTH)
        for metric in protocol.metrics
        if metric not in errors
    }
    return [
        ScoredImage(
            name,
            batch.yaw_deg[index] if yaw_labels is None else yaw_labels[name],
            {metric: values[index] for metric, values in columns.items()},
            lacking,
        )
        for index, name in enumerate(batch.names)
    ]


def load_model(path: Path | str) -> tuple[nn.Module, dict]:
    """The network of a checkpoint, on the CPU, and the checkpoint.

    The class comes from the shipped configuration that the checkpoint names, its arguments from the
    plain values stored; nothing in the file is ever instantiated.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`; or the model is none that is shipped,
            or its values or weights do not fit.
    """
    checkpoint = load_checkpoint(path)
    stored = dict(checkpoint["model"])
    name = stored.pop("name", None)
    shipped = sorted(file.stem for file in Path(CONFIG_DIR, "model").glob("*.yaml"))
    if name not in shipped:
        raise ValueError(f"{path}: of a model {name!r}, expected one of {', '.join(shipped)}")
    network = OmegaConf.load(Path(CONFIG_DIR, "model", f"{name}.yaml")).network
    for key, value in stored.items():
        if key.startswith("_") or key not in network:
            known = sorted(own for own in network if not own.startswith("_"))
            raise ValueError(f"{path}: model {name} takes {known}, the checkpoint has {key!r}")
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(f"{path}: model value {key} is a {type(value).__name__}, not plain")
    try:
        model = instantiate(network, **stored)
    except InstantiationException as error:
        raise ValueError(f"{path}: model {name} does not take {stored} ({error})") from error
    load_weights(model, checkpoint["weights"], source=describe_source(path, checkpoint))
    return model, checkpoint


def newest_checkpoint() -> Path:
    """The newest best.pt under outputs/ of the current folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(Path("outputs").glob("*/*/best.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            "nothing to score: no outputs/*/*/best.pt here. Train a network with "
            "`python -m prnet.train`, or give checkpoint=FILE.pt or predictions=DIR"
        )
    return found[-1]


def require_same_face(checkpoint: dict, face: Face, *, source: object) -> None:
    """Raise ValueError if a network was trained for another mesh than the face at hand."""
    trained = checkpoint.get("face") or {}
    here = face.describe()
    for key in ("name", "vertices", "fingerprint"):
        if key in trained and trained[key] != here.get(key):
            raise ValueError(
                f"{source}: trained for a face with {key} {trained[key]}, this one has "
                f"{here.get(key)}; choose the face it was trained for"
            )


def select_pairs(pairs: list[FacePair], protocol: Protocol) -> list[FacePair]:
    """The pairs that the protocol does not exclude."""
    absent = sorted(set(protocol.exclude) - {pair.name for pair in pairs})
    if absent:
        log.warning("protocol.exclude names images that are not there: %s", name_list(absent))
    return [pair for pair in pairs if pair.name not in protocol.exclude]


def require_named(table: Mapping[str, object], pairs: list[FacePair], *, source: object) -> None:
    """Raise ValueError if a table lacks one of the images."""
    lacking = [pair.name for pair in pairs if pair.name not in table]
    if lacking:
        raise ValueError(f"{source}: no line for {name_list(lacking)} of {len(pairs)} images")


def evaluate(cfg: DictConfig, run_dir: Path) -> dict:
    """What the configuration asks for: score, log, write; returns the report.

    Raises:
        ValueError, FileNotFoundError: an option, or a file it names, is not what it should be.
    """
    protocol = Protocol.from_values(OmegaConf.to_container(cfg.protocol, resolve=True))
    if cfg.dataset.name not in TEST_SETS:
        raise ValueError(f"dataset: got {cfg.dataset.name!r}; eval scores {' or '.join(TEST_SETS)}")
    if cfg.dataset.get("subsets") is not None:
        raise ValueError("dataset.subsets: AFLW2000-3D has no sub-folders; leave it out")
    if cfg.checkpoint is not None and cfg.predictions is not None:
        raise ValueError("give checkpoint= or predictions=, not both")
    if cfg.predictions is not None and cfg.save_predictions is not None:
        raise ValueError("save_predictions= goes with a checkpoint; these are saved already")
    report_file = require_json_name(cfg.report or run_dir / "report.json")
    device = resolve_device(cfg.device)
    if cfg.predictions is None:
        report = score_checkpoint(cfg, protocol, device, report_file)
    else:
        report = score_saved(cfg, protocol, device)

    log.info("protocol %s: %s", protocol.name, report["protocol"])
    log.info("%s: %d images scored", report["source"], report["count"])
    if report["metrics"]:
        log.info("\n%s", table(report))
    for metric, reason in report["not_computed"].items():
        log.warning("%s not computed: %s", metric, reason)
    if report["missing"]:
        log.warning("images without a prediction: %s", name_list(report["missing"]))
    if report["unknown"]:
        log.warning("predictions without an image: %s", name_list(report["unknown"]))
    log.info("written: %s", ", ".join(str(path) for path in write_report(report, report_file)))
    return report


def truth_face_of(cfg: DictConfig) -> tuple[Face | None, str]:
    """The face of the data set's fits, or None and why it is not there."""
    try:
        return FaceFiles(**cfg.face).load(), ""
    except FileNotFoundError as error:
        log.warning("without the data set's face model: %s", error)
        return None, f"the truth cannot be made from the fits: {error}"


def network_face(
    cfg: DictConfig, checkpoint: dict, truth_face: Face | None, *, source: object
) -> Face:
    """The face a network was trained for: the data set's own, or another that the checkpoint names.

    Raises:
        ValueError: the face of that name is not the one the network was trained for.
        FileNotFoundError: a file of the BFM is missing.
    """
    name = (checkpoint.get("face") or {}).get("name", cfg.face.name)
    if name not in FACES:
        raise ValueError(f"{source}: of a face {name!r}, expected one of {', '.join(FACES)}")
    if name == cfg.face.name:
        face = truth_face or FaceFiles(**cfg.face).load()
    else:
        data_dir = Path(cfg.data_dir)
        face = load_face(name, bfm_dir=data_dir / "BFM", prnet_uv_dir=data_dir / "PRNet_uv")
    require_same_face(checkpoint, face, source=source)
    return face


def test_samples(
    cfg: DictConfig, protocol: Protocol, truth_face: Face | None
) -> tuple[Dataset, dict[str, float] | None]:
    """The images a network is given with their truth, and the labels that replace their yaw."""
    crop = CropRule(
        protocol.crop.source, protocol.crop.scale, protocol.crop.jitter, protocol.crop.span
    )
    if cfg.dataset.name == "synthetic":
        if protocol.crop.source == "box" or protocol.yaw_source == "labels" or protocol.exclude:
            raise ValueError(
                "dataset=synthetic: has no boxes, yaw labels or names to exclude; choose "
                "protocol=default"
            )
        rule = SyntheticRule.from_values(OmegaConf.to_container(cfg.dataset, resolve=True))
        return held_out_faces(rule, crop), None
    pairs = aflw2000_pairs(cfg, protocol)
    boxes = None
    if protocol.crop.source == "box":
        boxes = read_boxes(protocol.crop.boxes)
        require_named(boxes, pairs, source=protocol.crop.boxes)
    samples = AFLW2000(
        pairs,
        num_shape=truth_face.morphable_model.num_shape if truth_face else 0,
        num_exp=truth_face.morphable_model.num_exp if truth_face else 0,
        needs_landmarks=protocol.landmarks == "pt3d_68",
        crop=crop,
        boxes=boxes,
    )
    return samples, yaw_labels_of(protocol, pairs)


def aflw2000_pairs(cfg: DictConfig, protocol: Protocol) -> list[FacePair]:
    """AFLW2000-3D's pairs that the protocol does not exclude."""
    return select_pairs(find_aflw2000(cfg.data_dir), protocol)


def score_checkpoint(
    cfg: DictConfig, protocol: Protocol, device: torch.device, report_file: Path
) -> dict:
    """The report of the network that the configuration names, or of the newest, and beside it a
    picture of what it made of some images."""
    path = newest_checkpoint() if cfg.checkpoint is None else Path(cfg.checkpoint)
    log.info("checkpoint: %s", path)
    model, checkpoint = load_model(path)
    truth_face, no_face = truth_face_of(cfg)
    face = network_face(cfg, checkpoint, truth_face, source=path)
    samples, yaw_labels = test_samples(cfg, protocol, truth_face)
    gallery = Gallery(face.to(device))
    report = evaluate_model(
        model.to(device, memory_format=torch.channels_last),
        evaluation_loader(
            samples,
            batch_size=cfg.batch_size,
            num_workers=loader_workers(cfg.num_workers, device),
            pin_memory=device.type == "cuda",
        ),
        face=face.to(device),
        truth_face=None if truth_face is None else truth_face.to(device),
        no_face=no_face,
        protocol=protocol,
        dataset=cfg.dataset.name,
        source=f"checkpoint {describe_source(path, checkpoint)}",
        yaw_labels=yaw_labels,
        pixel_origin=checkpoint.get("pixel_origin", "zero_based"),
        precision=cfg.precision,
        save_predictions=cfg.save_predictions,
        gallery=gallery,
    )
    faces_file = report_file.with_name(f"{report_file.stem}_faces.png")
    gallery.write(faces_file)
    log.info("look at %s: the first images, and the worst", faces_file)
    return report


def score_saved(cfg: DictConfig, protocol: Protocol, device: torch.device) -> dict:
    """The report of the predictions that the configuration names."""
    if cfg.dataset.name != "aflw2000":
        raise ValueError("predictions= are scored on dataset=aflw2000")
    pairs = aflw2000_pairs(cfg, protocol)
    predictions = find_predictions(cfg.predictions)
    known = {pair.name for pair in pairs}
    scored = [pair for pair in pairs if pair.name in predictions]
    if not scored:
        raise ValueError(
            f"{cfg.predictions}: none of its {len(predictions)} predictions "
            f"({name_list(predictions)}) is of one of the {len(pairs)} images ({name_list(known)})"
        )
    face, no_face = truth_face_of(cfg)
    model = None if face is None else face.morphable_model
    decodes = model is not None and (protocol.scores_dense or protocol.landmarks == "map")
    return evaluate_predictions(
        predictions,
        evaluation_loader(
            AFLW2000(
                scored,
                num_shape=model.num_shape if model else 0,
                num_exp=model.num_exp if model else 0,
                decodes=decodes,
                needs_landmarks=protocol.landmarks == "pt3d_68",
            ),
            batch_size=cfg.batch_size,
            num_workers=loader_workers(cfg.num_workers, device),
            pin_memory=device.type == "cuda",
        ),
        face=None if face is None else face.to(device),
        topology=find_topology(face, cfg.face.get("prnet_uv_dir")),
        protocol=protocol,
        dataset=cfg.dataset.name,
        source=f"predictions {cfg.predictions}",
        missing=known - predictions.keys(),
        unknown=predictions.keys() - known - set(protocol.exclude),
        no_face=no_face,
        yaw_labels=yaw_labels_of(protocol, scored),
        device=device,
    )


def yaw_labels_of(protocol: Protocol, pairs: list[FacePair]) -> dict[str, float] | None:
    """The labels that replace the yaw of the fits, where the protocol wants them."""
    if protocol.yaw_source == "pose_para":
        return None
    labels = read_yaw_labels(protocol.yaw_labels)
    require_named(labels, pairs, source=protocol.yaw_labels)
    return labels


@hydra.main(config_path=CONFIG_DIR, config_name="eval", version_base="1.3")
@one_line_errors
def main(cfg: DictConfig) -> None:
    evaluate(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
