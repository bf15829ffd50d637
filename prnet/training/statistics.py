"""The whitening of a regressor's parameters, from the training set."""

import torch
from torch import Tensor

from prnet.datasets.augment import AugmentRule, draw_similarity
from prnet.datasets.training_sets import TrainingData
from prnet.faces.face import Face
from prnet.geometry.pose_parameters import FitParameters
from prnet.models.regressor import Regressor

# Samples that it is computed from.
STATISTICS_SAMPLES = 4096


def parameter_statistics(
    data: TrainingData, model: Regressor, face: Face, rule: AugmentRule
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the parameters over augmented training samples, (P,) each."""
    fits = data.posed_fits(STATISTICS_SAMPLES)
    generator = torch.Generator().manual_seed(0)
    moved, mirrored = draw_similarity(len(fits.mirrored), rule, generator)
    fits = fits._replace(crop_from_model=moved @ fits.crop_from_model, mirrored=mirrored)
    truncated = face.morphable_model.truncated(model.num_shape, model.num_exp)
    parameters = FitParameters(truncated, face.mirror_index).cpu()(fits).double()
    std, mean = torch.std_mean(parameters, dim=0)
    return mean.float(), std.float()
