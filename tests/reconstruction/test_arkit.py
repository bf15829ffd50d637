"""Bounded coefficients, and the layout of Live Link Face."""

import numpy as np
import pytest

from prnet.faces.loading import load_face
from prnet.reconstruction.arkit import LIVE_LINK_COLUMNS, BoundedExpression, live_link_row


@pytest.fixture(scope="module")
def bounded() -> BoundedExpression:
    return BoundedExpression(load_face("embedded"))


@pytest.fixture(scope="module")
def basis() -> np.ndarray:
    """(51, 3 N), micrometre."""
    model = load_face("embedded").morphable_model
    return model.basis[model.num_shape :].double().flatten(1).numpy()


@pytest.mark.parametrize("name", ["jawOpen", "eyeBlinkLeft", "mouthSmileRight", "browInnerUp"])
def test_a_single_shape_stays_itself(bounded, name):
    given = np.zeros(51)
    given[bounded.names.index(name)] = 0.7
    found = bounded(given)
    assert found[bounded.names.index(name)] == pytest.approx(0.7, abs=0.03)
    assert np.delete(found, bounded.names.index(name)).max() < 0.05


def test_bounds_hold_and_no_clipping_is_nearer(bounded, basis):
    random = np.random.default_rng(5)
    for _ in range(5):
        given = random.normal(0.1, 0.35, 51)
        found = bounded(given)
        assert found.min() >= 0
        assert found.max() <= 1
        fitted = np.linalg.norm((found - given) @ basis)
        clipped = np.linalg.norm((given.clip(0, 1) - given) @ basis)
        assert fitted < 0.97 * clipped


def test_a_face_without_names_has_none(face):
    with pytest.raises(ValueError, match="no ARKit coefficients"):
        BoundedExpression(face)


def test_a_line_of_the_layout(bounded):
    assert len(LIVE_LINK_COLUMNS) == 63
    given = np.linspace(0, 1, 51)
    row = live_link_row(
        bounded.names, given, timecode="00:00:01:02.000", angles_deg=np.array([10.0, -20.0, 30.0])
    )
    values = dict(zip(LIVE_LINK_COLUMNS, row, strict=True))
    assert values["Timecode"] == "00:00:01:02.000"
    assert values["BlendShapeCount"] == "52"
    for name, value in zip(bounded.names, given, strict=True):
        assert float(values[name[0].upper() + name[1:]]) == pytest.approx(value, abs=1e-6)
    assert float(values["TongueOut"]) == 0
    assert float(values["HeadPitch"]) == pytest.approx(np.radians(10), abs=1e-6)
    assert float(values["HeadYaw"]) == pytest.approx(np.radians(-20), abs=1e-6)
    assert float(values["LeftEyeYaw"]) == 0
