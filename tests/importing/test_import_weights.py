"""prnet.import_weights: each layout recognised, complete, and computing what its own code does.

The networks beside the package's are written here with torch alone, every tensor named as the
published code names it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prnet.checkpoint import load_weights
from prnet.entry import shipped_values
from prnet.faces.face import Face
from prnet.import_weights import import_weights, main, recognised
from prnet.importing import ddfa, prn
from prnet.importing.sadrnet import MEAN_SHAPE_MAP, released_names
from prnet.importing.states import Imported, read_state
from prnet.models.loading import build_network, load_model
from prnet.models.mobilenet_v1 import MobileNetV1
from prnet.models.network import Network
from prnet.models.prn import PRN
from prnet.models.sadrnet import SHAPE_UNIT, SADRNet
from tests.configurations import composed
from tests.lived_in import lived_in
from tests.load_script import SCRIPTS

PLAN = [(m, s) for m in (2, 4, 8, 16, 32) for s in (2, 1)]
DECONVS = [(32, 1), (16, 2), (16, 1), (16, 1), (8, 2), (8, 1), (8, 1), (4, 2), (4, 1), (4, 1)]
DECONVS += [(2, 2), (2, 1), (1, 2), (1, 1)]


def built(found: Imported) -> Network:
    """As the command builds it."""
    configured = shipped_values("model", found.configuration)
    values = {k: v for k, v in configured["network"].items() if not k.startswith("_")}
    model = build_network({"name": configured["name"], **values, **found.changes}, source="x")
    load_weights(model, found.weights, source="x")
    return model.eval()


class TheirPRN(nn.Module):
    """InitPRN2 of reshow/PRNet-PyTorch at a width, under the PyTorch of then."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm = lambda channels: nn.BatchNorm2d(channels, eps=1e-3)  # noqa: E731

        def pipe(conv: nn.Module) -> nn.Module:
            module = nn.Module()
            module.pipe = nn.Sequential(conv, norm(conv.out_channels), nn.ReLU())
            return module

        self.layer0 = pipe(nn.Conv2d(3, width, 4, padding=1, bias=False))
        channels, blocks = width, []
        for multiple, stride in PLAN:
            out, block = multiple * width, nn.Module()
            block.pipe = nn.Sequential(
                pipe(nn.Conv2d(channels, out // 2, 1, bias=False)),
                pipe(nn.Conv2d(out // 2, out // 2, 4, stride, bias=False)),
                nn.Conv2d(out // 2, out, 1, bias=False),
            )
            block.shortcut = nn.Sequential()
            if stride == 2:
                block.shortcut.append(nn.Conv2d(channels, out, 1, stride, bias=False))
            block.BN_AC = nn.Sequential(norm(out), nn.ReLU())
            blocks.append(block)
            channels = out
        self.encoder = nn.Sequential(*blocks)
        layers = []
        for out, stride in [*((m * width, s) for m, s in DECONVS), *((3, 1),) * 3]:
            layer = nn.Module()
            layer.deconv = nn.ConvTranspose2d(
                channels, out, 4, stride, padding=1, output_padding=stride - 1, bias=False
            )
            last = nn.Tanh() if len(layers) == 16 else nn.ReLU()
            layer.BN_AC = nn.Sequential(norm(out), last)
            layers.append(layer)
            channels = out
        self.decoder = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        mean = image.mean((2, 3), keepdim=True)
        variance = (image - mean).square().mean((2, 3), keepdim=True)
        x = self.layer0.pipe((image - mean) / (variance + 0.001).sqrt())
        for block in self.encoder:
            y = block.pipe[0].pipe(x)
            rows, columns = ((torch.arange(n + 3) - 2) % n for n in y.shape[2:])
            y = block.pipe[1].pipe(y[..., rows, :][..., columns])
            x = block.BN_AC(block.pipe[2](y) + block.shortcut(x))
        for layer in self.decoder:
            x = layer.BN_AC(layer.deconv(x)[..., 1:, 1:])
        return x


def test_pytorch_prn_computes_what_theirs_does():
    torch.manual_seed(0)
    theirs = lived_in(TheirPRN(2))
    with torch.no_grad():
        theirs.decoder[16].BN_AC[0].weight.fill_(0.3)  # within the tanh's range
    found = recognised({**theirs.state_dict(), "loss.criterion.mask": torch.ones(1)}, None)
    assert (found.source, found.pixel_origin) == (prn.PYTORCH, "face3d")
    model = built(found)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, position_map = theirs(image), model(image).position_map
    assert (expected[0] - expected[1]).std() > 0.02 * expected.std()
    torch.testing.assert_close(position_map, 280 * expected, rtol=0, atol=5e-3)


def tensorflow_arrays(model: PRN) -> dict[str, np.ndarray]:
    """The network's weights as the graph holds them: kernels [k, k, in, out], deconvolutions'
    [k, k, out, in]; the moments of Adam beside some of them."""
    state, arrays = model.state_dict(), {}
    for theirs, own in prn.tensorflow_names().items():
        array = state[own].numpy()
        if array.ndim == 4:  # torch's (out, in, k, k), deconvolutions' (in, out, k, k)
            array = array.transpose(2, 3, 1, 0)
        arrays[theirs] = array
    arrays |= {f"{name}/Adam": arrays[name] for name in [*arrays][:3]}
    return arrays | {"beta1_power": np.float32(0.9)}


def test_tensorflow_weights_are_those_of_the_network(tmp_path):
    torch.manual_seed(0)
    model = lived_in(PRN(width=2))
    np.savez(tmp_path / "prnet.npz", **tensorflow_arrays(model))
    found = recognised(read_state(tmp_path / "prnet.npz"), None)
    assert (found.source, found.pixel_origin) == (prn.TENSORFLOW, "face3d")
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected, position_map = model(image).position_map, built(found)(image).position_map
    assert torch.equal(position_map, expected)


def test_tensorflow_names_are_the_published_ones():
    """Of the checkpoint's index: 245 variables; some of them by hand."""
    names = prn.tensorflow_names()
    shapes = {name: tuple(t.shape) for name, t in PRN().state_dict().items()}
    assert len(names) == 245
    assert len(set(names.values())) == 245
    assert set(names.values()) == {name for name in shapes if "num_batches" not in name}
    for name, shape in {
        "resfcn256/Conv/weights": (4, 4, 3, 16),
        "resfcn256/resBlock/Conv/weights": (1, 1, 16, 16),
        "resfcn256/resBlock/Conv_1/BatchNorm/moving_variance": (16,),
        "resfcn256/resBlock/shortcut/weights": (1, 1, 16, 32),
        "resfcn256/resBlock_9/Conv_2/weights": (1, 1, 256, 512),
        "resfcn256/resBlock_9/BatchNorm/gamma": (512,),
        "resfcn256/Conv2d_transpose/weights": (4, 4, 512, 512),
        "resfcn256/Conv2d_transpose_12/weights": (4, 4, 16, 32),
        "resfcn256/Conv2d_transpose_16/BatchNorm/beta": (3,),
    }.items():
        own = shapes[names[name]]
        assert (own if len(own) == 1 else tuple(own[i] for i in (2, 3, 1, 0))) == shape
    assert "resfcn256/resBlock_1/shortcut/weights" not in names


class TheirMobileNet(nn.Module):
    """3DDFA_V2's, whose head is one of two in training."""

    def __init__(self, width: float, outputs: int = 62) -> None:
        super().__init__()
        w = lambda channels: int(channels * width)  # noqa: E731
        self.conv1 = nn.Conv2d(3, w(32), 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(w(32))
        plan = {"2_1": (32, 64, 1), "2_2": (64, 128, 2), "3_1": (128, 128, 1)}
        plan |= {"3_2": (128, 256, 2), "4_1": (256, 256, 1), "4_2": (256, 512, 2)}
        plan |= {f"5_{i}": (512, 512, 1) for i in range(1, 6)}
        plan |= {"5_6": (512, 1024, 2), "6": (1024, 1024, 1)}
        self.blocks = []
        for name, (inputs, out, stride) in plan.items():
            block = nn.Module()
            block.conv_dw = nn.Conv2d(
                w(inputs), w(inputs), 3, stride, 1, groups=w(inputs), bias=False
            )
            block.bn_dw = nn.BatchNorm2d(w(inputs))
            block.conv_sep = nn.Conv2d(w(inputs), w(out), 1, bias=False)
            block.bn_sep = nn.BatchNorm2d(w(out))
            self.add_module(f"dw{name}", block)
            self.blocks.append(f"dw{name}")
        self.fc_param = nn.Linear(w(1024), outputs)
        self.fc_lm = nn.Linear(w(1024), 136)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for block in map(self.get_submodule, self.blocks):
            x = block.bn_dw(block.conv_dw(x)).relu()
            x = block.bn_sep(block.conv_sep(x)).relu()
        return self.fc_param(functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def mobilenet() -> TheirMobileNet:
    torch.manual_seed(0)
    return lived_in(TheirMobileNet(0.25))


@pytest.fixture(scope="module")
def whitening() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    mean, std = torch.randn(62, generator=random), torch.rand(62, generator=random) + 0.5
    mean[[3, 7]] = torch.tensor([60.0, 70.0])
    return {"mean": mean, "std": std}


def test_ddfa_network_computes_what_theirs_does(mobilenet, whitening, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in mobilenet.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "mb025.pth")
    found = recognised(read_state(tmp_path / "mb025.pth"), whitening)
    model = built(found)
    assert isinstance(model, MobileNetV1)
    picture = torch.randint(0, 256, (2, 3, 120, 120)).float()  # RGB, of their crop's side
    with torch.no_grad():
        expected = mobilenet((picture.flip(1) - 127.5) / 128)
        image = model.prepare(picture / 255)
        torch.testing.assert_close(model.whitened(image), expected, rtol=1e-4, atol=1e-4)


def test_ddfa_points_are_theirs_in_the_larger_crop(whitening):
    """A vertex by TDDFA's recon_vers, px of the 120 crop from 0, and by the whitening here."""
    numbers = torch.randn(5, 62, generator=torch.Generator().manual_seed(2))
    vertex = torch.tensor([0.3, -2.0, 5.0])
    theirs = (numbers * whitening["std"] + whitening["mean"])[:, :12].reshape(5, 3, 4)
    posed = theirs[:, :, :3] @ vertex + theirs[:, :, 3]
    x, y = posed[:, 0] - 1, 120 - posed[:, 1]
    mean, std = ddfa.whitening_here(**whitening)
    own = (numbers * std + mean)[:, :12].reshape(5, 3, 4)
    placed = (own[:, :, :3] @ vertex + own[:, :, 3]) * torch.tensor([1.0, -1.0, 1.0])
    for found, expected in ((placed[:, 0], x), (placed[:, 1], y)):
        resampled = (expected + 0.5) * 256 / 120 - 0.5
        torch.testing.assert_close(found, resampled, rtol=1e-5, atol=1e-3)
    assert torch.equal(mean[12:], whitening["mean"][12:])


def test_ddfa_needs_its_whitening(mobilenet, whitening):
    with pytest.raises(ValueError, match=r"give whitening=FILE\.npz, .*param_mean_std_62d"):
        recognised(mobilenet.state_dict(), None)
    with pytest.raises(ValueError, match=r"whitening: got .*'mean': \(61,\).* std \(62,\)"):
        recognised(mobilenet.state_dict(), {**whitening, "mean": torch.zeros(61)})


@pytest.fixture(scope="module")
def public_sadrnet(face) -> dict[str, Tensor]:
    torch.manual_seed(0)
    own = SADRNet(layout="released", width=2).state_dict()
    mean_map = face.uv.position_map(face.morphable_model.mean[None])[0] / SHAPE_UNIT
    released = {theirs: own[name] for theirs, name in released_names().own.items()}
    return {**released, MEAN_SHAPE_MAP: mean_map}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_public_weights_become_a_checkpoint(public_sadrnet, face, prefix, suffix, tmp_path):
    torch.save({f"{prefix}{n}": t for n, t in public_sadrnet.items()}, tmp_path / "net_021.pth")
    output = tmp_path / f"sadrnet{suffix}"
    import_weights(tmp_path / "net_021.pth", face=face, output=output)
    model, checkpoint = load_model(output)
    assert checkpoint["pixel_origin"] == "sadrnet"
    assert checkpoint["face"] == face.describe()
    assert model.standardize
    assert model.alignment_rule == "released"
    found = model.state_dict()
    for theirs, own in released_names().own.items():
        assert torch.equal(found[own], public_sadrnet[theirs])


def test_mean_face_of_another_model_is_refused(public_sadrnet, face, tmp_path):
    """Off by a known 150 micrometres at every texel."""
    apart = torch.tensor([0.0, 150.0, 0.0])[:, None, None] / SHAPE_UNIT
    moved = {**public_sadrnet, MEAN_SHAPE_MAP: public_sadrnet[MEAN_SHAPE_MAP] + apart}
    torch.save(moved, tmp_path / "net_021.pth")
    with pytest.raises(ValueError, match="mean face is 150 micrometres from .* expected at most"):
        import_weights(tmp_path / "net_021.pth", face=face, output=tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_a_face_of_too_few_bases_is_refused(mobilenet, whitening, face: Face, tmp_path):
    torch.save(mobilenet.state_dict(), tmp_path / "mb.pth")
    np.savez(tmp_path / "w.npz", **{name: t.numpy() for name, t in whitening.items()})
    files = {"output": tmp_path / "out.pt", "whitening": tmp_path / "w.npz"}
    with pytest.raises(ValueError, match="40 shape and 10 expression coefficients, the face has"):
        import_weights(tmp_path / "mb.pth", face=face, **files)
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("change", ["missing", "unexpected"])
@pytest.mark.parametrize("layout", ["tensorflow", "pytorch", "ddfa"])
def test_anything_but_every_tensor_is_refused(layout, change, mobilenet, whitening):
    make: dict[str, Callable[[], dict]] = {
        "tensorflow": lambda: {k: torch.zeros(1) for k in prn.tensorflow_names()},
        "pytorch": lambda: {k: torch.zeros(1) for k in prn.pytorch_names().own},
        "ddfa": lambda: dict(mobilenet.state_dict()),
    }
    state = make[layout]()
    scope = prn.SCOPE if layout == "tensorflow" else ""
    if change == "missing":
        del state[[*state][-1 if layout != "ddfa" else 7]]
    else:
        state[f"{scope}extra"] = torch.zeros(1)
    with pytest.raises(ValueError, match=f"not the weights of .*1 {change}"):
        recognised(state, whitening)


def test_a_file_that_is_not_there_is_told_before_the_face_is_read(tmp_path):
    """Of a folder without a BFM, which would be the next to be missed."""
    cfg = composed("import_weights", f"data_dir={tmp_path}", "output=a.pt", "input=net_021.pth")
    with pytest.raises(FileNotFoundError, match="net_021.pth: no such file of weights"):
        main(cfg)


def test_weights_of_nobody_are_named(tmp_path, face):
    torch.save({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: 2 tensors \(a, b, \.\.\.\), expected SADRNet's"):
        import_weights(tmp_path / "x.pth", face=face, output=tmp_path / "out.pt")


def test_the_script_for_tensorflow_is_of_its_interface(tmp_path):
    """TensorFlow is not at hand: what of it the script calls is stood in for."""
    import runpy
    import sys
    import types

    arrays = tensorflow_arrays(PRN(width=1))

    class Reader:
        def get_variable_to_shape_map(self) -> dict:
            return {name: array.shape for name, array in arrays.items()}

        def get_tensor(self, name: str) -> np.ndarray:
            return arrays[name]

    module = types.ModuleType("tensorflow")
    module.train = types.SimpleNamespace(load_checkpoint=lambda path: Reader())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", module)
        patch.setattr(sys, "argv", ["prnet_to_npz.py", "weights", str(tmp_path / "prnet.npz")])
        runpy.run_path(str(Path(SCRIPTS, "prnet_to_npz.py")))
    state = read_state(tmp_path / "prnet.npz")
    assert not [name for name in state if "Adam" in name]
    assert recognised(state, None).changes == {"width": 1}
