"""Reading a built set, which `prnet.build` writes: a picture and a record of about 1 kB a sample.

    DIR/build.json      what is in it and what the audit found
    DIR/format.json     how it is laid out: version, crop rule, pixel origin, dtype of maps
    DIR/records.npy     one structured record a sample, memory-mapped
    DIR/pictures/K.bin  the pictures' own bytes one after the other, memory-mapped

Position maps are not stored: `prnet.geometry.position_map` makes them from a record, in the batch.
"""

import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from prnet.checks import name_list, require_choice
from prnet.datasets.pictures import CropRule, FitItem
from prnet.datasets.records import SetRecord
from prnet.files import read_json_object, read_npy, take
from prnet.geometry.camera import PIXEL_ORIGINS

FORMAT = 1

# 300W-LP turns each photo to several poses and names them PHOTO_FACE_POSE, LFPW's PHOTO_POSE.
PHOTO_OF_300W_LP = re.compile(
    r"((?:AFW|HELEN|IBUG_image)_\d+)_\d+_\d+|((?:AFW|HELEN|IBUG|LFPW)_.+)_\d+"
)
# AFLW names the second face of a photo and others PHOTO_2, ...
PHOTO_OF_AFLW = re.compile(r"(image\d+)_\d+")
MIRROR_TWIN = re.compile(r"(.+)[_-](?:flip|mirror|mirrored)", re.IGNORECASE)


def source_photo(name: str) -> str:
    """The photo a sample was made from, its mirror twin and other faces included: samples of one
    photo must not be split over train and held-out."""
    stem = name.rsplit("/", 1)[-1]
    if twin := MIRROR_TWIN.fullmatch(stem):
        stem = twin[1]
    if face := PHOTO_OF_AFLW.fullmatch(stem):
        return face[1]
    match = PHOTO_OF_300W_LP.fullmatch(stem)
    return (match[1] or match[2]) if match else stem


def held_out(names: list[str], fraction: float) -> np.ndarray:
    """Which samples are validation, (n,) bool: a fixed share of the photos, by a hash of their
    name."""
    limit = fraction * 2**32
    return np.array([zlib.crc32(source_photo(name).encode()) < limit for name in names], dtype=bool)


def photo_ranks(names: list[str]) -> np.ndarray:
    """A number in [0, 1) for the photo of each sample, (n,), independent of whether it is held
    out."""
    digests = [hashlib.sha256(source_photo(name).encode()).digest() for name in names]
    return np.array([int.from_bytes(digest[:4]) / 2**32 for digest in digests])


def read_built_info(directory: Path | str) -> tuple[dict, dict]:
    """The content of build.json and of format.json.

    Raises:
        FileNotFoundError: not a built set, or an unfinished one.
        ValueError: another format version, or a damaged file.
    """
    directory = Path(directory)
    files = [directory / "build.json", directory / "format.json"]
    for file in files:
        if not file.is_file():
            unfinished = (directory / "parts").is_dir()
            state = "an unfinished build: run the same prnet.build again to finish it"
            raise FileNotFoundError(
                f"{directory}: {state if unfinished else 'not a built set'}; {file.name} is "
                f"missing. Make one with: python -m prnet.build dataset=300w_lp output={directory}"
            )
    build, layout = map(read_json_object, files)
    if layout.get("format") != FORMAT:
        raise ValueError(
            f"{directory}: built-set format {layout.get('format')}, this version reads {FORMAT}; "
            "build it again"
        )
    return build, layout


class BuiltSet(torch.utils.data.Dataset):
    """A built set as `FitItem`s; pictures are decoded on access, in whatever worker asks."""

    has_fits = True

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.build, layout = read_built_info(directory)
        self.names: list[str] = take(self.build, "samples", list, self.directory / "build.json")
        where = self.directory / "format.json"
        crop = take(layout, "crop", dict, where)
        if {*crop, "whole_px"} != set(CropRule._fields):
            expected = ", ".join(CropRule._fields)
            raise ValueError(f"{where}: crop has {', '.join(crop)}, expected {expected}")
        self.crop_rule = CropRule(**crop)
        self.pixel_origin: str = take(layout, "pixel_origin", str, where)
        require_choice(f"{where}: pixel_origin", self.pixel_origin, PIXEL_ORIGINS)
        self.records = read_npy(
            self.directory / "records.npy", hint="build the set again", mapped=True
        )
        if len(self.records) != len(self.names):
            raise ValueError(
                f"{self.directory}: records.npy has {len(self.records)} records, build.json "
                f"{len(self.names)} samples; build the set again"
            )
        self._require_whole(layout)
        self._shards: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple:
        """Loader processes open the files themselves; they are not sent a copy of the records."""
        return BuiltSet, (self.directory,)

    def _require_whole(self, layout: Mapping) -> None:
        """Raise ValueError where the records, or the size of a file of pictures, are not as
        written. Sets of earlier versions do not say it."""
        faults = []
        if "records_crc32" in layout:
            data = (self.directory / "records.npy").read_bytes()
            if zlib.crc32(data) != layout["records_crc32"]:
                faults.append("records.npy does not match its checksum")
        for shard, expected in enumerate(layout.get("picture_bytes", ())):
            path = self.directory / "pictures" / f"{shard}.bin"
            found = path.stat().st_size if path.is_file() else 0
            if found != expected:
                faults.append(f"pictures/{shard}.bin has {found} of {expected} bytes")
        if faults:
            raise ValueError(
                f"{self.directory}: {name_list(faults)}; copy the set again, or delete and build it"
            )

    def __len__(self) -> int:
        return len(self.names)

    def require_face(self, description: dict) -> None:
        """Raise ValueError if the set was built with another face than the one at hand."""
        built_with = take(self.build, "face", dict, self.directory / "build.json")
        here = {key: description.get(key) for key in built_with}
        if here != built_with:
            raise ValueError(
                f"{self.directory}: built with a face of {built_with}, this run's face has {here}; "
                "choose the same face or build the set again"
            )

    def __getitem__(self, index: int) -> FitItem:
        data = self._picture_bytes(self.records[index])
        return self.record(index).item(data, source=self.names[index])

    def record(self, index: int) -> SetRecord:
        return SetRecord(self.records[index], self.crop_rule, self.pixel_origin)

    def _picture_bytes(self, record: np.void) -> bytes:
        shard = int(record["shard"])
        if shard not in self._shards:
            path = self.directory / "pictures" / f"{shard}.bin"
            if not path.is_file():
                raise FileNotFoundError(f"{path}: missing; build the set again")
            self._shards[shard] = np.memmap(path, mode="r")
        start = int(record["picture_offset"])
        data = self._shards[shard][start : start + int(record["picture_bytes"])].tobytes()
        # Sets of earlier versions have no checksums.
        if "picture_crc32" in record.dtype.names and zlib.crc32(data) != record["picture_crc32"]:
            raise ValueError(
                f"{self.directory / 'pictures' / f'{shard}.bin'}: the picture at byte {start} does "
                "not match its checksum; copy the set again, or delete and build it"
            )
        return data
