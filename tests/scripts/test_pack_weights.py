"""scripts/pack_weights.py, and the weights that come with the package."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from prnet import checkpoint as checkpoint_module
from prnet.checkpoint import load_checkpoint, save_checkpoint, shipped_weights
from prnet.entry import CONFIG_DIR
from prnet.eval import run_evaluation
from prnet.faces.embedded import load_embedded
from prnet.models.loading import load_model, require_same_face
from prnet.models.mobile_frnet import MobileFRNet
from tests.load_script import load_script

pack_weights = load_script("pack_weights")
SHIPPED = ["mobile_frnet_synthetic"]


@pytest.fixture(scope="module")
def embedded():
    return load_embedded()


@pytest.fixture
def trained(embedded) -> dict:
    """What a run leaves: statistics of whitening and of the batches, and an optimiser's state."""
    torch.manual_seed(0)
    model = MobileFRNet(num_shape=3, num_exp=2)
    model.set_statistics(torch.randn(17), torch.rand(17) + 1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return {
        "model": {"name": "mobile_frnet", "num_shape": 3, "num_exp": 2},
        "face": embedded.describe(),
        "pixel_origin": "zero_based",
        "experiment": "mobile_frnet_synthetic",
        "weights": model.state_dict(),
        "training": {"step": 3},
    }


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["pack_weights.py", *map(str, arguments)])
    pack_weights.main()


def test_packed_weights_are_half_and_predict_the_same(trained, tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "best.pt", {**trained, "training": {}})
    run(monkeypatch, "--checkpoint", tmp_path / "best.pt", "--output", tmp_path / "packed.pt")

    assert "packed.pt: 5." in capsys.readouterr().out
    packed = load_checkpoint(tmp_path / "packed.pt")
    assert set(packed) == {"format", *trained} - {"training"}
    before, _ = load_model(tmp_path / "best.pt")
    after, _ = load_model(tmp_path / "packed.pt")
    learned = dict(before.named_parameters())
    for name, tensor in packed["weights"].items():
        assert (tensor.dtype == torch.float16) == (name in learned)
        if name not in learned:
            assert torch.equal(tensor, trained["weights"][name])
    assert all(parameter.dtype == torch.float32 for parameter in after.parameters())
    images = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        old, new = before.train()(images).parameters, after.train()(images).parameters
    torch.testing.assert_close(new, old, rtol=0, atol=2e-2)
    assert not torch.equal(new, old)


@pytest.mark.parametrize("face", [None, {"name": "bfm"}])
def test_weights_of_another_face_may_not_travel(face, trained, tmp_path, monkeypatch):
    state = {key: value for key, value in trained.items() if key != "face"}
    save_checkpoint(tmp_path / "best.pt", state if face is None else {**state, "face": face})
    with pytest.raises(SystemExit, match=r"best\.pt: trained for the face .*whose terms bind"):
        run(monkeypatch, "--checkpoint", tmp_path / "best.pt", "--output", tmp_path / "packed.pt")
    assert not (tmp_path / "packed.pt").exists()


def test_a_weight_beyond_half_precision_is_refused(trained, tmp_path, monkeypatch):
    name = next(name for name in trained["weights"] if name.endswith("weight"))
    trained["weights"][name].flatten()[0] = 1e5
    save_checkpoint(tmp_path / "best.pt", trained)
    with pytest.raises(SystemExit, match=f"{name} is beyond the range of float16"):
        run(monkeypatch, "--checkpoint", tmp_path / "best.pt", "--output", tmp_path / "packed.pt")


def test_shipped_weights_are_found_by_name(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_DIR", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    save_checkpoint(tmp_path / "weights" / "small.pt", trained)
    monkeypatch.chdir(tmp_path)

    assert load_checkpoint("small")["experiment"] == "mobile_frnet_synthetic"
    with pytest.raises(FileNotFoundError, match="large: no such file.*with the package come small"):
        load_checkpoint("large")
    save_checkpoint(tmp_path / "small", {**trained, "experiment": "a file comes first"})
    assert load_checkpoint("small")["experiment"] == "a file comes first"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_synthetic_and_small(name, embedded):
    assert list(shipped_weights()) == SHIPPED
    checkpoint = load_checkpoint(name)
    require_same_face(checkpoint, embedded, source=name)
    assert checkpoint["face"]["name"] == "embedded"
    assert "training" not in checkpoint
    assert shipped_weights()[name].stat().st_size < 6e6


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_finds_faces(name, tmp_path):
    """Faces it was not trained on; the mean face in the box of the truth is off by 20 %."""
    settings = [f"checkpoint={name}", f"report={tmp_path}/report.json", "dataset.held_out=16"]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("eval", overrides=[*settings, "device=cpu", "num_workers=0"])
    metrics = run_evaluation(cfg, tmp_path)["metrics"]
    assert metrics["nme_68_2d"]["mean"] < 7
    assert metrics["nme_dense_3d"]["mean"] < 9
