"""What a photo costs from its file to its face, in one process: run by `reconstruct_rows`.

Prints JSON: the stages with their seconds of CPU and of the clock, and the peak of memory.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
import torch

from prnet.datasets.pictures import CROP_SIZE, write_picture
from prnet.detection.tilt import find_faces
from prnet.reconstruction.loading import load
from prnet.reconstruction.outputs import DEFAULT, write_outputs
from prnet.reconstruction.photos import read_photo
from prnet.reconstruction.reconstructor import Reconstructor


class Seconds(NamedTuple):
    """Of one call, the median of several."""

    cpu: float
    wall: float


def timed(call: Callable[[], object], rounds: int) -> Seconds:
    call()  # what is made once is made here
    found = []
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return Seconds(*np.median(found, axis=0).tolist())


def stages(reconstructor: Reconstructor, folder: Path, rounds: int) -> dict[str, Seconds]:
    """Of the astronaut's photo, 512 px with one face, upright and lying."""
    upright = skimage.data.astronaut()
    lying = np.ascontiguousarray(np.rot90(upright))
    photo = folder / "astronaut.jpg"
    write_picture(photo, upright)
    (face,) = reconstructor(upright)
    crop = torch.rand(1, 3, CROP_SIZE, CROP_SIZE).contiguous(memory_format=torch.channels_last)
    detector = reconstructor.detector

    @torch.inference_mode()
    def network() -> None:
        reconstructor.model(crop)

    def whole() -> None:
        for found in reconstructor(read_photo(photo).picture):
            write_outputs(found, folder / "whole", DEFAULT)

    calls = {
        "read": lambda: read_photo(photo),
        "find an upright face": lambda: find_faces(detector, upright),
        "find a lying face": lambda: find_faces(detector, lying),
        "network alone": network,
        "find and reconstruct, upright": lambda: reconstructor(upright),
        "find and reconstruct, lying": lambda: reconstructor(lying),
    }
    for name in DEFAULT:
        calls[f"write {name}"] = lambda name=name: write_outputs(face, folder / "face", [name])
    calls["photo to all three files"] = whole
    return {name: timed(call, rounds) for name, call in calls.items()}


def peak_bytes() -> int:
    """The most memory that this process has held. Where Linux has no /proc, and elsewhere, it is no
    less than what its parent held when it was started."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what is written comes here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    found = stages(load(), options.folder, options.rounds)
    print(json.dumps({"stages": found, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
