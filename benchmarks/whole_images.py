"""What ProtoMask is compared with: a logistic regression on whole-image features.

It sees every image once, whole, through the same frozen backbone; its features are standardised,
and its penalty is chosen by cross-validation on the training images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.backbone.backbone import Backbone
from pipeline.datasets.image_file import read_image
from pipeline.progress import track

PENALTIES = [1e-3, 1e-2, 1e-1, 1.0]
BATCH = 32


def whole_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Returns an image as one crop: uint8, size×size×3."""
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized)


@torch.inference_mode()
def embed(backbone: Backbone, paths: Sequence[Path], size: int) -> NDArray[np.float32]:
    """Returns the pooled features of whole images, N×F."""
    found = []
    for at in track(range(0, len(paths), BATCH), "Embedding whole images"):
        images = [whole_image(read_image(path), size) for path in paths[at : at + BATCH]]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        found.append(backbone(pixels.float() / 255).numpy())
    return np.concatenate(found)


def fit(features_NF: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Any:
    """Returns the regression, fitted: StandardScaler and LogisticRegression in a pipeline."""
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(regression, {"logisticregression__C": PENALTIES}, cv=3)
    return search.fit(features_NF, labels_N).best_estimator_
