"""The package's networks by name, and the one of a checkpoint.

A checkpoint names a network of this table and holds plain values for its constructor, which is
called with them as they are: nothing that a file says is ever looked up, resolved or run.
"""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prnet.checkpoint import describe_source, load_checkpoint, load_weights
from prnet.checks import require_choice
from prnet.faces.face import Face
from prnet.faces.loading import FACES, load_face
from prnet.models.compact import Compact
from prnet.models.mobile_frnet import MobileFRNet
from prnet.models.mobilenet_v1 import MobileNetV1
from prnet.models.network import Network
from prnet.models.prn import PRN
from prnet.models.regressor import TorchvisionRegressor
from prnet.models.sadrnet import SADRNet
from prnet.models.swift import Swift
from prnet.models.two_dasl import TwoDASL

# The `name` of every file in configs/model, and what of its values the name alone decides. Values
# that a checkpoint lacks are these, else the constructor's own.
NETWORKS: dict[str, partial[Network]] = {
    "2dasl": partial(TwoDASL),
    "compact": partial(Compact),
    "densenet121": partial(TorchvisionRegressor, architecture="densenet121"),
    "mobile_frnet": partial(MobileFRNet),
    "mobile_frnet_no_attention": partial(MobileFRNet, attention=False),
    "mobilenet_v1": partial(MobileNetV1),
    "mobilenet_v2": partial(TorchvisionRegressor, architecture="mobilenet_v2"),
    "prn": partial(PRN),
    "resnet50": partial(TorchvisionRegressor, architecture="resnet50"),
    "resnext50": partial(TorchvisionRegressor, architecture="resnext50_32x4d"),
    "sadrnet": partial(SADRNet),
    "swift": partial(Swift),
}


def options_of(network: type[Network]) -> dict[str, inspect.Parameter]:
    """What its constructor takes by name, those it hands on to its base included."""
    return {
        name: option
        for made in reversed(network.__mro__)
        for name, option in inspect.signature(made.__init__).parameters.items()
        if option.kind is option.KEYWORD_ONLY
    }


def build_network(stored: Mapping[str, object], *, source: object) -> Network:
    """The network that a checkpoint's `model` describes, with weights of its own making.

    Raises:
        ValueError: no network of the package, or not values that it takes.
    """
    values = dict(stored)
    name = values.pop("name", None)
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"{source}: of a model {name!r}, expected one of {', '.join(NETWORKS)}")
    make = NETWORKS[name]
    known = sorted(options_of(make.func))
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{source}: model {name} takes {known}, the checkpoint has {key!r}")
        if not isinstance(value, bool | int | float | str | None):
            raise ValueError(f"{source}: model value {key} is a {type(value).__name__}, not plain")
    try:
        return make(**values)
    except Exception as error:  # noqa: BLE001 - values of another make fail in any way
        raise ValueError(f"{source}: model {name} does not take {values} ({error})") from error


def load_model(path: Path | str) -> tuple[Network, dict]:
    """The network of a checkpoint, on the CPU, and the checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint` and `build_network`, or its weights do
            not fit.
    """
    checkpoint = load_checkpoint(path)
    model = build_network(checkpoint["model"], source=path)
    load_weights(model, checkpoint["weights"], source=describe_source(path, checkpoint))
    return model, checkpoint


def load_with_face(
    path: Path | str, *, data_dir: Path | str = "data"
) -> tuple[Network, Face, dict]:
    """As `load_model`, with the face that the network was trained for between the two; the BFM is
    read from `data_dir`.

    Raises:
        FileNotFoundError, ValueError: as `load_model` and `load_face`, or it is another face.
    """
    model, checkpoint = load_model(path)
    name = (checkpoint.get("face") or {}).get("name", "bfm")
    folder = Path(data_dir)
    require_choice(f"{path}: face that it was trained for", name, FACES)
    try:
        face = load_face(name, bfm_dir=folder / "BFM", prnet_uv_dir=folder / "PRNet_uv")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: trained for face={name}; {error}") from error
    require_same_face(checkpoint, face, source=path)
    return model, face, checkpoint


def require_same_face(checkpoint: Mapping[str, object], face: Face, *, source: object) -> None:
    """Raise ValueError if a network was trained for another mesh than the face at hand."""
    trained = checkpoint.get("face") or {}
    here = face.describe()
    for key in ("name", "vertices", "fingerprint"):
        if key in trained and trained[key] != here.get(key):
            raise ValueError(
                f"{source}: trained for a face with {key} {trained[key]}, this one has "
                f"{here.get(key)}; choose the face it was trained for"
            )
