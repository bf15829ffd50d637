"""The parts of `scripts/build_embedded_face.py`.

Everything is in mm and in the model frame of the finished face: x to the subject's left, y up, z
toward the camera. Letters: V vertices of the source's body mesh, C of the coarse head, N of the
refined head, M targets, S samples.
"""
