"""Run a file of `python -m prnet.export` on one face, with numpy, cv2 and onnxruntime alone.

The four numbers are the box around the face's landmarks, px:

python scripts/run_onnx.py FACE.onnx PHOTO LEFT TOP RIGHT BOTTOM OUT.png
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

file, photo, *box, output = sys.argv[1:]
left, top, right, bottom = map(float, box)
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
side = session.get_inputs()[0].shape[-1]  # of the crop, px
picture = cv2.imread(photo)
# The crop: centred on the box, 1.5 times its mean side; pixel centres lie at integers.
scale = (side - 1) / (1.5 * (right - left + bottom - top) / 2)
middle = np.array([left + right, top + bottom]) / 2
shift = (side - 1) / 2 - scale * middle
crop = cv2.warpAffine(picture, np.column_stack([scale * np.eye(2), shift]), (side, side))
image = crop[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, H, H), RGB
(landmarks,) = session.run(["landmarks"], {"image": image})  # (1, 68, 3), crop px
points = (landmarks[0] - [*shift, 0]) / scale  # picture px
for x, y, _ in points:
    cv2.circle(picture, (round(x), round(y)), 2, (0, 255, 0), -1, cv2.LINE_AA)
cv2.imwrite(output, picture)
np.savetxt(Path(output).with_suffix(".csv"), points, delimiter=",")
