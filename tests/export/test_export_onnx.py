"""ONNX files: a runtime without torch computes what torch does, of every network, for any batch."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from prnet.detection.framing import crop_from_picture, framing_of_points
from prnet.entry import CONFIG_DIR, shipped_values
from prnet.export.onnx import IMAGE, difference, in_half, write_onnx
from prnet.faces.face import Face
from prnet.geometry.camera import transform_points
from prnet.models import mobile_frnet, mobilenet_v1
from prnet.models.attention import SpatialGroupEnhance
from prnet.models.compact import Compact
from prnet.models.face_decoder import FaceDecoder
from prnet.models.loading import build_network
from prnet.models.network import Network
from prnet.models.sadrnet import SADRNet
from prnet.models.swift import Swift
from tests.small_face import small_face
from tests.tiny import tiny_face

onnxruntime = pytest.importorskip("onnxruntime")

SIDE = 64
NAMES = sorted(file.stem for file in Path(CONFIG_DIR, "model").glob("*.yaml"))
NARROW = {"width": 2, "rank": 16, "grid": 16, "num_shape": 3, "num_exp": 2, "input_side": 32}


@pytest.fixture(scope="module")
def face() -> Face:
    small, tiny = small_face(SIDE), tiny_face()
    triangles, landmarks = (
        torch.from_numpy(index.astype(np.int64)) for index in (tiny.triangles, tiny.landmark_index)
    )
    rest = torch.zeros(small.morphable_model.num_vertices, dtype=torch.bool)
    return Face("tiny", small.morphable_model, small.uv, triangles, landmarks, {"rest": rest})


@pytest.fixture
def shallow(monkeypatch) -> None:
    """Every kind of layer of the deep networks, but each few times."""

    def resnet(num_classes: int, groups: int = 1) -> nn.Module:
        width = {"groups": groups, "width_per_group": 16 // groups}
        return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes, **width)

    stages = [[1, 16, 1, 1], [6, 24, 2, 2]]
    monkeypatch.setattr(models, "resnet50", resnet)
    monkeypatch.setattr(models, "resnext50_32x4d", lambda num_classes: resnet(num_classes, 4))
    monkeypatch.setattr(
        models,
        "densenet121",
        lambda num_classes: models.DenseNet(4, (2, 1, 1, 1), 8, 4, 0, num_classes),
    )
    monkeypatch.setattr(
        models, "mobilenet_v2", lambda num_classes: models.MobileNetV2(num_classes, 0.5, stages)
    )
    monkeypatch.setattr(mobilenet_v1, "PLAN", ((64, 1), (128, 2)))
    monkeypatch.setattr(mobile_frnet, "STAGES", ((1, 16, 1, 1), (6, 24, 2, 2)))
    monkeypatch.setattr(mobile_frnet, "LAST", 32)


def pictures(count: int) -> torch.Tensor:
    """Noise of different colours and coarseness, (B, 3, H, H)."""
    random = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 4, 4, generator=random)
    grown = nn.functional.interpolate(coarse, SIDE, mode="bilinear")
    return (grown + 0.2 * torch.rand(count, 3, SIDE, SIDE, generator=random)).clamp(0, 1)


def network(name: str) -> Network:
    """That of configs/model/NAME.yaml, small, with weights that let no layer pass unnoticed."""
    configured = shipped_values("model", name)
    values = {k: v for k, v in configured["network"].items() if k != "_target_"}
    values |= {key: value for key, value in NARROW.items() if key in values}
    own = {"2dasl": {"input_side": 100}, "mobilenet_v1": {"width": 0.25}, "swift": {"trim": 0}}
    values |= own.get(name, {})
    torch.manual_seed(0)
    model = build_network({"name": configured["name"], **values}, source=name)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.2, 0.1)  # of three channels with ReLU none is dead
            nn.init.uniform_(layer.running_var, 0.5, 2)
        elif isinstance(layer, SpatialGroupEnhance):
            nn.init.normal_(layer.weight)  # starts at 0, which would hide what it does
    # Coordinates of the size of the crop's.
    with torch.no_grad():
        if isinstance(model, Compact):
            model.head.weight.mul_(0.05)
        if isinstance(model, Swift):  # points that lie apart
            model.head.weight.normal_(std=0.01)
            model.head.bias.normal_(std=0.5)
        if isinstance(model, SADRNet):
            for head, gain in ((model.pose_dependent_head, 0.1), (model.deformation_head, 0.01)):
                head[-1][1].weight.fill_(gain)
                head[-1][1].bias.fill_(0.1 * gain)
    if model.num_parameters is not None:
        scale = 0.6 * SIDE / 2.1e5
        mean, std = torch.zeros(17), torch.full((17,), 0.1 * scale)
        mean[[0, 5, 10]], mean[[3, 7]] = scale, torch.tensor([SIDE / 2, -SIDE / 2])
        std[[3, 7]], std[12:15], std[15:] = 2.0, 1e4, 0.5
        model.set_statistics(mean, std)
    return model.train()  # as a checkpoint's is: the file is of eval mode


@pytest.mark.parametrize("name", NAMES)
def test_runtime_agrees_with_torch(name, face, shallow, tmp_path, caplog):
    caplog.set_level("INFO")
    path, said = tmp_path / "face.onnx", []
    model = network(name)
    computed = write_onnx(model, face, path, metadata={"by": "test"}, say=said.append)
    model.eval().set_face(face)
    decoder = FaceDecoder(model, face)
    assert [file.name for file in tmp_path.iterdir()] == ["face.onnx"]
    assert len(said) == 3
    assert not caplog.messages  # the exporter's own
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert (facts["by"], json.loads(facts["face"])["name"]) == ("test", "tiny")
    for batch in (1, 3):
        images = pictures(batch)
        found = dict(zip(computed.outputs, session.run(None, {IMAGE: images.numpy()}), strict=True))
        with torch.inference_mode():
            prediction = model(images)
        assert found["position_map"].shape == (batch, 3, SIDE, SIDE)
        assert found["landmarks"].shape == (batch, 68, 3)
        moved = np.abs(found["landmarks"] - found["landmarks"][:1]).mean((1, 2))
        assert (moved[1:] > 0.01).all()  # it sees the image
        position_map = decoder.position_map(prediction, decoder.mesh(prediction))
        assert np.abs(found["position_map"] - position_map.numpy()).max() < 1e-3
        assert difference(path, computed, images).largest_px < 1e-3
        if prediction.parameters is not None:
            np.testing.assert_allclose(
                found["parameters"], prediction.parameters.numpy(), rtol=5e-4, atol=1e-4
            )
            index = face.landmark_index.numpy()
            assert np.array_equal(found["vertices"][:, index], found["landmarks"])


@pytest.mark.parametrize("name", ["compact", "mobile_frnet", "prn"])
def test_half_precision_is_close_and_half_as_large(name, face, shallow, tmp_path):
    images = pictures(2)
    computed = write_onnx(network(name), face, tmp_path / "fp16.onnx", precision="fp16")
    assert 0 < difference(tmp_path / "fp16.onnx", computed, images).landmarks_nme < 0.1
    assert all(p.dtype == torch.float32 for p in computed.parameters())
    half = in_half(computed, images)
    sizes = [sum(p.numel() * p.element_size() for p in m.parameters()) for m in (half, computed)]
    assert sizes[0] < (0.9 if name == "compact" else 0.6) * sizes[1]


def test_missing_packages_are_named(face, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "prnet\[onnx\]"'):
        write_onnx(network("prn"), face, tmp_path / "face.onnx")


def test_the_example_runs_without_the_package(face, shallow, tmp_path):
    """A photo with a box in, the photo with its landmarks and their file out: those of the network
    in the package's own crop."""
    computed = write_onnx(network("mobilenet_v1"), face, tmp_path / "face.onnx")
    source = Path(__file__).parents[2]
    assert str(source).encode() not in (tmp_path / "face.onnx").read_bytes()
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "photo.png"), picture)
    script = source / "scripts" / "run_onnx.py"
    words = ["face.onnx", "photo.png", "30", "20", "70", "60", "out.png"]
    guard = "import sys, runpy; sys.modules['prnet'] = sys.modules['torch'] = None; "
    code = guard + "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, script, *words], cwd=tmp_path, check=True)
    drawn = cv2.imread(str(tmp_path / "out.png"))
    assert drawn.shape == picture.shape
    landmarks = np.loadtxt(tmp_path / "out.csv", delimiter=",")
    assert landmarks.shape == (68, 3)
    framing = framing_of_points(np.array([[30, 20], [70, 60]]))
    crop_from_photo = crop_from_picture([framing], scale=1.5, span=SIDE - 1).numpy()[0]
    crop = cv2.warpAffine(picture[..., ::-1], crop_from_photo[:2, [0, 1, 3]], (SIDE, SIDE))
    image = torch.from_numpy(crop).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        expected = computed(image)[1].double().numpy()
    expected = transform_points(np.linalg.inv(crop_from_photo), expected[0])
    assert np.abs(landmarks - expected).max() < 1e-3
