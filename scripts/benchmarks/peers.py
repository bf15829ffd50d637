"""The published systems' own figures, and how they are carried over to another machine."""

from typing import Literal, NamedTuple

from benchmarks.timing import Ceilings


class Peer(NamedTuple):
    """What another system's code needed on the machine of PEER_SGEMM and PEER_COPY."""

    system: str
    milliseconds: float  # for one image, map, face or sample
    bound: Literal["compute", "memory", "scalar"]  # see `carried_over`
    source: str  # the measurement


# The peers' machine: 2 cores of a Xeon with AVX-512, torch 2.15, a BFM of 199 + 29 bases. Their
# code: YadiraF/PRNet fc12fe5, YadiraF/face3d 2fc2690, MCG-NJU/SADRNet a5e6fac, patched where it did
# not run as published; networks of 62 outputs as 3DDFA's.
PEER_SGEMM = 292.0  # GFLOP/s, 2048 x 2048 in float32
PEER_COPY = 22.7  # GB/s, read and written
PEERS = {
    "example_8": Peer(
        "face3d example 8", 23.1, "scalar", "whole dataset item, mean of 40 images, one process"
    ),
    "prepare": Peer(
        "SADRNet prepare.py", 29.0, "scalar", "whole dataset item, mean of 40 images, one process"
    ),
    "face3d_map": Peer(
        "face3d", 14.3, "memory", "235 parameters to a map of all texels, one at a time"
    ),
    "sadrnet_loader": Peer(
        "SADRNet loader", 1000 / 118, "scalar", "118 samples/s of 2 workers, targets on the CPU"
    ),
    "prn_1": Peer("PRN literal, torch eager", 75.9, "compute", "inference, batch 1"),
    "prn_16": Peer("PRN literal, torch eager", 130.0, "compute", "inference, batch 16, per image"),
    "prn_step": Peer(
        "PRN literal, torch eager",
        8070 / 16,
        "compute",
        "training step, batch 16, per image; rough: 3 rounds, the fastest 1.5 times as fast",
    ),
    "sadrnet_1": Peer("SADRNv2 literal, torch eager", 118.6, "compute", "network alone, batch 1"),
    "sadrnet_step": Peer(
        "SADRNv2 literal, torch eager",
        12_900 / 16,
        "compute",
        "training step, batch 16, per image; rough: 3 rounds, the fastest 1.2 times as fast",
    ),
    "mb05_ort": Peer(
        "3DDFA_V2 mb05, ONNX Runtime, 2 threads",
        0.505,
        "compute",
        "one face, 120 px, network alone",
    ),
    "mobilenet_ort": Peer(
        "MobileNetV2 of 62 outputs, ONNX Runtime",
        1.74,
        "compute",
        "one face, 120 px, network alone",
    ),
    "mobilenet_eager": Peer(
        "MobileNetV2 of 62 outputs, torch eager", 11.0, "compute", "one face, 120 px, network alone"
    ),
    "resnet_eager": Peer(
        "ResNet-50 of 62 outputs, torch eager", 32.7, "compute", "one face, 120 px, network alone"
    ),
    "sadrnet_nme": Peer(
        "SADRNet NME", 200 / 32, "memory", "3D NME of 32 dense faces in memory, one thread"
    ),
    "icp_20": Peer(
        "20 plain iterations with SciPy's tree, not settled",
        1131,
        "scalar",
        "43,867 points of a made pair, one thread",
    ),
    "face3d_256": Peer("face3d", 4.04, "scalar", "z-buffer of the BFM at 256 px, C++, one thread"),
    "face3d_450": Peer("face3d", 7.92, "scalar", "z-buffer of the BFM at 450 px, C++, one thread"),
}
PEER_MAP_BYTES = 786_560  # face3d and SADRNet: a float32 map as .npy
PEER_PICTURE_BYTES = 20_500  # its crop of 256 px as JPEG, quality 95, mean of 40


CARRIED_BY = {
    "compute": "sgemm",
    "memory": "copy",
    "scalar": "sgemm or copy, whichever favours the peer",
}


def carried_over(peer: Peer, ceilings: Ceilings) -> float:
    """Milliseconds of a peer on a machine of these ceilings.

    "compute" scales with the matrix product, "memory" with the copy; "scalar" code, bound by
    neither, with the one under which the peer comes out faster.
    """
    by_sgemm = peer.milliseconds * PEER_SGEMM / ceilings.sgemm
    by_copy = peer.milliseconds * PEER_COPY / ceilings.copy
    return {"compute": by_sgemm, "memory": by_copy, "scalar": min(by_sgemm, by_copy)}[peer.bound]
