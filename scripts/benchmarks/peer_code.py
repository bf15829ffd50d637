"""The published systems' own code (--peers DIR), as it is loaded.

DIR holds clones by their names: 3DDFA_V2 (cleardusk), SADRNet (MCG-NJU), PRNet-PyTorch (reshow) and
face3d (YadiraF); the two with data code have their mesh/cython built. The face is that of the
benchmark, whatever BFM a clone would read. What of it the torch, NumPy and skimage of today refuse
is mended as it is loaded, each with its reason beside it; nothing of it is written to.
"""

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prnet.faces.face import Face

LEARNING_RATE = 1e-4  # of either's Adam: any other takes as long
PRN_DECAY = 2e-4


@contextlib.contextmanager
def at_home(folder: Path, **absent: types.ModuleType) -> Iterator[None]:
    """Import from a clone, as if started in it; `absent` stands for modules that it compiles, or
    that read what the work here does not need."""
    here, modules = Path.cwd(), set(sys.modules)
    sys.path.insert(0, str(folder))
    sys.modules.update(absent)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path.remove(str(folder))
        theirs = [name for name in set(sys.modules) - modules if _is_of(folder, sys.modules[name])]
        for name in {*theirs, *absent}:
            del sys.modules[name]


def _is_of(folder: Path, module: types.ModuleType) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    return any(str(place).startswith(str(folder)) for place in places)


def stand_in(name: str, **content: object) -> dict[str, types.ModuleType]:
    """For `at_home`: a module that has no more than this."""
    module = types.ModuleType(name)
    vars(module).update(content)
    return {name: module}


def as_read(face: Face) -> dict[str, np.ndarray]:
    """The benchmark's face as their readers of BFM.mat return it; theirs to write."""
    model = face.morphable_model
    shape, expression = (
        basis.flatten(1).T.numpy().copy(order="C")
        for basis in model.basis.split([model.num_shape, model.num_exp])
    )
    mean = model.mean.reshape(-1, 1).numpy().copy()
    return {
        "shapeMU": mean,
        "shapePC": shape,
        "expMU": np.zeros_like(mean),  # in the mean already
        "expPC": expression,
        # Read beside those, and used by nothing here.
        "texMU": np.zeros_like(mean),
        "texPC": np.zeros((len(mean), 1), np.float32),
        "tri": face.triangles.numpy().astype(np.int32),
        "tri_mouth": np.zeros((0, 3), np.int32),
        "kpt_ind": face.landmark_index.numpy().copy(),
    }


def uv_places(face: Face) -> np.ndarray:
    """Where each vertex lies in the map, (N, 3), px, as their `process_uv` returns it."""
    pixels = face.uv.vertex_pixels.numpy()
    return np.concatenate([pixels, np.zeros_like(pixels[:, :1])], 1)


def as_trained(network: nn.Module) -> nn.Module:
    """In eval mode, its circular convolutions padded as the torch of then did, by as many px in all
    as torch pads today on each side."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding_mode == "circular":
            (padding, _) = layer.padding
            layer._reversed_padding_repeated_twice = [(padding + 1) // 2, padding // 2] * 2
    return network.eval()


def sadrnet(folder: Path) -> tuple[nn.Module, nn.Module]:
    """The network and its NME."""
    compiled = "src.faceutil.mesh.cython.mesh_core_cython"
    with at_home(folder, **stand_in(compiled)):
        load = importlib.import_module("src.faceutil.morphable_model.load")
        load.load_uv_coords = lambda _path: np.zeros((1, 2))  # of the BFM, for no part of a network
        uv_face = importlib.import_module("src.dataset.uv_face")
        # What its loss imports from there, and what was commented out there.
        uv_face.uv_triangles = np.load("data/uv_data/uv_triangles.npy")
        module = importlib.import_module("src.model.SADRNv2")
        # Its loss in training starts with a term that it has not computed yet, times zero.
        module.dict = lambda: {"offset_uvm": torch.zeros(())}
        network = module.get_model()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight)  # as made, all points coincide in eval mode
        # It fails where a landmark is predicted outside the crop.
        *_, last = (
            part for part in network.decoder_kpt.modules() if isinstance(part, nn.BatchNorm2d)
        )
        nn.init.constant_(last.weight, 0.002)
        nn.init.constant_(last.bias, 0.46)
        return as_trained(network), importlib.import_module("src.model.loss").NME()


def sadrnet_step(
    network: nn.Module,  # of `sadrnet`
    image: Tensor,  # (B, 3, H, W)
    position_map: Tensor,  # (B, 3, H, W), its unit: 280 px
    offset_map: Tensor,  # (B, 3, H, W), its unit
    attention: Tensor,  # (B, 1, h, w)
) -> Callable[[], object]:
    """A step of its train_block_data.py."""
    network = deepcopy(network).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    targets = {"face_uvm": position_map, "offset_uvm": offset_map, "attention_mask": attention}

    def call() -> None:
        optimizer.zero_grad()
        losses = network({"img": image}, targets, "train")
        sum(loss.mean() for loss in losses.values()).backward()
        optimizer.step()

    return call


def prn(folder: Path) -> nn.Module:
    """The network with its loss."""
    with at_home(folder):
        picture = importlib.import_module("skimage.io").imread("uv-data/uv_face_mask.png")
    mask = picture / 255.0
    of_data = {"face_mask_np": mask, "face_mask_mean_fix_rate": mask.size / mask.sum()}
    # Both read the BFM; of the one its loss needs these, of the other nothing that it uses.
    absent = stand_in("data", uv_kpt=None, **of_data) | stand_in(
        "dataloader", toTensor=torch.from_numpy
    )
    with at_home(folder, **absent):
        return as_trained(importlib.import_module("torchmodel").InitPRN2())


def prn_step(
    network: nn.Module,  # of `prn`
    image: Tensor,  # (B, 3, H, W)
    position_map: Tensor,  # (B, 3, H, W), its unit: 280 px
) -> Callable[[], object]:
    """A step of its torchrun.py, which computes its metric too."""
    network = deepcopy(network).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=PRN_DECAY)

    def call() -> None:
        optimizer.zero_grad()
        loss, _metric, _map = network(image, position_map)
        torch.mean(loss).backward()
        optimizer.step()

    return call


def mb05(folder: Path) -> nn.Module:
    with at_home(folder):
        return importlib.import_module("models.mobilenet_v1").mobilenet_05().eval()
