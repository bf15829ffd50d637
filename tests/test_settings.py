"""Every setting of every experiment and protocol, written out: what the papers and the released
code have, and our choices where they say nothing. A changed number is a changed number here."""

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from prnet.datasets.pictures import CropRule
from prnet.entry import CONFIG_DIR
from tests.configurations import composed
from tests.plans import EXPERIMENTS, configuration

PROTOCOLS = sorted(path.stem for path in Path(CONFIG_DIR, "protocol").glob("*.yaml"))
SCHEDULE = "prnet.training.schedule."

NO_AUGMENTATION = {
    "rotation_deg": 0,
    "rotation_probability": 1,
    "translation": 0,
    "scale": [1, 1],
    "color": [1, 1],
    "color_probability": 1,
    "color_clip": True,
    "color_last": False,
    "exposure": [1, 1],
    "gamma": [1, 1],
    "contrast": [1, 1],
    "grey": 0,
    "blur": 0,
    "blur_side": [64, 200],
    "noise": 0,
    "occlusion": 0,
    "occluder": "noise",
    "occlusion_size": [0.1, 0.5],
    "mirror": 0,
    "attention": "silhouette",
}
PRN_AUGMENTATION = NO_AUGMENTATION | {
    "rotation_deg": 45,
    "translation": 0.1,
    "scale": [0.9, 1.2],
    "color": [0.6, 1.4],
    "occlusion": 0.5,
}
# What is every experiment's that does not say otherwise.
COMMON = {
    "optimizer": {
        "name": "adam",
        "weight_decay": 0,
        "momentum": 0.9,
        "clip_norm": None,
        "clip_from": 0,
        "rate_batch": None,
    },
    "trainer": {"precision": "fp32", "average": 0},
    "data": {
        "dataset": "300w_lp",
        "face": "bfm",
        "protocol": "default",
        "built": None,
        "hide_fits": 0,
        "landmark_images": None,
    },
}
BASES = {"num_shape": 40, "num_exp": 10}
REGRESSOR = {**BASES, "input_side": 120, "channel_order": "rgb"}

FAMILIES = {
    # Section 3.3; 30 epochs are not in the paper.
    "prn": {
        "model": {
            "name": "prn",
            "_target_": "prnet.models.prn.PRN",
            "width": 16,
            "coordinate_scale": 281.6,
            "layout": "same",
            "output": "sigmoid",
            "standardize": False,
        },
        "loss": {
            "_target_": "prnet.losses.prn.PRNLoss",
            "weights": [16, 4, 3, 0],
            "weight_picture": None,
            "reduction": "mean",
        },
        "augment": PRN_AUGMENTATION,
        "optimizer": {"learning_rate": 1e-4},
        "scheduler": {"_target_": SCHEDULE + "step_decay", "factor": 0.5, "every": 5},
        "trainer": {"epochs": 30, "batch_size": 16},
    },
    # Sections III-C to III-E.
    "sadrnet": {
        "model": {
            "name": "sadrnet",
            "_target_": "prnet.models.sadrnet.SADRNet",
            "layout": "same",
            "width": 16,
            "attention": True,
            "geometry": "self_aligned",
            "deformation": True,
            "alignment": "paper",
            "visibility_floor": 0.1,
            "standardize": False,
            "norm_momentum": 0.1,
            "coordinate_scale": 280,
            "shape_unit": pytest.approx(1 / 1.5e-5),
            "initialization": "xavier",
        },
        "loss": {
            "_target_": "prnet.losses.sadrnet.SADRNetLoss",
            "geometry": 0.1,
            "deformation": 0.5,
            "pose_dependent": 1,
            "attention": 0.05,
            "edge": 1,
            "normal": 0.1,
            "weights": [16, 12, 3, 0],
            "weight_picture": None,
            "edges": "neighbours",
            "reduction": "mean",
            "coordinate_scale": 280,
            "shape_unit": pytest.approx(1 / 1.5e-5),
        },
        "augment": PRN_AUGMENTATION
        | {"rotation_deg": 90, "scale": [0.9, 1.1], "occluder": "sadrnet"},
        "optimizer": {"learning_rate": 1e-4},
        "scheduler": {
            "_target_": SCHEDULE + "warmup_decay",
            "warmup_epochs": 4,
            "start": 0.1,
            "factor": 0.85,
        },
        "trainer": {"epochs": 25, "batch_size": 16},
    },
    # Section 4.1; by how much the rate decays, momentum and epochs are not in the paper.
    "2dasl": {
        "model": {
            "name": "2dasl",
            "_target_": "prnet.models.two_dasl.TwoDASL",
            "landmark_map": "own",
            "map_rounding": "nearest",
            "cycle": True,
            "empty_map_share": 0.5,
            "backbone": "resnet50",
            **REGRESSOR,
        },
        "loss": {
            "_target_": "prnet.losses.two_dasl.TwoDASLLoss",
            **BASES,
            "supervision": "wpdc",
            "landmarks_2d": 0.005,
            "landmarks_3d": 0.005,
            "cycle": 1,
            "self_critic": 0.005,
            "weighted_points": True,
            "point_unit": "side",
            "stage": "both",
            "stage_1_epochs": 2,
            "vdc_unit": "3ddfa",
            "normalizer": "max",
            "num_random": 132,
            "critic_learning_rate": 1e-4,
        },
        "augment": NO_AUGMENTATION,
        "optimizer": {"name": "sgd", "learning_rate": 5e-5, "clip_norm": 10, "clip_from": 2},
        "scheduler": {"_target_": SCHEDULE + "step_decay", "factor": 0.9, "every": 1},
        "trainer": {"epochs": 10, "batch_size": 32},
    },
    # The poster gives losses and sizes; schedule and rates are 3DDFA's, the augmentation PRN's.
    "mobile_frnet": {
        "model": {
            "name": "mobile_frnet",
            "_target_": "prnet.models.mobile_frnet.MobileFRNet",
            "attention": True,
            "scales": 4,
            "sge_groups": 64,
            "se_reduction": 2,
            **REGRESSOR,
        },
        "loss": {
            "_target_": "prnet.losses.parameters.ParameterLoss",
            **BASES,
            "wpdc": 1,
            "wing": 0.01,
            "wing_width": 10,
            "wing_curvature": 2,
            "normalizer": "max",
            "num_random": 132,
        },
        "augment": PRN_AUGMENTATION,
        "optimizer": {"name": "sgd", "learning_rate": 0.02, "weight_decay": 5e-4},
        "scheduler": {
            "_target_": SCHEDULE + "milestone_decay",
            "milestones": [30, 40],
            "factor": 0.2,
            "warmup_epochs": 5,
        },
        "trainer": {"epochs": 50, "batch_size": 512},
    },
    "swift": {
        "model": {
            "name": "swift",
            "_target_": "prnet.models.swift.Swift",
            "width": 1,
            "code": 256,
            "pairs": 150,
            "noise_mm": 4,
            "mirror_average": True,
            "num_shape": 80,
            "num_exp": 51,
            "input_side": 148,
            "trim": 10,
            "channel_order": "rgb",
        },
        "loss": {
            "_target_": "prnet.losses.points.PointsLoss",
            "pairs": 150,
            "depth": 0.5,
            "near": 1.5,
            "lids": 2,
        },
        "augment": NO_AUGMENTATION
        | {
            "rotation_deg": 15,
            "translation": 0.08,
            "scale": [0.86, 1.17],
            "color": [0.86, 1.16],
            "exposure": [0.66, 1.52],
            "gamma": [0.66, 1.52],
            "contrast": [0.74, 1.6],
            "grey": 0.2,
            "blur": 0.3,
            "blur_side": [48, 160],
            "noise": 0.12,
            "occlusion": 0.25,
            "mirror": 0.5,
        },
        "optimizer": {"name": "adamw", "learning_rate": 2e-3, "weight_decay": 0.02},
        "scheduler": {"_target_": SCHEDULE + "cosine_decay", "warmup_epochs": 0.1},
        "trainer": {"epochs": 20, "batch_size": 32, "average": 0.999},
        "data": {"face": "embedded"},
    },
}
GONE = object()
NO_CYCLE = {"model": {"landmark_map": "empty", "cycle": False}}
NO_MASK = {"loss": {"weighted_points": False}}
SHORT = {
    "loss": {"wing": 1, "wpdc": GONE, "normalizer": GONE},
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "weight_decay": 0},
    "scheduler": {"_target_": SCHEDULE + "cosine_decay", "warmup_epochs": 0.1},
    "trainer": {"epochs": 25, "batch_size": 64},
}


def torchvision(name: str, architecture: str) -> dict:
    target = "prnet.models.regressor.TorchvisionRegressor"
    return {"model": {"name": name, "_target_": target, "architecture": architecture, **REGRESSOR}}


# Experiment: the family, and what differs from it; a group with another target shares nothing.
CHANGES = {
    **{name: (name, {}) for name in FAMILIES},
    "prn_weights_1110": ("prn", {"loss": {"weights": [1, 1, 1, 0]}}),
    "prn_weights_1111": ("prn", {"loss": {"weights": [1, 1, 1, 1]}}),
    "sadrnet_ablation_a": (
        "sadrnet",
        {
            "model": {"attention": False, "geometry": "pose_dependent"},
            "loss": dict.fromkeys(["geometry", "deformation", "attention", "edge", "normal"], 0),
        },
    ),
    "sadrnet_ablation_b": (
        "sadrnet",
        {
            "model": {"attention": False, "geometry": "regressed_pose"},
            "loss": {"geometry": 1, "pose_dependent": 0, "attention": 0},
        },
    ),
    "sadrnet_ablation_c": (
        "sadrnet",
        {"model": {"attention": False}, "loss": {"attention": 0}},
    ),
    "sadrnet_ablation_d": (
        "sadrnet",
        {
            "model": {"geometry": "pose_dependent"},
            "loss": dict.fromkeys(["geometry", "deformation", "edge", "normal"], 0),
        },
    ),
    "sadrnet_ablation_e": ("sadrnet", {"model": {"deformation": False}}),
    "sadrnet_ablation_f": ("sadrnet", {}),
    "sadrnet_ablation_no_mesh_losses": ("sadrnet", {"loss": {"edge": 0, "normal": 0}}),
    "sadrnet_extra": (
        "sadrnet",
        {"data": {"built": ["data/built/300w_lp", "data/built/300w_lp_extra"]}},
    ),
    "sadrnet_released": (
        "sadrnet",
        {
            "model": {
                "layout": "released",
                "alignment": "released",
                "standardize": True,
                "norm_momentum": 0.5,
                "initialization": "released",
            },
            "loss": {"geometry": 0, "edges": "released"},
            "augment": {
                "rotation_probability": 0.25,
                "scale": [0.97, 1.03],
                "color_probability": 0.5,
                "color_clip": False,
                "color_last": True,
                "occlusion": 0.25,
                "attention": "released",
            },
        },
    ),
    "2dasl_base": (
        "2dasl",
        {**NO_CYCLE, "loss": {"landmarks_3d": 0, "cycle": 0, "self_critic": 0}},
    ),
    "2dasl_base_no_mask": (
        "2dasl",
        {
            **NO_CYCLE,
            "loss": {"landmarks_3d": 0, "cycle": 0, "self_critic": 0, **NO_MASK["loss"]},
        },
    ),
    "2dasl_cyc": ("2dasl", {"loss": {"self_critic": 0}}),
    "2dasl_cyc_no_mask": ("2dasl", {"loss": {"self_critic": 0, **NO_MASK["loss"]}}),
    "2dasl_sc": ("2dasl", {**NO_CYCLE, "loss": {"landmarks_3d": 0, "cycle": 0}}),
    "2dasl_sc_no_mask": (
        "2dasl",
        {**NO_CYCLE, "loss": {"landmarks_3d": 0, "cycle": 0, **NO_MASK["loss"]}},
    ),
    "2dasl_no_mask": ("2dasl", NO_MASK),
    "2dasl_given": ("2dasl", {"model": {"landmark_map": "given", "empty_map_share": 0}}),
    **{
        f"2dasl_{count}": (
            "2dasl",
            {
                "data": {
                    "built": ["data/built/300w_lp", "data/built/landmarks_only"],
                    "landmark_images": count,
                }
            },
        )
        for count in (77228, 115126, 175534)
    },
    "mobile_frnet_no_attention": (
        "mobile_frnet",
        {"model": {"name": "mobile_frnet_no_attention", "attention": False}},
    ),
    "mobilenet_v2": ("mobile_frnet", torchvision("mobilenet_v2", "mobilenet_v2")),
    "densenet121": ("mobile_frnet", torchvision("densenet121", "densenet121")),
    "resnet50": ("mobile_frnet", torchvision("resnet50", "resnet50")),
    "resnext50": ("mobile_frnet", torchvision("resnext50", "resnext50_32x4d")),
    "mobile_frnet_short": ("mobile_frnet", {**SHORT, "augment": {"mirror": 0.5}}),
    "mobile_frnet_synthetic": (
        "mobile_frnet",
        {
            **SHORT,
            "model": {"num_shape": 80, "num_exp": 51},
            "loss": SHORT["loss"] | {"num_shape": 80, "num_exp": 51},
            "trainer": {"epochs": 10, "batch_size": 64},
            "data": {"dataset": "synthetic", "face": "embedded"},
        },
    ),
}


def expected(name: str) -> dict[str, dict]:
    """The settings written out above, by group."""
    family, changes = CHANGES[name]
    groups = {}
    for group in ("model", "loss", "augment", "optimizer", "scheduler", "trainer", "data"):
        changed = changes.get(group, {})
        values = {} if "_target_" in changed else FAMILIES[family].get(group, {})
        values = COMMON.get(group, {}) | values | changed
        groups[group] = {key: value for key, value in values.items() if value is not GONE}
    return groups


def found(name: str) -> dict[str, dict]:
    """The same settings as the experiment composes them."""
    cfg = OmegaConf.to_container(configuration(f"+experiment={name}"), resolve=True)
    cfg["scheduler"].pop("_partial_")
    trainer = ("epochs", "batch_size", "precision", "average")
    named = {key: cfg[key]["name"] for key in ("dataset", "face", "protocol")}
    data = {key: cfg[key] for key in ("built", "hide_fits", "landmark_images")}
    return {
        "model": {"name": cfg["model"]["name"], **cfg["model"]["network"]},
        **{group: cfg[group] for group in ("loss", "augment", "optimizer", "scheduler")},
        "trainer": {key: cfg["trainer"][key] for key in trainer},
        "data": named | data,
    }


def test_every_experiment_is_written_out():
    assert sorted(CHANGES) == EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_has_the_settings_written_out(name):
    settings = found(name)
    for group, values in expected(name).items():
        assert settings[group] == values, f"{group} of {name}"


DEFAULT_PROTOCOL = {
    "metrics": ["nme_68_2d", "nme_68_3d", "nme_dense_2d", "nme_dense_3d"],
    "landmarks": "pt3d_68",
    "dense": "map",
    "pixel_origin": "zero_based",
    "convert_origin": True,
    "z_alignment": "mean",
    "normalizer": "box_points",
    "yaw_source": "pose_para",
    "yaw_labels": "data/AFLW2000/yaw_new.csv",
    "bins": [30, 60],
    "exclude": [],
    "drop_worst": 0,
    "parts": False,
    "crop": {"source": "landmarks", "scale": 1.5, "jitter": 0, "span": 255, "boxes": None},
    "reconstruction": {
        "metric": "icp_similarity",
        "normalizer": "outer_interocular_3d",
        "direction": "target_to_source",
        "iterations": 200,
        "tolerance": 3e-6,
        "trim": 0,
        "start": "centroids",
        "levels": [16, 4, 1],
        "memory": 0,
    },
    "pose": {"points": "dense", "images": "plausible", "fix": False},
    "balanced": {"per_bin": None, "draws": 1000, "seed": 0},
    "curve": {"limit_percent": 10, "limit_deg": 20},
}
POINTS = DEFAULT_PROTOCOL["metrics"]
TURNS = ["pose_mae_yaw", "pose_mae_pitch", "pose_mae_roll", "pose_mae", "pose_geodesic"]
MATLAB = {
    "dense": "vertices",
    "pixel_origin": "matlab",
    "convert_origin": False,
    "z_alignment": "min",
    "normalizer": "box_68",
    "reconstruction": {"metric": "rec_2dasl", "normalizer": "box"},
}
PROTOCOL_CHANGES = {
    "default": {},
    "2dasl": {**MATLAB, "metrics": [*POINTS, "nme_rec"], "balanced": {"per_bin": 232}},
    "3ddfa": {**MATLAB, "metrics": ["nme_68_2d", "nme_dense_2d"], "balanced": {"per_bin": 232}},
    "aflw": {**MATLAB, "metrics": ["nme_points_2d"]},
    "aflw_lfpa": {"metrics": ["nme_points_2d"]},
    "pose": {"metrics": TURNS},
    # Figs. 8 and 9, Table II: a scan has neither labels of a yaw nor correspondences.
    "prn_florence": {
        "metrics": ["nme_rec"],
        "pixel_origin": "face3d",
        "convert_origin": False,
        "crop": {"scale": 1.6},
    },
    "sadrnet_florence": {
        "metrics": ["nme_rec"],
        "landmarks": "map",
        "pixel_origin": "sadrnet",
        "convert_origin": False,
        "crop": {"span": 256},
        "pose": {"images": "all"},
    },
    "prn": {
        "metrics": [*POINTS, "nme_rec"],
        "pixel_origin": "face3d",
        "convert_origin": False,
        "yaw_source": "labels",
        "crop": {"scale": 1.6},
        "balanced": {"per_bin": 232},
    },
    "sadrnet": {
        "metrics": [*POINTS, "nme_rec", *TURNS],
        "landmarks": "map",
        "pixel_origin": "sadrnet",
        "convert_origin": False,
        "crop": {"span": 256},
        "reconstruction": {"metric": "rec_sadrnet"},
        "pose": {"images": "all"},
    },
    **{
        f"reconstruction_{name}": {"metrics": ["nme_rec"], "reconstruction": {"metric": metric}}
        for name, metric in (
            ("icp_rigid", "icp_rigid"),
            ("icp_similarity", "icp_similarity"),
            ("procrustes", "procrustes_corr"),
            ("vrn", "icp_correspondence"),
        )
    },
}


def test_every_protocol_is_written_out():
    assert sorted(PROTOCOL_CHANGES) == PROTOCOLS


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocol_has_the_settings_written_out(name):
    written = {"name": name, **DEFAULT_PROTOCOL}
    for field, value in PROTOCOL_CHANGES[name].items():
        written[field] = written[field] | value if isinstance(value, dict) else value
    cfg = composed("eval", f"protocol={name}")
    assert OmegaConf.to_container(cfg, resolve=True)["protocol"] == written


# What experiments and tables build on, beside what an experiment itself says.
FILES = {
    "dataset/300w_lp_extra": {  # SADRNet III-E: 5,000 of 90 to 105 degrees
        "name": "300w_lp_extra",
        "subsets": None,
        "yaw_deg": [90, 105],
        "increments_deg": None,
        "max_turn_deg": 30,
        "count": 5000,
        "seed": 0,
    },
    "dataset/florence": {  # SADRNet IV-A: 20 poses a subject; VRN's region of 19,000 points
        "name": "florence",
        "pitch_deg": [-15, 0, 20, 25],
        "yaw_deg": [-80, -40, 0, 40, 80],
        "scans": ["frontal1", "frontal2"],
        "unit": "mm",
        "upright": True,
        "region": "nose_radius",
        "radius_mm": 95,
        "max_points": 19000,
        "picture_size": 512,
        "picture_scale": 1.6,
        "shading": 0.3,
        "background": 0,
    },
    "dataset/aflw": {
        "name": "aflw",
        "roi": "corrected",
        "frame": "landmarks",
        "occlusion": "none",
    },
    "loss/pdc": {"pdc": 1, "num_random": 132},
    "loss/vdc": {"vdc": 1, "vdc_unit": "3ddfa", "num_random": 132},
    "loss/wpdc": {"wpdc": 1, "normalizer": "max", "num_random": 132},
    "loss/wing": {"wing": 1, "wing_width": 10, "wing_curvature": 2, "num_random": 132},
    "build": {
        "crop": {"scale": 1.5, "jitter": 0, "span": 255, "whole_px": False},
        "pixel_origin": "zero_based",
        "map_dtype": "float32",
    },
    "train": {
        "validation_fraction": 0.02,
        "seed": 0,
        "trainer": {
            "epochs": 1,
            "max_steps": None,
            "batch_size": 32,
            "accumulate": 1,
            "precision": "fp32",
            "channels_last": True,
            "deterministic": False,
            "compile": "auto",
            "num_workers": "auto",
            "resident": "auto",
            "log_every": 20,
            "validate_every": 1,
            "save_every": 500,
            "average": 0,
            "recompute_batch_norm": "auto",
            "sync_batch_norm": False,
        },
    },
}


@pytest.mark.parametrize("name", FILES)
def test_file_has_the_settings_written_out(name):
    content = OmegaConf.to_container(OmegaConf.load(Path(CONFIG_DIR, f"{name}.yaml")))
    assert content == content | FILES[name]
    if name.startswith(("dataset", "loss")):
        assert content.keys() - FILES[name].keys() <= {"_target_", *BASES}


def test_the_crop_of_a_build_is_the_default_one():
    assert CropRule(**FILES["build"]["crop"]) == CropRule()


@pytest.mark.parametrize(
    ("group", "name"),
    [
        *(("loss", name) for name in ("prn", "sadrnet", "2dasl", "points")),
        *(("model", name) for name in ("prn", "sadrnet", "2dasl", "mobile_frnet", "swift")),
    ],
)
def test_defaults_of_a_class_are_those_of_its_configuration(group, name):
    """Who makes one in Python trains the same."""
    cfg = OmegaConf.to_container(configuration(f"{group}={name}"), resolve=True)[group]
    values = cfg["network"] if group == "model" else cfg
    parameters = inspect.signature(get_class(values.pop("_target_"))).parameters
    defaults = {key: one.default for key, one in parameters.items() if key in values}
    assert len(defaults) > 1
    for key, default in defaults.items():
        value = tuple(values[key]) if isinstance(values[key], list) else values[key]
        assert value == pytest.approx(default) if isinstance(value, float) else value == default, (
            key
        )
