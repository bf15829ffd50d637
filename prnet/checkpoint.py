"""Checkpoints: plain values and tensors in one file, written whole, read without running code.

A checkpoint is a dictionary:

- `format`: 1
- `model`: {"name": ..., plain values its constructor takes}
- `weights`: the model's state_dict
- `face`: what the model was trained for, plain values (optional)
- `training`: what a run needs to go on: step, optimiser state (optional)

and any other key with plain content. A file carries values, never code: text that a configuration
would resolve, and keys that name something to call, are refused as it is read, and who makes a
network of one picks the class by name among the package's own (`prnet.models.loading`).
"""

import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prnet.checks import faults_listed
from prnet.files import written_whole

FORMAT = 1
# Weights that come with the package; the name of a file without its suffix is as good as a path.
WEIGHTS_DIR = Path(__file__).parent / "assets" / "weights"


def save_checkpoint(path: Path | str, state: Mapping[str, object]) -> None:
    """Write `state`, at least `model` and `weights`; `path` holds the old file or all of the new.

    Raises:
        ValueError: `model` or `weights` missing, or a value that `load_checkpoint` could not read.
    """
    for key in ("model", "weights"):
        if key not in state:
            raise ValueError(f"{path}: a checkpoint needs {key!r}, got {sorted(state)}")
    content = {"format": FORMAT, **state}
    _require_plain(content, "checkpoint")
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)  # given a path, it would write the temporary name into the file


def load_checkpoint(path: Path | str) -> dict:
    """The checkpoint at `path`, or the shipped one of that name; tensors on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint, damaged, of another format version, or with text in it that
            asks for code to be run.
    """
    path = Path(path)
    shipped = shipped_weights()
    if not path.is_file() and str(path) in shipped:
        path = shipped[str(path)]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; train writes best.pt and last.pt to outputs/NAME/TIME, and "
            f"with the package come {', '.join(shipped)}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load compares no checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file makes both raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: not a checkpoint of prnet, or cut off or damaged (it has "
            f"{path.stat().st_size} bytes; {reason}); copy or download it again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        found = sorted(map(str, content))[:5] if isinstance(content, dict) else type(content)
        raise ValueError(
            f"{path}: a torch file, but not a checkpoint of prnet: no 'format' in {found}"
        )
    if content["format"] != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {content['format']}, this version reads {FORMAT}; "
            "install the version of prnet that wrote it"
        )
    missing = [key for key in ("model", "weights") if key not in content]
    if missing:
        raise ValueError(f"{path}: checkpoint without {missing}, found {sorted(content)}")
    if not isinstance(content["model"], dict) or not isinstance(content["weights"], dict):
        raise ValueError(f"{path}: model and weights are not two dictionaries")
    for key, value in content.items():
        if key != "weights":
            _require_values(value, f"{path}: [{key!r}]")
    return content


def shipped_weights() -> dict[str, Path]:
    """The checkpoints that come with the package, by name (see ASSETS.md)."""
    return {path.stem: path for path in sorted(WEIGHTS_DIR.glob("*.pt"))}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, source: object) -> None:
    """Copy `weights` into `module`, all of them or none; `source` names the file and its model.

    Raises:
        ValueError: names or shapes differ; lists which.
    """
    own = module.state_dict()
    faults = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in weights and weights[name].shape != tensor.shape
        ],
    }
    if found := faults_listed(faults):
        raise ValueError(
            f"{source}: weights do not fit {type(module).__name__} ({len(own)} tensors): "
            f"{found}. Build the model that the checkpoint is of"
        )
    module.load_state_dict(weights)


def describe_source(path: Path | str, checkpoint: Mapping[str, object]) -> str:
    """`best.pt (model prn, width 16)`, for messages."""
    model = dict(checkpoint["model"])
    values = [f"model {model.pop('name', 'without a name')}"]
    values += [f"{key} {value}" for key, value in model.items()]
    return f"{path} ({', '.join(values)})"


def _require_values(value: object, where: str) -> None:
    """Raise ValueError at text that OmegaConf would resolve (`${...}`) and at a key that Hydra
    would call (`_target_`), anywhere in `value`."""
    if isinstance(value, dict):
        for key, item in value.items():
            if str(key).startswith("_"):
                raise ValueError(f"{where}: key {key!r} names code to run; only values are read")
            _require_values(key, where)
            _require_values(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple | set):
        for index, item in enumerate(value):
            _require_values(item, f"{where}[{index}]")
    elif isinstance(value, str) and "${" in value:
        raise ValueError(f"{where}: {value!r} is an interpolation; only values are read")


def _require_plain(value: object, where: str) -> None:
    """Raise ValueError unless `value` is made of what torch.load(weights_only=True) reads back."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise ValueError(f"{where}: key {key!r} is neither str nor int")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None), Tensor, nn.Parameter):
        raise ValueError(
            f"{where}: {type(value).__module__}.{type(value).__qualname__} cannot be stored; "
            "expected tensors, numbers, text and containers of them"
        )
