"""ONNX files: a runtime without torch computes what torch does, for any number of faces."""

import sys

import pytest
import torch
from torch import nn

from prnet.export.onnx import ParametersAlone, example_inputs, write_onnx
from prnet.models.attention import SpatialGroupEnhance, SqueezeExcitation
from prnet.models.mobile_frnet import MobileBlock
from prnet.models.prn import PRN
from prnet.models.regressor import Regressor

onnxruntime = pytest.importorskip("onnxruntime")


class Small(Regressor):
    """Each kind of layer of Mobile-FRNet once; three input channels, or four as 2DASL."""

    def __init__(self, channels: int) -> None:
        super().__init__(num_shape=3, num_exp=2, input_side=32, channel_order="bgr")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            MobileBlock(16, 24, expansion=6, stride=2, scales=4, sge_groups=64),
            MobileBlock(24, 24, expansion=6, stride=1, scales=4, sge_groups=64),
            SqueezeExcitation(24, reduction=2),
        )
        self.head = nn.Linear(24, self.num_parameters)
        for module in self.modules():
            if isinstance(module, SpatialGroupEnhance):
                nn.init.normal_(module.weight)  # starts at 0, which would hide what it does

    def whitened(self, image):
        return self.head(self.features(image).mean((2, 3)))


@pytest.mark.parametrize("channels", [3, 4])
def test_runtime_agrees_with_torch(channels, tmp_path):
    torch.manual_seed(0)
    model = Small(channels).eval()
    model.set_statistics(torch.randn(17), torch.rand(17) + 1)
    path = tmp_path / "face.onnx"
    write_onnx(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [file.name for file in tmp_path.iterdir()] == ["face.onnx"]
    for batch in (1, 3):
        inputs = example_inputs(model, batch=batch)
        assert ("landmark_map" in inputs) == (channels == 4)
        with torch.inference_mode():
            expected = ParametersAlone(model)(*inputs.values())
        assert len(expected.unique(dim=0)) == batch  # it sees the image
        arrays = {name: values.numpy() for name, values in inputs.items()}
        (found,) = session.run(["parameters"], arrays)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_parameters_are_those_of_the_network():
    """The wrapper leaves out no step of `forward`: the channels' order, the whitening."""
    torch.manual_seed(0)
    model = Small(3).train()
    model.set_statistics(torch.randn(17), torch.rand(17) + 1)
    model.features.eval()
    image = example_inputs(model)["image"]
    torch.testing.assert_close(ParametersAlone(model)(image), model(image).parameters)


def test_networks_of_maps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="PRN predicts a map; only networks that regress"):
        write_onnx(PRN(width=1), tmp_path / "map.onnx")


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "prnet\[onnx\]"'):
        write_onnx(Small(3), tmp_path / "face.onnx")
