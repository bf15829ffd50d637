"""What a synthetic sample is made of, drawn from named distributions.

Sample k of seed s is a function of (s, k) alone. Every concern has a stream of its own, so that
changing one rule leaves what the others draw as it was.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from prnet.synthetic.camera.film import FilmParameters, draw_film
from prnet.synthetic.camera.lighting import Light, draw_light
from prnet.synthetic.camera.pose import CameraPose
from prnet.synthetic.noise import clipped
from prnet.synthetic.person.expressions import draw_expression
from prnet.synthetic.person.material import SkinMaterial, draw_material
from prnet.synthetic.worn.accessories import AccessoryParameters, AccessoryRule, draw_accessories

# Position in this tuple is the key of the stream: append, never insert.
STREAMS = (
    "identity",
    "expression",
    "gaze",
    "pose",
    "framing",
    "light",
    "skin",
    "material",
    "accessories",
    "background",
    "occluder",
    "film",
)
NUM_SHAPE = 80


class World(NamedTuple):
    """The distributions; configs/dataset/synthetic.yaml has their values, units and meaning.

    Angles in degrees. `yaw_bins` are (low, high, share) of |yaw|, uniform within a bin.
    `crop_scale` times the mean side of the landmarks' box is the side of the picture, as
    `prnet.datasets.pictures.CropRule`.
    """

    shape_std: float
    shape_limit: float
    neutral_share: float
    expression_strength: float
    yaw_bins: tuple[tuple[float, float, float], ...]
    pitch_std: float
    pitch_limit: float
    roll_std: float
    roll_limit: float
    crop_scale: float
    center_jitter: float
    size_jitter: float
    hard_light_share: float
    shadow_share: float
    occluder_share: float
    border_share: float
    accessories: AccessoryRule


class Framing(NamedTuple):
    """Where the picture's square lies on the landmarks' box."""

    scale: float  # side of the square over the mean side of the box
    shift: np.ndarray  # (2,), of its centre, x right and y down, over the mean side
    border: np.ndarray  # (4,), black at the left, top, right, bottom, share of the side


class Eyes(NamedTuple):
    """Where the eyes look, and their size."""

    gaze: np.ndarray  # (3,), unit vector of the model frame
    iris_mm: float  # radius
    pupil: float  # radius over the iris's


class Backdrop(NamedTuple):
    """What of which background is seen."""

    number: int  # of the background in its block
    mirrored: float  # 1: flipped
    shift: np.ndarray  # (2,), in [0, 1), of the room the background leaves
    gain: float  # brightness


class SampleParameters(NamedTuple):
    """Everything of one sample; numbers and float64 arrays, nested."""

    seed: int
    index: int
    shape_params: np.ndarray  # (80,)
    exp_params: np.ndarray  # (51,)
    pose: CameraPose
    framing: Framing
    eyes: Eyes
    light: Light
    texture: int  # of the skin texture in its block
    material: SkinMaterial
    accessories: AccessoryParameters
    backdrop: Backdrop
    occluder_seed: int  # -1: none
    film: FilmParameters


def streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    """One generator a concern, the same on every machine and in every process."""
    children = np.random.SeedSequence([seed, index]).spawn(len(STREAMS))
    return {
        name: np.random.Generator(np.random.PCG64(child))
        for name, child in zip(STREAMS, children, strict=True)
    }


def draw(
    world: World,
    seed: int,
    index: int,
    *,
    exp_names: Sequence[str],
    num_textures: int,
    num_backgrounds: int,
) -> SampleParameters:
    """Sample `index` of `seed`.

    Raises:
        ValueError: seed or index is negative, or the shares of yaw do not sum to 1.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"got seed {seed} and index {index}, expected both at least 0")
    random = streams(seed, index)
    pose = draw_pose(world, random["pose"])
    gaze_deg = _draw_gaze(random["gaze"], pose)
    limit = world.shape_limit
    backdrop, occluder = random["background"], random["occluder"]
    return SampleParameters(
        seed=seed,
        index=index,
        shape_params=np.clip(
            world.shape_std * random["identity"].normal(size=NUM_SHAPE), -limit, limit
        ),
        exp_params=draw_expression(
            exp_names,
            random["expression"],
            gaze_deg=gaze_deg,
            neutral_share=world.neutral_share,
            strength=world.expression_strength,
        ),
        pose=pose,
        framing=_draw_framing(world, random["framing"]),
        eyes=_draw_eyes(random["gaze"], gaze_deg),
        light=draw_light(
            random["light"], hard_share=world.hard_light_share, shadow_share=world.shadow_share
        ),
        texture=int(random["skin"].integers(num_textures)),
        material=draw_material(random["material"]),
        accessories=draw_accessories(random["accessories"], world.accessories),
        backdrop=Backdrop(
            number=int(backdrop.integers(num_backgrounds)),
            mirrored=float(backdrop.integers(2)),
            shift=backdrop.uniform(size=2),
            gain=float(np.exp(clipped(0.5 * backdrop.normal(), -1.5, 0.8))),
        ),
        occluder_seed=(
            int(occluder.integers(2**31)) if occluder.uniform() < world.occluder_share else -1
        ),
        film=draw_film(random["film"]),
    )


def draw_pose(world: World, generator: np.random.Generator) -> CameraPose:
    """Turn, nod and camera.

    Raises:
        ValueError: the shares of `yaw_bins` do not sum to 1.
    """
    low, high, shares = (np.array(column) for column in zip(*world.yaw_bins, strict=True))
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"yaw_bins: the shares sum to {shares.sum():.4g}, expected 1")
    chosen = generator.choice(len(shares), p=shares)
    yaw = generator.choice([-1, 1]) * generator.uniform(low[chosen], high[chosen])
    # Student's t: most heads near upright, a few far from it.
    nod, pitch = world.pitch_std / np.sqrt(2) * generator.standard_t(4, size=2) / np.sqrt(2)
    roll = world.roll_std * generator.standard_t(3) / np.sqrt(3)
    return CameraPose(
        yaw=float(np.radians(yaw)),
        nod=float(np.radians(clipped(nod, -world.pitch_limit / 2, world.pitch_limit / 2))),
        pitch=float(np.radians(clipped(pitch, -world.pitch_limit / 2, world.pitch_limit / 2))),
        roll=float(np.radians(clipped(roll, -world.roll_limit, world.roll_limit))),
    )


def _draw_framing(world: World, generator: np.random.Generator) -> Framing:
    growth = generator.uniform(-world.size_jitter, world.size_jitter)
    shift = generator.uniform(-world.center_jitter, world.center_jitter, 2)
    border = np.zeros(4)
    if generator.uniform() < world.border_share:
        border[generator.integers(4)] = 0.2 * generator.beta(1, 1.5)
        border[generator.integers(4)] = 0.2 * generator.beta(1, 1.5)
    return Framing(scale=world.crop_scale * (1 + growth), shift=shift, border=border)


def _draw_gaze(generator: np.random.Generator, pose: CameraPose) -> np.ndarray:
    """Degrees to the subject's left and up, relative to the head, (2,)."""
    gaze = generator.normal(size=2) * np.array([11.0, 7.0]) + np.array([0.0, -2.0])
    # Many look into the camera if they can; a positive yaw turns the head to the subject's right.
    toward_camera = np.degrees([pose.yaw, -(pose.pitch + pose.nod)])
    if generator.uniform() < 0.45 and np.abs(toward_camera).max() < 35:
        gaze = toward_camera + 1.5 * generator.normal(size=2)
    return np.clip(gaze, -35, 35)


def _draw_eyes(generator: np.random.Generator, gaze_deg: np.ndarray) -> Eyes:
    left, up = np.radians(gaze_deg)
    gaze = np.array([np.sin(left) * np.cos(up), np.sin(up), np.cos(left) * np.cos(up)])
    return Eyes(
        gaze=gaze,
        iris_mm=float(generator.normal(5.9, 0.2)),
        pupil=float(generator.uniform(0.25, 0.5)),
    )


def stack(items: Sequence):
    """Nested tuples of numbers and arrays, one a sample, as the same tuple of tensors with a
    leading B; integers become int64, the rest float32."""
    first = items[0]
    if isinstance(first, tuple):
        return first._make(stack(column) for column in zip(*items, strict=True))
    values = np.asarray(items)
    kind = torch.int64 if values.dtype.kind in "iu" else torch.float32
    return torch.from_numpy(values).to(kind)
