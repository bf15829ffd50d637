"""Checkpoints: plain values and tensors in one file, written whole, read without running code.

`.pt` is what a training writes, `.safetensors` what is shared and shipped. Either is a dictionary:

- `format`: 1
- `model`: {"name": ..., plain values its constructor takes}
- `weights`: the model's state_dict
- `face`: what the model was trained for, plain values (optional)
- `training`: what a run needs to go on: step, optimiser state (optional; `.pt` alone)
- `card`: what the weights are and where they come from, text (optional)

and any other key with plain content. A file carries values, never code: text that a configuration
would resolve, and keys that name something to call, are refused as it is read, and who makes a
network of one picks the class by name among the package's own (`prnet.models.loading`).
"""

import hashlib
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from prnet.checks import faults_listed
from prnet.files import written_whole

FORMAT = 1
SHARED = ".safetensors"
# Weights that come with the package; the name of a file without its suffix is as good as a path.
WEIGHTS_DIR = Path(__file__).parent / "assets" / "weights"
# The best of them, which "default" stands for.
DEFAULT = "swift_synthetic"
# Names of weights that came with earlier versions.
REPLACED = {"mobile_frnet_synthetic": DEFAULT}
HUB = "hf://"
# Keys of a safetensors file's own table of text: all but the weights as JSON, and the sha256 of the
# tensors' bytes, since the format has no checksum.
CONTENT, CHECKSUM = "prnet", "sha256"


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
        if Path(path).suffix == SHARED:
            file.write(_as_safetensors(content))
        else:
            # Given a path, torch would write the temporary name into it; on a full disk its writer
            # says nothing that helps.
            buffer = io.BytesIO()
            torch.save(content, buffer)
            file.write(buffer.getbuffer())


def load_checkpoint(source: Path | str) -> dict:
    """The checkpoint that `find_checkpoint` finds; tensors on the CPU.

    Raises:
        FileNotFoundError, ModuleNotFoundError: as `find_checkpoint`.
        ValueError: not a checkpoint, damaged, of another format version, or with text in it that
            asks for code to be run.
    """
    path = find_checkpoint(source)
    try:
        content = _read_safetensors(path) if path.suffix == SHARED else _read_torch(path)
    except Exception as error:  # noqa: BLE001 - a damaged file makes both raise nearly anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path}: not a checkpoint of prnet, or cut off or damaged (it has "
            f"{path.stat().st_size} bytes; {reason}); copy or download it again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        found = sorted(map(str, content))[:5] if isinstance(content, dict) else type(content)
        raise ValueError(
            f"{path}: a torch file, but not a checkpoint of prnet: no 'format' in {found}; weights "
            "of other projects become one by `python -m prnet.import_weights`"
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


def find_checkpoint(source: Path | str) -> Path:
    """The file that is meant: "default", the best weights that come with the package; their name; a
    file; a run's folder, whose best.pt it is, or one with a single safetensors file; or
    "hf://USER/REPO", such a folder on the Hugging Face hub, downloaded once.

    Raises:
        FileNotFoundError: there is none.
        ModuleNotFoundError: huggingface_hub is needed and absent.
    """
    if str(source).startswith(HUB):
        return _in_folder(_from_hub(str(source)), source)
    path, shipped = Path(source), shipped_weights()
    if path.is_dir():
        return _in_folder(path, source)
    if not path.is_file() and str(path) in {**shipped, "default": None}:
        path = shipped[DEFAULT if str(path) == "default" else str(path)]
    if not path.is_file() and str(path) in REPLACED:
        raise FileNotFoundError(
            f"{path}: came with earlier versions, for another face; now {REPLACED[str(path)]} does"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; train writes best.pt and last.pt to outputs/NAME/TIME, and "
            f"with the package come {', '.join(shipped)}"
        )
    return path


def checkpoint_digest(source: Path | str) -> str:
    """The sha256 of the file that `find_checkpoint` finds."""
    with open(find_checkpoint(source), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_weights() -> dict[str, Path]:
    """The checkpoints that come with the package, by name (see ASSETS.md)."""
    return {path.stem: path for path in sorted(WEIGHTS_DIR.glob(f"*{SHARED}"))}


def _in_folder(folder: Path, source: Path | str) -> Path:
    shared = sorted(folder.glob(f"*{SHARED}"))
    if (folder / "best.pt").is_file():
        return folder / "best.pt"
    if len(shared) == 1:
        return shared[0]
    last = folder / "last.pt"
    if last.is_file():
        found = f"only last.pt, which a run goes on from; to take it all the same give {last}"
    else:
        found = f"{len(shared)} files of {SHARED}; name one" if shared else "nor safetensors"
    raise FileNotFoundError(f"{source}: no best.pt in this folder, {found}")


def _from_hub(address: str) -> Path:
    """The folder in huggingface_hub's cache, of the safetensors alone."""
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{address}: needs pip install "prnet[hub]"') from error
    repository = address.removeprefix(HUB).strip("/")
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=f"*{SHARED}"))
    except Exception as error:  # noqa: BLE001 - of the network, the hub, the name, the cache
        reason = str(error).strip().partition("\n")[0]
        raise FileNotFoundError(
            f"{address}: not to be had ({reason}); expected hf://USER/REPO and a network, or a "
            "copy of an earlier download"
        ) from error


def _read_torch(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # torch.load compares no checksums
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
    return torch.load(path, map_location="cpu", weights_only=True)


def _as_safetensors(content: Mapping[str, object]) -> bytes:
    values = {key: value for key, value in content.items() if key != "weights"}
    weights = {name: tensor.contiguous() for name, tensor in content["weights"].items()}
    checksum = hashlib.sha256(_tensor_bytes(safetensors.torch.save(weights))).hexdigest()
    try:
        text = json.dumps(values)
    except TypeError as error:
        raise ValueError(f"only numbers and text go beside the weights ({error})") from error
    return safetensors.torch.save(weights, {CONTENT: text, CHECKSUM: checksum})


def _read_safetensors(path: Path) -> dict:
    data = path.read_bytes()
    weights = safetensors.torch.load(data)
    facts = json.loads(data[8 : len(data) - len(_tensor_bytes(data))]).get("__metadata__", {})
    if CONTENT not in facts:
        raise ValueError(f"safetensors, but without the entry {CONTENT!r} that says what it is")
    if facts.get(CHECKSUM) != hashlib.sha256(_tensor_bytes(data)).hexdigest():
        raise ValueError("the tensors do not match their checksum")
    return {**json.loads(facts[CONTENT]), "weights": weights}


def _tensor_bytes(data: bytes) -> memoryview:
    """What follows a safetensors file's header, whose length its first eight bytes give."""
    return memoryview(data)[8 + int.from_bytes(data[:8], "little") :]


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
