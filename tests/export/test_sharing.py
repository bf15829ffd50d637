"""Weights to share: half the size, a card beside them; and those that come with the package."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from prnet import checkpoint as checkpoint_module
from prnet.checkpoint import load_checkpoint, save_checkpoint, shipped_weights
from prnet.entry import CONFIG_DIR
from prnet.eval import run_evaluation
from prnet.export.sharing import Score, make_card, shared_checkpoint, write_shared
from prnet.faces.embedded import load_embedded
from prnet.models.loading import load_model, require_same_face
from prnet.models.mobile_frnet import MobileFRNet
from tests.commands import run_commands

SHIPPED = ["swift_synthetic"]


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


SAID = {
    "data": "synthetic faces, none | other",
    "license": "Apache-2.0",
    "command": "python -m prnet.train",
    "commit": "abc123",
}
SCORE = Score("aflw2000", 253, "default", "68 landmarks, 2D", 5.7, 5.1, "%")


def share(source: Path, output: Path, *, half: bool = True) -> dict:
    checkpoint = shared_checkpoint(source, half=half)
    write_shared(checkpoint, make_card(checkpoint, **SAID, scores=[SCORE]), output)
    return load_checkpoint(output)


def test_shared_weights_are_half_and_predict_the_same(trained, tmp_path):
    save_checkpoint(tmp_path / "best.pt", {**trained, "training": {}})
    shared = share(tmp_path / "best.pt", tmp_path / "shared.safetensors")
    assert (tmp_path / "shared.safetensors").stat().st_size < 5.4e6
    assert set(shared) == {"format", "card", *trained} - {"training"}
    before, _ = load_model(tmp_path / "best.pt")
    after, _ = load_model(tmp_path / "shared.safetensors")
    learned = dict(before.named_parameters())
    for name, tensor in shared["weights"].items():
        assert (tensor.dtype == torch.float16) == (name in learned)
        if name not in learned:
            assert torch.equal(tensor, trained["weights"][name])
    assert all(parameter.dtype == torch.float32 for parameter in after.parameters())
    images = torch.rand(2, 3, 256, 256)
    with torch.inference_mode():
        old, new = before.train()(images).parameters, after.train()(images).parameters
    torch.testing.assert_close(new, old, rtol=0, atol=2e-2)
    assert not torch.equal(new, old)


def test_full_precision_is_bit_for_bit(trained, tmp_path):
    save_checkpoint(tmp_path / "best.pt", trained)
    shared = share(tmp_path / "best.pt", tmp_path / "shared.safetensors", half=False)
    for name, tensor in trained["weights"].items():
        assert torch.equal(shared["weights"][name], tensor)
        assert shared["weights"][name].dtype == tensor.dtype


def test_the_card_says_what_the_weights_are(trained, tmp_path):
    save_checkpoint(tmp_path / "best.pt", trained)
    path = tmp_path / "shared.safetensors"
    card = share(tmp_path / "best.pt", path)["card"]
    text = (tmp_path / "shared.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: prnet\n---\n\n# shared\n")
    for key, value in SAID.items():
        assert card[key] == value
        assert value.replace("|", "\\|") in text
    assert card["scores"] == [SCORE._asdict()]
    assert "| aflw2000 | 253 | default | 68 landmarks, 2D, % | 5.70 | 5.10 |" in text
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert card["face"] == "embedded"


def test_the_card_of_a_licensed_face_says_so(trained, tmp_path):
    save_checkpoint(tmp_path / "best.pt", {**trained, "face": {"name": "bfm"}})
    card = share(tmp_path / "best.pt", tmp_path / "shared.safetensors")["card"]
    assert "research only" in card["face"]


def test_a_weight_beyond_half_precision_is_refused(trained, tmp_path):
    name = next(name for name in trained["weights"] if name.endswith("weight"))
    trained["weights"][name].flatten()[0] = 1e5
    save_checkpoint(tmp_path / "best.pt", trained)
    with pytest.raises(ValueError, match=f"{name} is beyond the range of float16"):
        shared_checkpoint(tmp_path / "best.pt", half=True)


def test_the_command_shares_and_needs_a_card(trained, tmp_path):
    save_checkpoint(tmp_path / "best.pt", trained)
    report = {"dataset": "aflw2000", "source": "checkpoint x", "count": 7}
    means = {"mean": 2.5, "mean_of_bins": 3.25, "std_of_bins": 1.0, "bins": {}}
    report |= {"protocol": {"name": "default"}, "metrics": {"nme_68_2d": means}, "not_computed": {}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    words = ["prnet.export", f"checkpoint={tmp_path}", "output=shared.safetensors"]
    card = ["card.data='made, all of it'", "card.license=CC0-1.0", "card.command=train"]
    without, given, other = run_commands(
        words,
        [*words, *card, "card.reports=[report.json]", "precision=fp16"],
        [*words[:2], "output=shared.pt"],
        cwd=tmp_path,
    )
    assert "need a card: give card.data=, card.license=, card.command=" in without
    assert "exit 0" in given
    assert "output: ending: got '.pt', expected one of" in other
    text = (tmp_path / "shared.md").read_text()
    assert "| aflw2000 | 7 | default | 68 landmarks, 2D, % | 3.25 | 2.50 |" in text
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith("shared")) == [
        "shared.md",
        "shared.safetensors",
    ]


def test_shipped_weights_are_found_by_name(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_DIR", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    plain = {key: value for key, value in trained.items() if key != "training"}
    save_checkpoint(tmp_path / "weights" / "small.safetensors", plain)
    monkeypatch.setattr(checkpoint_module, "DEFAULT", "small")
    monkeypatch.chdir(tmp_path)
    assert load_checkpoint("default")["experiment"] == "mobile_frnet_synthetic"

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
    card = checkpoint["card"]
    assert card["license"] == "Apache-2.0"
    assert "synthetic" in card["data"]
    assert card["scores"]
    path = shipped_weights()[name]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest in path.with_suffix(".md").read_text()
    assert path.stat().st_size < 6e6


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_finds_faces(name, tmp_path):
    """Faces it was not trained on; the mean face in the box of the truth is off by 20 %."""
    settings = [f"checkpoint={name}", f"report={tmp_path}/report.json", "dataset.held_out=16"]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("eval", overrides=[*settings, "device=cpu", "num_workers=0"])
    metrics = run_evaluation(cfg, tmp_path)["metrics"]
    assert metrics["nme_68_2d"]["mean"] < 7
    assert metrics["nme_dense_3d"]["mean"] < 9
