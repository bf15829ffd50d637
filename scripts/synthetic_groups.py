"""Who the errors are of: NME on unseen synthetic faces by what they are and wear, and how exact
each ARKit coefficient is.

python scripts/synthetic_groups.py [--checkpoint default] [--count 2000] > table.md

The faces are those of `prnet.eval dataset=synthetic`. NME is of 68 landmarks in 2D, % of the box.
Coefficients are compared as `outputs=arkit` writes them, bounded; their correlation is with the
true ones, and the error of a guess that is always the mean stands beside theirs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from prnet.datasets.pictures import CROP_SIZE, CropRule
from prnet.datasets.synthetic import SyntheticRule, held_out_faces
from prnet.entry import CONFIG_DIR
from prnet.geometry.pose_parameters import split_parameters
from prnet.metrics.nme import bbox_size, nme
from prnet.models.face_decoder import FaceDecoder
from prnet.models.loading import load_with_face
from prnet.reconstruction.arkit import bounded_expression
from prnet.synthetic.parameters import SampleParameters

BATCH = 32
LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear sRGB, ITU-R BT.709


def brightness(face: SampleParameters) -> float:
    return float(np.dot(face.material.skin_tone, LUMINANCE))


def degrees_from_upright(face: SampleParameters) -> float:
    return abs(float(np.degrees(face.pose.roll)))


# Groups that a face is in, in the table's order; thirds are by rank.
GROUPS: dict[str, Callable[[SampleParameters], bool]] = {
    "glasses": lambda face: face.accessories.glasses.worn > 0,
    "no glasses": lambda face: face.accessories.glasses.worn == 0,
    "beard": lambda face: face.material.beard_strength > 0.5,
    "make-up": lambda face: face.material.makeup_strength > 0.5,
    "hat": lambda face: face.accessories.headwear.hat_worn > 0,
    "hood": lambda face: face.accessories.headwear.hood_worn > 0,
    "hand before the face": lambda face: face.accessories.hands.worn.any(),
    "occluder": lambda face: face.occluder_seed >= 0,
    "tilt 0-15 degrees": lambda face: degrees_from_upright(face) < 15,
    "tilt 15-45 degrees": lambda face: 15 <= degrees_from_upright(face) < 45,
    "tilt over 45 degrees": lambda face: degrees_from_upright(face) >= 45,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--count", type=int, default=2000)
    arguments = parser.parse_args()

    model, face, _ = load_with_face(arguments.checkpoint)
    model.set_face(face)
    model.eval()
    decoder = FaceDecoder(model, face)
    bounded = bounded_expression(face)
    values = OmegaConf.load(Path(CONFIG_DIR, "dataset", "synthetic.yaml")).dataset
    values.size, values.held_out = CROP_SIZE, arguments.count
    rule = SyntheticRule.from_values(OmegaConf.to_container(values))
    stream = held_out_faces(rule, CropRule()).rendered

    errors: list[torch.Tensor] = []
    guessed: list[np.ndarray] = []
    drawn: list[np.ndarray] = []
    for start in tqdm(range(0, arguments.count, BATCH)):
        indices = range(start, min(start + BATCH, arguments.count))
        rendered = stream.faces.batch(indices)
        with torch.inference_mode():
            prediction = model(rendered.image)
            predicted = decoder.landmarks(prediction)
        truth = rendered.landmarks[..., :2]
        errors.append(nme(predicted[..., :2], truth, bbox_size(truth)))
        expressions = split_parameters(prediction.parameters, model.num_shape).exp_params.numpy()
        guessed.extend(bounded(row) for row in expressions)
        drawn.extend(rendered.exp_params.numpy())
    error = torch.cat(errors).numpy()
    people = [stream.faces.parameters(index) for index in range(arguments.count)]

    print("| group | faces | NME, % |\n|---|---|---|")
    print(f"| all | {len(error)} | {error.mean():.2f} |")
    by_skin = np.array_split(np.argsort([-brightness(face) for face in people]), 3)
    for name, members in zip(("fairest", "middle", "darkest"), by_skin, strict=True):
        print(f"| skin: {name} third | {len(members)} | {error[members].mean():.2f} |")
    for name, belongs in GROUPS.items():
        members = np.array([bool(belongs(face)) for face in people])
        if members.any():
            print(f"| {name} | {members.sum()} | {error[members].mean():.2f} |")

    found, true = np.stack(guessed), np.stack(drawn)
    print("\n| coefficient | mean absolute error | of the mean | correlation |\n|---|---|---|---|")
    for name, guess, truth in zip(bounded.names, found.T, true.T, strict=True):
        off, idle = np.abs(guess - truth).mean(), np.abs(truth - truth.mean()).mean()
        varies = guess.std() > 0 and truth.std() > 0
        correlation = np.corrcoef(guess, truth)[0, 1] if varies else np.nan
        print(f"| {name} | {off:.3f} | {idle:.3f} | {correlation:.2f} |")


if __name__ == "__main__":
    main()
