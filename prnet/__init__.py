"""prnet: 3D face reconstruction and dense alignment with UV position maps, trained and evaluated.

Frames and units, declared here once and cited everywhere by name:

| frame   | origin and axes                                           | unit                   |
|---------|-----------------------------------------------------------|------------------------|
| model   | the face's own origin; x to the subject's left (image     | micrometre             |
|         | right), y up, z toward the camera, right-handed           |                        |
| image   | centre of the top-left pixel; x right, y down, z toward   | px of the original     |
|         | the camera (larger is nearer)                             | picture                |
| crop    | as image, of the square network input                     | px of the input (256)  |
| network | crop divided by the coordinate scale (PRN: 281.6)         | 1                      |
| uv      | u to the right in [0, 1], v up in [0, 1]                  | 1                      |

Pixel centres lie at integer coordinates in image and crop ("zero_based"). The published systems
shift that by up to two pixels; `prnet.geometry.camera.PIXEL_ORIGINS` names their origins.

A position map is stored (3, H, W): channels x, y, z in crop px; row v_px = (H - 1)(1 - v), column
u_px = (W - 1) u, sampled at integer v_px and u_px. Depth is shifted so that the smallest z over the
whole mesh is 0 (PRN section 3.1).

Angles are pitch, yaw, roll in the order of 3DDFA, radians unless a name ends in `_deg`.
"""

__version__ = "0.3.0"


def load(*arguments: object, **options: object) -> object:
    """A reconstructor with its face attached: `prnet.reconstruction.loading.load`.

    >>> faces = prnet.load()(picture)  # (H, W, 3), uint8 RGB
    """
    # Imported here, since whoever imports the package does not want torch for its version.
    from prnet.reconstruction.loading import load as load_reconstructor

    return load_reconstructor(*arguments, **options)
