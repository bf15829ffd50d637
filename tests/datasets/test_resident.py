"""A training set that lies on the device: the loader's own batches, and no more room than said."""

import functools

import numpy as np
import pytest
import torch

from prnet.building.landmarks_only import build_landmarks
from prnet.datasets.augment import AugmentRule, augment, reach_of
from prnet.datasets.built import BuiltSet
from prnet.datasets.pictures import (
    CropRule,
    FitItem,
    collate_fits,
    crop_matrix,
    cut_to_reach,
    image_from_picture,
    reduction_for,
)
from prnet.datasets.records import PICTURE_FIELDS, extents_at_most
from prnet.datasets.resident import ResidentSet, Room, room_of
from prnet.datasets.training_sets import StepSampler, TrainingSets
from prnet.geometry.position_map import PositionMapDecoder
from prnet.workers import loader_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def landmarks_dir(tiny_data_dir, tmp_path_factory):
    """Faces of AFLW2000-3D's layout without their fits."""
    output = tmp_path_factory.mktemp("built") / "landmarks"
    build_landmarks(tiny_data_dir / "AFLW2000", output, crop=CropRule())
    return output


@pytest.mark.parametrize("sets", ["fits", "mixed"])
def test_batches_are_those_of_the_loader(sets, built_dir, landmarks_dir, face):
    """To the bit, in any order, also once they are augmented; padding is all that differs."""
    rule = AugmentRule(rotation_deg=20.0, translation=0.05, occlusion=0.5)
    directories = [built_dir] if sets == "fits" else [built_dir, landmarks_dir]
    data = TrainingSets(directories, validation_fraction=0.0, face=face.describe())
    reach = reach_of(rule)
    samples, extents = data.concatenated(), data.extents(reach)
    room = room_of(extents)
    resident = ResidentSet(samples, room, CPU, reach=reach)
    sampler = StepSampler(data, batch_size=2, seed=4)
    loader = loader_of(samples, functools.partial(collate_fits, reach=reach), batch_sampler=sampler)
    decoder = PositionMapDecoder(face.morphable_model, face.uv, landmark_index=face.landmark_index)
    brought = set()
    for number, (indices, expected) in enumerate(zip(sampler, loader, strict=False)):
        found = resident.batch(indices)
        height, width = expected.picture.shape[2:]
        assert found.picture.shape[2:] == (room.height, room.width)
        assert torch.equal(found.picture[..., :height, :width], expected.picture)
        assert not found.picture[..., height:, :].any()
        assert not found.picture[..., width:].any()
        made = [
            augment(
                batch,
                decoder,
                rule,
                torch.Generator().manual_seed(number),
                targets=("position_map", "landmarks"),
            )
            for batch in (found, expected)
        ]
        pairs = [*zip(*made, strict=True), *zip(found[1:], expected[1:], strict=True)]
        for one, other in pairs:
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))
        brought.add((found.landmarks is not None, found.has_fit is not None))
        if number == 2 * sampler.steps_per_epoch:
            break
    expected = {(False, False)} if sets == "fits" else {(False, False), (True, True)}
    assert brought == expected
    # Those are the pictures, and not much more.
    heights = [len(cut_to_reach(samples[index], reach).picture) for index in range(len(samples))]
    assert resident.heights.tolist() == heights
    assert sum(heights) < room.rows <= sum(heights) + 4 * len(heights) + 1
    assert resident.rows.nbytes == room.size == room.rows * extents[:, 1].max() * 3


def test_extents_hold_what_is_cut(face):
    """Crops of all sizes, in and beside their pictures."""
    random = np.random.default_rng(0)
    records = np.zeros(150, np.dtype(list(PICTURE_FIELDS)))
    records["image_size"] = random.integers(8, 900, (150, 2))
    records["crop_size"] = 10 ** random.uniform(0.5, 3.4, 150)
    records["crop_center"] = random.uniform(-0.3, 1.3, (150, 2)) * records["image_size"][:, ::-1]
    spare = []
    for rule in (CropRule(), CropRule(span=256.0)):
        found = extents_at_most(records, rule, 170.0)
        for record, extent in zip(records, found, strict=True):
            size = float(record["crop_size"])
            reduction = reduction_for(size)
            picture = np.zeros((*-(-record["image_size"] // reduction), 3), np.uint8)
            crop = crop_matrix(record["crop_center"], size, rule) @ image_from_picture(reduction)
            item = FitItem(picture, crop, torch.eye(4), torch.zeros(1), torch.zeros(1))
            spare.append(extent - cut_to_reach(item, 170.0).picture.shape[:2])
    assert np.min(spare) >= 0
    assert np.max(spare) <= 4
    assert np.mean(spare) < 2


def test_a_set_without_room_is_told(built_dir):
    with pytest.raises(MemoryError, match=r"cpu has no room for the 3000000000.0 GB of the tr"):
        ResidentSet(BuiltSet(built_dir), Room(1, 10**6, 10**12), CPU, reach=1.0)
