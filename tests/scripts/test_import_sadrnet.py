"""scripts/import_sadrnet.py: from a file like the public one to a checkpoint that eval takes."""

from pathlib import Path

import pytest
import torch

from prnet.export.sadrnet import MEAN_SHAPE_MAP, released_names
from prnet.models.loading import load_model
from prnet.models.sadrnet import SHAPE_UNIT, SADRNet
from tests.load_script import load_script

import_sadrnet = load_script("import_sadrnet")


@pytest.fixture(scope="module")
def network() -> SADRNet:
    torch.manual_seed(0)
    return SADRNet(layout="released")


@pytest.fixture(scope="module")
def mean_map(face) -> torch.Tensor:
    return face.uv.position_map(face.morphable_model.mean[None])[0] / SHAPE_UNIT


def write(path: Path, network: SADRNet, mean_map: torch.Tensor) -> Path:
    own = network.state_dict()
    state = {released: own[name] for released, name in released_names().items()}
    torch.save({**state, MEAN_SHAPE_MAP: mean_map}, path)
    return path


def test_public_weights_become_a_checkpoint(network, mean_map, face, tmp_path):
    output = tmp_path / "sadrnet_released.pt"
    file = write(tmp_path / "net_021.pth", network, mean_map)
    assert import_sadrnet.import_sadrnet(file, face=face, output=output) < 0.1
    model, checkpoint = load_model(output)
    assert checkpoint["pixel_origin"] == "sadrnet"
    assert checkpoint["face"] == face.describe()
    assert model.standardize
    assert model.alignment_rule == "released"
    found = model.state_dict()
    assert found.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor)


def test_mean_face_of_another_model_is_refused(network, mean_map, face, tmp_path):
    """Off by a known 150 micrometres at every texel."""
    moved = mean_map + torch.tensor([0.0, 150.0, 0.0])[:, None, None] / SHAPE_UNIT
    file = write(tmp_path / "net_021.pth", network, moved)
    with pytest.raises(ValueError, match="mean face is 150 micrometres from .* expected at most"):
        import_sadrnet.import_sadrnet(file, face=face, output=tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
