"""The importer of the public SADRNet weights, on files made by an independent network of theirs.

`Theirs` gives every tensor the name and the shape that the released code gives it, and computes
what it computes with nothing of the package.
"""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prnet.checkpoint import load_weights
from prnet.importing.sadrnet import import_sadrnet, released_names
from prnet.importing.states import Imported, read_state
from prnet.models.sadrnet import SADRNet
from tests.lived_in import lived_in
from tests.small_face import small_face


class Theirs(nn.Module):
    """The released network of a width, as a tree of named layers and one forward pass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer0 = self.pipe(nn.Conv2d(3, width, 4, padding=1, bias=False))
        channels, plan = width, [(m, s) for m in (2, 4, 8, 16, 32) for s in (2, 1)]
        for i, (multiple, stride) in enumerate(plan, start=1):
            setattr(self, f"block{i}", self.block(channels, multiple * width, stride))
            channels = multiple * width
        branch = 16 * width
        self.attention_branch = nn.Module()
        for i in range(1, 5):
            conv = nn.Conv2d(8 * width if i == 1 else branch, branch, 3, padding=1, bias=False)
            self.attention_branch.add_module(f"conv{i}", self.pipe(conv))
        self.attention_branch.conv5 = nn.Conv2d(branch, 1, 3, padding=1, bias=False)
        low = [(32, 1), (16, 2), (16, 1), (16, 1), (8, 2), (8, 1), (8, 1), (4, 2), (4, 1), (4, 1)]
        self.decoder_low = self.deconvs(channels, [(m * width, s) for m, s in low])
        head = [(2 * width, 2), (2 * width, 1), (width, 2), (width, 1), (3, 1), (3, 1), (3, 1)]
        self.decoder_kpt = self.deconvs(4 * width, head)
        self.decoder_offset = self.deconvs(4 * width, head)
        self.rebuilder = nn.Module()
        self.rebuilder.mean_posmap_tensor = nn.Parameter(torch.rand(3, 256, 256), False)
        self.rebuilder.revert_operator = nn.Parameter(torch.ones(3, 3), False)

    @staticmethod
    def pipe(conv: nn.Conv2d) -> nn.Module:
        module = nn.Module()
        module.pipe = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3), nn.ReLU())
        return module

    @staticmethod
    def block(channels: int, out_channels: int, stride: int) -> nn.Module:
        module, half = nn.Module(), out_channels // 2
        module.conv1 = nn.Conv2d(channels, half, 1, bias=False)
        module.conv2 = nn.Conv2d(half, half, 4, stride=stride, bias=False)
        module.conv3 = nn.Conv2d(half, out_channels, 1, bias=False)
        for i, width in enumerate((half, half, out_channels), start=1):
            module.add_module(f"bn{i}", nn.BatchNorm2d(width))
        if stride == 2:
            conv = nn.Conv2d(channels, out_channels, 1, stride=2, bias=False)
            module.shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
        return module

    @staticmethod
    def deconvs(channels: int, plan: list[tuple[int, int]]) -> nn.Sequential:
        layers = []
        for out_channels, stride in plan:
            module = nn.Module()
            module.deconv = nn.ConvTranspose2d(
                channels, out_channels, 4, stride, padding=1, output_padding=stride - 1, bias=False
            )
            module.BN_AC = nn.Sequential(nn.BatchNorm2d(out_channels, eps=1e-3))
            layers.append(module)
            channels = out_channels
        return nn.Sequential(*layers)

    def run_block(self, block: nn.Module, x: Tensor) -> Tensor:
        y = block.bn1(block.conv1(x)).relu()
        # Row i of the padded image is row i - 2 of an image without ends.
        rows, columns = ((torch.arange(n + 3) - 2) % n for n in y.shape[2:])
        y = block.bn2(block.conv2(y[..., rows, :][..., columns])).relu()
        shortcut = block.shortcut(x) if hasattr(block, "shortcut") else x
        return (block.bn3(block.conv3(y)) + shortcut).relu()

    def run_deconvs(self, layers: nn.Sequential, x: Tensor, *, last_relu: bool) -> Tensor:
        for i, layer in enumerate(layers):
            x = layer.BN_AC(layer.deconv(x)[..., 1:, 1:])
            if last_relu or i + 1 < len(layers):
                x = x.relu()
        return x

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention in (0, 1), P / 280 px, and the deformation."""
        mean = image.mean((2, 3), keepdim=True)
        variance = (image - mean).square().mean((2, 3), keepdim=True)
        x = self.layer0.pipe((image - mean) / (variance + 0.001).sqrt())
        for i in range(1, 7):
            x = self.run_block(getattr(self, f"block{i}"), x)
        a = x
        for i in range(1, 5):
            a = getattr(self.attention_branch, f"conv{i}").pipe(a)
        a = self.attention_branch.conv5(a).sigmoid()
        x = x * a.exp()
        for i in range(7, 11):
            x = self.run_block(getattr(self, f"block{i}"), x)
        x = self.run_deconvs(self.decoder_low, x, last_relu=True)
        heads = (self.decoder_kpt, self.decoder_offset)
        return a, *(self.run_deconvs(head, x, last_relu=False) for head in heads)


def imported(path: Path) -> Imported:
    return import_sadrnet(read_state(path))


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    """Small, its statistics those of a trained network: no mean 0, no variance 1."""
    torch.manual_seed(0)
    return lived_in(Theirs(2))


@pytest.fixture
def file(theirs, tmp_path: Path) -> Path:
    path = tmp_path / "net_021.pth"
    torch.save(theirs.state_dict(), path)
    return path


def test_published_names_and_shapes() -> None:
    """The tensors of the public file at its width of 16, each where it has its shape here."""
    released = Theirs(16).state_dict()
    own = SADRNet(layout="released").state_dict()
    names = released_names().own
    constants = {"rebuilder.mean_posmap_tensor", "rebuilder.revert_operator"}
    assert names.keys() == released.keys() - constants
    assert sorted(names.values()) == sorted(own)
    for their_name, own_name in names.items():
        assert released[their_name].shape == own[own_name].shape, their_name
    # Known of the released file, not of the network above.
    for name, shape in {
        "layer0.pipe.0.weight": (16, 3, 4, 4),
        "block1.conv2.weight": (16, 16, 4, 4),
        "block9.shortcut.0.weight": (512, 256, 1, 1),
        "attention_branch.conv1.pipe.0.weight": (256, 128, 3, 3),
        "attention_branch.conv5.weight": (1, 256, 3, 3),
        "decoder_low.0.deconv.weight": (512, 512, 4, 4),
        "decoder_offset.6.BN_AC.0.running_var": (3,),
    }.items():
        assert own[names[name]].shape == shape


def test_imported_network_computes_what_theirs_does(theirs, file: Path) -> None:
    small = small_face(64)
    model = SADRNet(layout="released", width=2, standardize=True, norm_momentum=0.5)
    load_weights(model, imported(file).weights, source=file)
    model.set_face(small)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        attention, posed, deformation = theirs(image)
        found = model.eval()(image)
    for output in (attention, posed, deformation):  # the image matters
        assert (output[0] - output[1]).std() > 0.05 * output.std()
    mean = small.uv.position_map(small.morphable_model.mean[None]) * 1.5e-5
    for own, other in (
        (found.attention_logits.sigmoid(), attention.squeeze(1)),
        (found.pose_dependent_map / 280, posed),
        (found.shape_map * 1.5e-5 - mean, deformation),
    ):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-5 * other.abs().max().item())


def test_mean_face_comes_along(theirs, file: Path) -> None:
    found = imported(file).mean_shape_map
    assert torch.equal(found, theirs.rebuilder.mean_posmap_tensor)


def test_file_of_an_old_pytorch_is_read(theirs, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=False)
    weights = imported(path).weights
    assert torch.equal(weights["stem.0.weight"], theirs.layer0.pipe[0].weight)
    assert weights["stem.1.num_batches_tracked"] == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("block3.bn2.bias"), r"1 missing \(block3\.bn2\.bias\)"),
        (lambda state: state.pop("rebuilder.mean_posmap_tensor"), "1 missing .*mean_posmap"),
        (lambda state: state.update(extra=torch.ones(1)), r"1 unexpected \(extra\)"),
        (
            lambda state: [state.pop(name) for name in list(state) if "attention" in name],
            r"25 missing \(attention_branch\.conv1\.pipe\.0\.weight, .*, \.\.\.\)",
        ),
    ],
)
def test_anything_but_every_tensor_is_refused(theirs, tmp_path: Path, change, message) -> None:
    state = dict(theirs.state_dict())
    change(state)
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"^not the weights of SADRNet.*{message}"):
        imported(path)


def test_another_width_is_refused_where_it_is_loaded(file: Path) -> None:
    with pytest.raises(ValueError, match=r"net_021.pth: weights do not fit SADRNet.*another shape"):
        load_weights(
            SADRNet(layout="released", width=4),
            imported(file).weights,
            source=file,
        )


class Command:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_files_that_are_no_weights_are_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net_021.pth"
    with pytest.raises(FileNotFoundError, match="net_021.pth: no such file"):
        imported(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="net_021.pth: not a readable file of torch"):
        imported(path)
    path.write_bytes(pickle.dumps({"layer0": Command()}))
    with pytest.raises(ValueError, match="net_021.pth: not a readable file of torch"):
        imported(path)
    assert not Path("ran").exists()
    torch.save({"model": {"layer0": 1}}, path)
    with pytest.raises(ValueError, match=r"got \['layer0'\], expected a state_dict of tensors"):
        imported(path)
    torch.save(torch.ones(3), path)
    with pytest.raises(ValueError, match="got Tensor, expected a state_dict of tensors"):
        imported(path)
