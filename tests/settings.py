"""Complete settings for tests, which name what they change.

The settings classes have no defaults, since the presets in `conf/` set every parameter; these
values are the tests' own, and no preset changes what a test says.
"""

from typing import Any

from pipeline.crops.settings import CropSettings
from pipeline.masks.png import Reading
from pipeline.masks.segmenters.felzenszwalb import Felzenszwalb
from pipeline.masks.segmenters.imported import Imported
from pipeline.masks.segmenters.parts.segmenter import Parts
from pipeline.masks.segmenters.patches import Patches
from pipeline.model.base.models import MODEL_SETTINGS
from pipeline.model.base.settings import BackboneSettings
from pipeline.training.settings import FinetuneSettings, PruneSettings, Runtime, TrainSettings

FELZENSZWALB: dict[str, Any] = {
    "version": 1,
    "scales": (300.0, 800.0, 2000.0, 5000.0),
    "sigma": 0.8,
    "min_area": 0.005,
    "max_side": 320,
    "max_box_iou": 0.9,
}
SAM2: dict[str, Any] = {
    "version": 1,
    "model": "sam2.1_hiera_base_plus",
    "weights_sha256": "0" * 64,
    "engine": "batched",
    "precision": "float32",
    "points_per_side": 32,
    "pred_iou_thresh": 0.8,
    "stability_score_thresh": 0.9,
    "stability_score_offset": 0.5,
    "mask_threshold": 0.0,
    "box_nms_thresh": 0.7,
    "crop_n_layers": 2,
    "crop_nms_thresh": 0.7,
    "crop_overlap_ratio": 512 / 1500,
    "crop_n_points_downscale_factor": 1,
    "min_mask_region_area": 10,
}
SLIT: dict[str, Any] = {
    "version": 1,
    "weights_sha256": "0" * 64,
    "side": 1800,
    "threshold": 0.001,
    "precision": "float32",
}
PARTS: dict[str, Any] = {
    "version": 1,
    "backbone": "test_resnet",
    "pretrained": "none",
    "side": 64,
    "margin": 32,
    "stages": (1, 2, 3),
    "objectness": "norm",
    "levels": (2, 4),
    "sample": 300,
    "min_area": 0.01,
    "superpixel": 30.0,
    "codebook": None,
}
CROPS: dict[str, Any] = {
    "version": 3,
    "side": 224,
    "per_image": 11,
    "choose": "largest",
    "background": "original",
    "min_box_area": 0.0,
    "max_box_area": 1.0,
    "storage": "jpeg",
}
BACKBONE = {"backbone": "efficientnet_lite0", "pretrained": "imagenet", "standardise": True}
MODEL: dict[str, dict[str, Any]] = {
    "protomask": {
        "embedding_dim": 1280,
        "prototypes_per_class": 10,
        "epsilon": 1e-4,
        "pooling": "box",
        "stages": (-1,),
    },
    "protopnet": {"embedding_dim": 128, "prototypes_per_class": 10, "epsilon": 1e-4},
    "protopool": {
        "embedding_dim": 128,
        "prototypes": 202,
        "slots": 10,
        "gumbel_epochs": 30,
        "epsilon": 1e-4,
    },
    "pipnet": {"prototypes": None},
    "blackbox": {},
}
TRAIN: dict[str, Any] = {
    "precision": "float32",
    "epochs": 100,
    "warmup_epochs": 0,
    "freeze_backbone": False,
    "freeze_until": 0,
    "drop_crops": 0.0,
    "batch_norm": "batch",
    "augment": True,
    "batch_size": 16,
    "accumulate": 4,
    "lr_backbone": 6e-5,
    "lr_projection": 1e-3,
    "lr_prototypes": 3e-3,
    "start": "random",
    "step_size": 35,
    "loss": {"cluster": 0.8, "separation": 0.2, "diversity": 0.2},
}
FINETUNE: dict[str, Any] = {
    "merge": False,
    "reach": 1.0,
    "epochs": 10,
    "lr": 3e-4,
    "batch_size": 16,
    "sparsity": "penalty",
    "penalty": 1e-3,
}
PRUNE = {"enabled": False, "nearest": 6, "threshold": 3}
RUNTIME: dict[str, Any] = {
    "device": "auto",
    "engine": "pytorch",
    "devices": 1,
    "workers": 2,
    "weights": None,
    "masks": None,
    "codebook": None,
    "memory_fraction": 0.9,
    "compile": False,
    "scheduler": None,
}


def felzenszwalb(**changes: Any) -> Felzenszwalb:
    return Felzenszwalb(**FELZENSZWALB | changes)


def patches(grid: int = 2) -> Patches:
    return Patches(version=1, grid=grid)


def imported(sha256: str, png: Reading = "mask") -> Imported:
    return Imported(version=4, sha256=sha256, png=png)


def parts(**changes: Any) -> Parts:
    return Parts(**PARTS | changes)


def crop_settings(**changes: Any) -> CropSettings:
    return CropSettings(**CROPS | changes)


def model_settings(name: str, **changes: Any) -> BackboneSettings:
    about = {"name": name, "code": f"pipeline/model/{name}", **BACKBONE, **MODEL[name]}
    return MODEL_SETTINGS[name].model_validate(about | changes)


def train_settings(**changes: Any) -> TrainSettings:
    return TrainSettings(**TRAIN | changes)


def finetune_settings(**changes: Any) -> FinetuneSettings:
    return FinetuneSettings(**FINETUNE | changes)


def prune_settings(**changes: Any) -> PruneSettings:
    return PruneSettings(**PRUNE | changes)


def runtime(**changes: Any) -> Runtime:
    return Runtime(**RUNTIME | changes)
