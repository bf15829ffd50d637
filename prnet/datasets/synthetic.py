"""Synthetic faces as a training stream and as a test set: rendered when asked for, never stored.

Letters: B batch, S side of a rendered picture.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_type_hints

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from prnet.datasets.evaluation import Demands, EvaluationItem, NetworkInput, TestSet
from prnet.datasets.fits import fit_matrix
from prnet.datasets.pictures import CROP_SIZE, CropRule, FitItem, posed_fit
from prnet.datasets.training_sets import TrainingData
from prnet.faces.face import Face
from prnet.geometry import camera
from prnet.sample import FitBatch, PosedFit
from prnet.synthetic.camera.lens import SIZE_STEP
from prnet.synthetic.parameters import World

if TYPE_CHECKING:
    from prnet.synthetic.world import SyntheticFaces

log = logging.getLogger(__name__)

# Held-out samples are of another seed than the stream's: the same world, other people.
HELD_OUT_SEED_SHIFT = 1_000_003


class SyntheticRule(NamedTuple):
    """Which world, and how much of it; configs/dataset/synthetic.yaml has the values."""

    seed: int
    size: int  # px, of the rendered pictures; the network's crop is always 256
    samples_per_epoch: int
    held_out: int  # samples, of other seeds
    backgrounds: str | None  # folder of the user's own pictures
    world: World

    @classmethod
    def from_values(cls, values: Mapping) -> "SyntheticRule":
        """From a configuration; the size becomes the next that can be rendered: a network of 120 px
        sees pictures of 128.

        Raises:
            ValueError: a field that there is not, or one that is missing, named; or occluders,
                which belong to the scoring.
        """
        if values.get("occlusion", "none") != "none":
            raise ValueError(
                f"dataset.occlusion={values['occlusion']}: is for prnet.eval; in training, choose "
                "augment.occluder and augment.occlusion"
            )
        named = {key: value for key, value in values.items() if key not in ("name", "occlusion")}
        rule = _from_values(cls, named, "dataset")
        return rule._replace(size=math.ceil(rule.size / SIZE_STEP) * SIZE_STEP)


def _from_values(kind: type, values: Mapping, where: str) -> NamedTuple:
    """The rule of a named tuple's type whose fields have these values, nested rules too; lists
    become tuples."""
    fields = get_type_hints(kind)
    unknown, missing = sorted(set(values) - set(fields)), sorted(set(fields) - set(values))
    if unknown:
        raise ValueError(f"{where}: no field {', '.join(unknown)}; there are {list(fields)}")
    if missing:
        raise ValueError(f"{where}: no value for {', '.join(missing)}")
    return kind(
        **{
            name: _from_values(field, values[name], f"{where}.{name}")
            if hasattr(field, "_fields")
            else _as_tuples(values[name])
            for name, field in fields.items()
        }
    )


def to_values(rule: object) -> object:
    """All fields of a rule as plain values, nested rules by name."""
    if hasattr(rule, "_fields"):
        return {name: to_values(value) for name, value in rule._asdict().items()}
    return rule


def _as_tuples(value: object) -> object:
    return tuple(_as_tuples(part) for part in value) if isinstance(value, list | tuple) else value


class RenderedFaces(Dataset):
    """Sample k of a stream as a `FitItem`; a loader's batch is rendered at once."""

    def __init__(self, rule: SyntheticRule, *, seed: int) -> None:
        self.rule = rule
        self.seed = seed
        self._faces: SyntheticFaces | None = None

    def __getstate__(self) -> dict:
        """Loader processes make their own textures: they are not sent these."""
        return {**self.__dict__, "_faces": None}

    @property
    def faces(self) -> "SyntheticFaces":
        """The renderer, made on first use."""
        if self._faces is None:
            from prnet.synthetic.world import SyntheticFaces

            log.info("making the renderer; compiling it, the first time, takes up to some minutes")
            self._faces = SyntheticFaces(
                self.rule.world,
                self.seed,
                size=self.rule.size,
                backgrounds=self.rule.backgrounds,
            )
        return self._faces

    def fits(self, indices: Sequence[int]) -> FitBatch:
        """The samples as a training batch."""
        rendered = self.faces.batch(indices)
        enlarge = crop_from_rendered(self.rule.size)
        return FitBatch(
            picture=to_bytes(rendered.image),
            crop_from_picture=enlarge.float().expand(len(rendered.image), 4, 4),
            crop_from_model=(enlarge @ rendered.crop_from_model.double()).float(),
            shape_params=rendered.shape_params,
            exp_params=rendered.exp_params,
            visible=to_mask(rendered.attention),
        )

    def __getitem__(self, index: int) -> FitItem:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[FitItem]:
        batch = self.fits(indices)
        pictures = batch.picture.permute(0, 2, 3, 1).contiguous().numpy()
        return [
            FitItem(
                picture=picture,
                crop_from_picture=batch.crop_from_picture[i],
                crop_from_model=batch.crop_from_model[i],
                shape_params=batch.shape_params[i],
                exp_params=batch.exp_params[i],
                visible=batch.visible[i].numpy(),
            )
            for i, picture in enumerate(pictures)
        ]


class HeldOutFaces(TestSet):
    """The first `count` samples of a stream as evaluation items; the image is the rendered
    picture."""

    name = "synthetic"
    takes_predictions = False

    def __init__(self, rendered: RenderedFaces, count: int) -> None:
        self.rendered = rendered
        self.names = [sample_name(index) for index in range(count)]

    @classmethod
    def open(
        cls, _data_dir: Path | str, options: Mapping, demands: Demands, _face: Face | None
    ) -> "HeldOutFaces":
        """Those of the configured world. Occluders are laid over the crops while they are
        scored."""
        rule = SyntheticRule.from_values({**options, "occlusion": "none"})
        return held_out_faces(rule, demands.crop)

    def __getitem__(self, index: int) -> EvaluationItem:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[EvaluationItem]:
        batch = self.rendered.faces.batch(indices)
        fits = self.rendered.faces.fits(indices)
        crop_from_picture = crop_from_rendered(self.rendered.rule.size)
        image_from_crop = camera.invert_affine(crop_from_picture)
        pictures = to_bytes(batch.image).permute(0, 2, 3, 1).contiguous().numpy()
        visible = to_mask(batch.attention).numpy()
        landmarks = camera.convert_origin(batch.landmarks.double(), "zero_based", "matlab")
        return [
            EvaluationItem(
                name=sample_name(index),
                yaw_deg=float(np.degrees(fits[i].angles[1])),
                angles=torch.from_numpy(fits[i].angles),
                landmarks=landmarks[i],
                shape_params=batch.shape_params[i],
                exp_params=batch.exp_params[i],
                image_from_model=batch.crop_from_model[i].double(),
                network_input=NetworkInput(
                    pictures[i], crop_from_picture, image_from_crop, visible[i]
                ),
            )
            for i, index in enumerate(indices)
        ]


def held_out_faces(rule: SyntheticRule, crop: CropRule | None = None) -> HeldOutFaces:
    """The test set that goes with a stream; `crop` frames it as a protocol wants."""
    if crop is not None:
        world = rule.world._replace(
            crop_scale=crop.scale,
            center_jitter=crop.jitter,
            size_jitter=crop.jitter,
            border_share=0.0,
        )
        rule = rule._replace(world=world)
    rendered = RenderedFaces(rule, seed=rule.seed + HELD_OUT_SEED_SHIFT)
    return HeldOutFaces(rendered, rule.held_out)


class SyntheticSets(TrainingData):
    """The stream: epoch e holds the samples from e times `samples_per_epoch` on, and none comes
    twice. Faces are rendered in the loader's processes."""

    pixel_origin = "zero_based"
    renders = True

    def __init__(self, rule: SyntheticRule, crop: CropRule = CropRule()) -> None:  # noqa: B008
        """`crop` frames the held-out faces, at the size of `prnet.eval`: the pictures that it
        scores a network on."""
        self.rule = rule
        self.rendered = RenderedFaces(rule, seed=rule.seed)
        held_out = held_out_faces(rule._replace(size=CROP_SIZE), crop)
        self.validation = [held_out] if rule.held_out else []

    def __len__(self) -> int:
        return self.rule.samples_per_epoch

    def describe(self) -> dict:
        return to_values(self.rule._replace(held_out=0))

    def order(self, _seed: int, epoch: int) -> np.ndarray:
        """The stream has no order to shuffle."""
        return np.arange(epoch * len(self), (epoch + 1) * len(self))

    def concatenated(self) -> Dataset:
        return self.rendered

    def posed_fits(self, count: int) -> PosedFit:
        """Depth as it is, not shifted to start at 0."""
        faces, size = self.rendered.faces, self.rule.size
        fits = faces.fits(range(min(count, len(self))))
        enlarge = crop_from_rendered(size)
        return posed_fit(fits, [enlarge @ fit_matrix(fit, size) for fit in fits])

    def shown(self, count: int) -> FitBatch:
        return self.validation[0].rendered.fits(range(count))


def sample_name(index: int) -> str:
    """What sample k is called, in reports and on disk."""
    return f"synthetic_{index:06d}"


def to_bytes(image: Tensor) -> Tensor:  # (B, 3, S, S), RGB in [0, 1]
    return (image * 255).round().to(torch.uint8)


def to_mask(seen: Tensor) -> Tensor:  # (B, S, S), bool
    return 255 * seen.to(torch.uint8)


def crop_from_rendered(size: int) -> Tensor:
    """Rendered px -> px of the network's crop, (4, 4), float64: corner pixels on corner pixels."""
    scale = (CROP_SIZE - 1) / (size - 1)
    return torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))
