"""Binary glTF 2.0 (GLB): textured meshes with morph targets, and the animation of their weights.

Frame: right-handed, +Y up, a face looks toward +Z, metres. Letters: N vertices, T triangles, M
morph targets, K key frames.

Source: the glTF 2.0 specification, sections 3 (buffers, accessors, meshes) and 4.4 (GLB).
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prnet.files import written_whole

FLOAT, UINT32 = 5126, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
MAGIC, VERSION = b"glTF", 2
CHUNK_JSON, CHUNK_BINARY = b"JSON", b"BIN\0"


class Material(NamedTuple):
    """How a part of the mesh looks, matte."""

    name: str
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)  # linear RGB; times the texture
    texture: bytes | None = None  # a PNG or JPEG file


class Part(NamedTuple):
    """Triangles of one material."""

    triangles: np.ndarray  # (T, 3), counter-clockwise seen from outside
    material: Material


class Morphs(NamedTuple):
    """Named offsets of all vertices, and how much of each the mesh shows."""

    names: Sequence[str]  # M
    offsets: np.ndarray  # (M, N, 3), metres
    weights: np.ndarray  # (M,)


class Animation(NamedTuple):
    """Key frames, joined by lines."""

    times: np.ndarray  # (K,), seconds, ascending
    weights: np.ndarray | None = None  # (K, M); None: without morph targets
    rotations: np.ndarray | None = None  # (K, 4), unit quaternions x, y, z, w; None: at rest
    translations: np.ndarray | None = None  # (K, 3), metres; None: at rest


def write_glb(
    path: Path | str,
    vertices: np.ndarray,  # (N, 3), metres
    normals: np.ndarray,  # (N, 3), unit vectors
    texture_coords: np.ndarray,  # (N, 2), u to the right, v DOWN from the picture's top: glTF's
    parts: Sequence[Part],
    *,
    name: str = "face",
    morphs: Morphs | None = None,
    animation: Animation | None = None,
) -> None:
    """Write PATH: one mesh under one node. Morph targets are stored sparse, where they move few
    vertices.

    Raises:
        ValueError: shapes that do not fit each other, an index out of range, or a value that is
            not finite.
    """
    vertices = np.asarray(vertices, np.float32)
    _require(vertices, normals, texture_coords, parts, morphs, animation)
    buffer = _Buffer()
    attributes = {
        "POSITION": buffer.accessor(vertices, "VEC3", target=ARRAY_BUFFER, bounds=True),
        "NORMAL": buffer.accessor(normals, "VEC3", target=ARRAY_BUFFER),
        "TEXCOORD_0": buffer.accessor(texture_coords, "VEC2", target=ARRAY_BUFFER),
    }
    targets = []
    if morphs is not None:
        targets = [{"POSITION": buffer.sparse(offsets)} for offsets in morphs.offsets]
    primitives, materials, images = [], [], []
    for part in parts:
        indices = np.asarray(part.triangles, np.uint32).ravel()
        primitive = {
            "attributes": attributes,
            "indices": buffer.accessor(indices, "SCALAR", target=ELEMENT_ARRAY_BUFFER),
            "material": len(materials),
        }
        primitives.append(primitive | ({"targets": targets} if targets else {}))
        materials.append(_material(part.material, images, buffer))
    mesh = {"name": name, "primitives": primitives}
    if morphs is not None:
        mesh["weights"] = [float(weight) for weight in morphs.weights]
        mesh["extras"] = {"targetNames": list(morphs.names)}
    content = {
        "asset": {"version": "2.0", "generator": "prnet"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0}],
        "meshes": [mesh],
        "materials": materials,
    }
    if images:
        content["images"] = images
        content["samplers"] = [
            {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
        ]
        content["textures"] = [{"source": i, "sampler": 0} for i in range(len(images))]
    if animation is not None:
        content["animations"] = [_animation(animation, buffer)]
    content["accessors"], content["bufferViews"] = buffer.accessors, buffer.views
    content["buffers"] = [{"byteLength": len(buffer.data)}]
    _write_chunks(Path(path), content, bytes(buffer.data))


class _Buffer:
    """The binary chunk, and the accessors and views into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict] = []
        self.accessors: list[dict] = []

    def view(self, content: bytes, target: int | None = None) -> int:
        """Append bytes, aligned to 4; the number of their view."""
        self.data += b"\0" * (-len(self.data) % 4)
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(content)}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += content
        return len(self.views) - 1

    def accessor(
        self, values: np.ndarray, kind: str, *, target: int | None = None, bounds: bool = False
    ) -> int:
        """Append numbers, a row an element; the number of their accessor."""
        whole = values.dtype.kind in "ui"
        values = np.ascontiguousarray(values, np.uint32 if whole else np.float32)
        accessor = {
            "bufferView": self.view(values.tobytes(), target),
            "componentType": UINT32 if whole else FLOAT,
            "count": len(values),
            "type": kind,
        }
        self.accessors.append(accessor | (_bounds(values) if bounds else {}))
        return len(self.accessors) - 1

    def sparse(self, offsets: np.ndarray) -> int:  # (N, 3)
        """Append offsets of which most are 0."""
        offsets = np.asarray(offsets, np.float32)
        x, y, z = offsets.T  # columns alone: sums along rows of three are slow
        moved = np.flatnonzero((x != 0) | (y != 0) | (z != 0)).astype(np.uint32)
        values = offsets[moved]
        accessor = {"componentType": FLOAT, "count": len(offsets), "type": "VEC3"}
        if len(moved):
            accessor["sparse"] = {
                "count": len(moved),
                "indices": {
                    "bufferView": self.view(moved.tobytes()),
                    "componentType": UINT32,
                },
                "values": {"bufferView": self.view(values.tobytes())},
            }
        rest = np.zeros((int(len(moved) < len(offsets)), 3), np.float32)
        self.accessors.append(accessor | _bounds(np.concatenate([values, rest])))
        return len(self.accessors) - 1


def _bounds(values: np.ndarray) -> dict:
    # A reduction along rows of three numbers is slow.
    columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
    return {"min": columns.min(1).tolist(), "max": columns.max(1).tolist()}


def _material(material: Material, images: list[dict], buffer: _Buffer) -> dict:
    shading: dict = {
        "baseColorFactor": [*map(float, material.color), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": 0.9,
    }
    if material.texture is not None:
        kind = "image/png" if material.texture[:4] == b"\x89PNG" else "image/jpeg"
        images.append({"bufferView": buffer.view(material.texture), "mimeType": kind})
        shading["baseColorTexture"] = {"index": len(images) - 1}
    return {"name": material.name, "pbrMetallicRoughness": shading}


def _animation(animation: Animation, buffer: _Buffer) -> dict:
    times = buffer.accessor(np.asarray(animation.times, np.float32), "SCALAR", bounds=True)
    values = []
    if animation.weights is not None:
        values.append(("weights", buffer.accessor(animation.weights.ravel(), "SCALAR")))
    if animation.rotations is not None:
        values.append(("rotation", buffer.accessor(animation.rotations, "VEC4")))
    if animation.translations is not None:
        values.append(("translation", buffer.accessor(animation.translations, "VEC3")))
    return {
        "name": "performance",
        "samplers": [
            {"input": times, "output": output, "interpolation": "LINEAR"} for _, output in values
        ],
        "channels": [
            {"sampler": i, "target": {"node": 0, "path": path}}
            for i, (path, _) in enumerate(values)
        ],
    }


def _write_chunks(path: Path, content: dict, binary: bytes) -> None:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(MAGIC + struct.pack("<II", VERSION, total))
        file.write(struct.pack("<I", len(text)) + CHUNK_JSON + text)
        file.write(struct.pack("<I", len(binary)) + CHUNK_BINARY + binary)


def _require(
    vertices: np.ndarray,
    normals: np.ndarray,
    texture_coords: np.ndarray,
    parts: Sequence[Part],
    morphs: Morphs | None,
    animation: Animation | None,
) -> None:
    count = len(vertices)
    expected = {
        "vertices": (vertices, (count, 3)),
        "normals": (normals, (count, 3)),
        "texture_coords": (texture_coords, (count, 2)),
    }
    if morphs is not None:
        num = len(morphs.names)
        expected["morph offsets"] = (morphs.offsets, (num, count, 3))
        expected["morph weights"] = (morphs.weights, (num,))
    if animation is not None:
        expected |= _animated(animation, 0 if morphs is None else len(morphs.names))
    for what, (values, shape) in expected.items():
        if values.shape != shape:
            raise ValueError(f"{what}: got shape {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{what}: hold values that are not finite")
    if not count or not parts:
        raise ValueError("a mesh needs vertices and at least one part")
    for part in parts:
        triangles = part.triangles
        if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles):
            raise ValueError(f"triangles: got shape {triangles.shape}, expected (T, 3), T > 0")
        if triangles.min() < 0 or triangles.max() >= count:
            raise ValueError(f"triangles: an index is not one of the {count} vertices")


def _animated(animation: Animation, num_morphs: int) -> dict[str, tuple[np.ndarray, tuple]]:
    """What an animation holds, and the shapes it has to have."""
    keys = len(animation.times)
    if not keys or not (np.diff(animation.times) > 0).all():
        raise ValueError("animation times: expected at least one, each later than the one before")
    if animation.weights is not None and not num_morphs:
        raise ValueError("an animation of weights needs morph targets")
    named = {
        "animation times": (animation.times, (keys,)),
        "animation weights": (animation.weights, (keys, num_morphs)),
        "animation rotations": (animation.rotations, (keys, 4)),
        "animation translations": (animation.translations, (keys, 3)),
    }
    named = {what: pair for what, pair in named.items() if pair[0] is not None}
    if len(named) == 1:
        raise ValueError("an animation of nothing: give weights, rotations or translations")
    return named
