"""The face models by name."""

from pathlib import Path
from typing import NamedTuple

from prnet.checks import require_choice
from prnet.faces.bfm import load_bfm
from prnet.faces.embedded import load_embedded
from prnet.faces.face import Face

FACES = ("bfm", "embedded")


def load_face(
    name: str,
    *,
    bfm_dir: Path | str | None = None,
    prnet_uv_dir: Path | str | None = None,
) -> Face:
    """`embedded` comes with the package; `bfm` is read from the user's files.

    Raises:
        ValueError: no face of that name, or a file's content is not as expected.
        FileNotFoundError: a file of the BFM is missing.
    """
    if name == "embedded":
        return load_embedded()
    require_choice("face", name, FACES)
    if bfm_dir is None:
        raise ValueError("face=bfm: needs face.bfm_dir, the folder of BFM.mat")
    return load_bfm(bfm_dir, prnet_uv_dir=prnet_uv_dir)


class FaceFiles(NamedTuple):
    """What a worker process loads its face from."""

    name: str
    bfm_dir: str | None = None
    prnet_uv_dir: str | None = None

    def load(self) -> Face:
        """The face, as `load_face`."""
        return load_face(self.name, bfm_dir=self.bfm_dir, prnet_uv_dir=self.prnet_uv_dir)
