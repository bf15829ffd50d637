"""Device-side half of the loader: pictures -> crops, fits -> position maps, in one batch."""

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch.nn import functional

from prnet.datasets.attention_target import attention_target, released_silhouette, silhouette
from prnet.datasets.pictures import CROP_SIZE
from prnet.datasets.sampling import sample_bilinear
from prnet.geometry import camera
from prnet.geometry.compiled import in_memory
from prnet.geometry.landmark_map import move_landmarks
from prnet.geometry.position_map import PositionMapDecoder
from prnet.sample import FaceSample, FitBatch, PosedFit

# Pictures of a batch that are floats at the same time.
AT_ONCE = 32


def warp_to_crop(
    picture: Tensor,  # (B, C, Hp, Wp), uint8
    crop_from_picture: Tensor,  # (B, 4, 4), similarity in x and y
) -> Tensor:
    """Sample the crop from the picture, bilinear, zero outside: (B, C, 256, 256) in [0, 1]."""
    height, width = picture.shape[-2:]
    picture_from_crop = camera.invert_affine(crop_from_picture)
    if in_memory(picture_from_crop) and picture.dtype in (torch.uint8, torch.float32):
        crop = torch.zeros(*picture.shape[:2], CROP_SIZE, CROP_SIZE)
        affine = picture_from_crop[:, :2, [0, 1, 3]].double().numpy()
        # `pad_pictures` has the channels last already.
        sample_bilinear(picture.permute(0, 2, 3, 1).contiguous().numpy(), affine, crop.numpy())
        return crop
    # grid_sample's coordinates with align_corners: -1 and 1 are the centres of the outermost
    # pixels.
    crop_from_grid = torch.eye(3, device=picture.device) * (CROP_SIZE - 1) / 2
    crop_from_grid[:2, 2].fill_((CROP_SIZE - 1) / 2)
    crop_from_grid[2, 2].fill_(1)
    affine = torch.cat([picture_from_crop[:, :2, :2], picture_from_crop[:, :2, 3:]], -1)
    affine = affine @ crop_from_grid  # (B, 2, 3), grid -> picture px
    x, y = affine.unbind(1)  # (B, 3)
    affine = torch.stack([x * (2 / max(width - 1, 1)), y * (2 / max(height - 1, 1))], 1)
    affine[:, :, 2] -= 1
    grid = functional.affine_grid(
        affine, [len(picture), 1, CROP_SIZE, CROP_SIZE], align_corners=True
    )
    # A float copy of all pictures at once would be the largest tensor of the step.
    crops = [
        functional.grid_sample(some.float(), own, align_corners=True)
        for some, own in zip(picture.split(AT_ONCE), grid.split(AT_ONCE), strict=True)
    ]
    return torch.cat(crops).div_(255)


def make_sample(
    batch: FitBatch,
    decoder: PositionMapDecoder,
    *,
    targets: Collection[str] = ("position_map",),  # fields of `FaceSample`
    moved: Tensor | None = None,  # (B, 4, 4), crop px -> crop px; None: as cropped
    mirrored: Tensor | None = None,  # (B,), bool; `moved` holds the mirror of x already
    disturb: Callable[[Tensor], tuple[Tensor, Tensor | None]] | None = None,
    attention: str = "silhouette",  # one of `prnet.datasets.attention_target.ATTENTIONS`
) -> FaceSample:
    """Images of a batch and the targets asked for, all through the same similarity.

    `disturb` makes of the images (B, 3, H, W) what the network is to see, and says which pixels of
    the face it hides, (B, H, W) bool, None: none. Attention is the visible face that the batch
    brings, or the silhouette of the fit's, without these; "released" is that of the released code,
    moved with the picture.
    """
    crop_from_picture, crop_from_model = batch.crop_from_picture, batch.crop_from_model
    if moved is not None:
        crop_from_picture = moved @ crop_from_picture
        crop_from_model = moved @ crop_from_model
    targets = frozenset(targets)
    coefficients = batch.shape_params, batch.exp_params
    picture = batch.picture
    released = attention == "released"
    known = batch.visible is not None and not released
    if "attention" in targets and known:
        picture = torch.cat([picture, batch.visible[:, None]], 1)
    image, seen = warp_to_crop(picture, crop_from_picture).split([3, picture.shape[1] - 3], 1)
    covered = None
    if disturb is not None:
        image, covered = disturb(image)
    sample = FaceSample(image)
    if targets & {"position_map", "shape_map"} or ("attention" in targets and not known):
        offsets = decoder.offsets(*coefficients)
    if "position_map" in targets or ("attention" in targets and not (known or released)):
        position_map = decoder.maps(offsets, crop_from_model, mirrored=mirrored)
    if "position_map" in targets:
        sample = sample._replace(position_map=position_map)
    if "attention" in targets:
        if released:
            pixels = decoder.face_pixels(offsets, batch.crop_from_model, size=image.shape[-1])
            seen = released_silhouette(pixels)
            if moved is not None:
                seen = warp_to_crop(255 * seen[:, None].byte(), moved).squeeze(1)
        elif known:
            seen = seen.squeeze(1)
        else:
            seen = silhouette(*decoder.points_of(position_map), size=image.shape[-1])
        seen = attention_target(seen, covered, overlapping=released)
        sample = sample._replace(attention=seen)
    if "shape_map" in targets:
        sample = sample._replace(shape_map=decoder.shape_map(offsets, mirrored=mirrored))
    if "fit" in targets:
        if mirrored is None:
            mirrored = torch.zeros(
                len(batch.picture), dtype=torch.bool, device=batch.picture.device
            )
        sample = sample._replace(fit=PosedFit(*coefficients, crop_from_model, mirrored))
    if "landmarks" in targets:
        landmarks = decoder.landmarks(*coefficients, crop_from_model, mirrored=mirrored)[..., :2]
        visible = torch.ones_like(landmarks[..., 0], dtype=torch.bool)
        if batch.landmarks is not None:
            given = batch.landmarks
            if moved is not None:
                given = move_landmarks(given, moved, mirrored)
            seen = given.isfinite().all(-1)
            own = seen.any(1)  # the others are those of the fit
            visible = seen | ~own[:, None]
            landmarks = torch.where(own[:, None, None], given, landmarks)
            landmarks = torch.where(visible[..., None], landmarks, 0.0)
        sample = sample._replace(landmarks=landmarks, landmarks_visible=visible)
    return sample._replace(has_fit=batch.has_fit)
