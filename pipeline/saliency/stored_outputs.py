"""The finished model's outputs on the test images, as the stage evaluate has stored them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ProtoMaskError, rerun
from pipeline.saliency.prototypes import Prototypes

ROUNDING = 1e-3


@dataclass(frozen=True)
class StoredOutputs:
    """A model's outputs on the N test images.

    Args:
        rows_N: int64 N, the images, as rows of the index.
        labels_N: int64 N, the images' classes, 0..C−1.
        logits_NC: float32 N×C, the logits.
        similarity_NP: float32 N×P, similarity s_j of each image to each prototype.
        view_NP: int64 N×P, index of the image's view that is most similar to each prototype.
    """

    rows_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]
    logits_NC: NDArray[np.float32]
    similarity_NP: NDArray[np.float32]
    view_NP: NDArray[np.int64]

    @cached_property
    def predicted_N(self) -> NDArray[np.int64]:
        """The predicted class of each image, int64 N."""
        return self.logits_NC.argmax(1)

    def refuse_unless(self, prototypes: Prototypes) -> None:
        """Checks that these are outputs of a given model: that its V and s give the logits.

        Args:
            prototypes: the model's prototypes and weights.

        Raises:
            ProtoMaskError: the outputs are those of another model.
        """
        N, (C, P) = len(self.rows_N), prototypes.weights_CP.shape
        shapes = (self.logits_NC.shape, self.similarity_NP.shape, self.view_NP.shape)
        if shapes == ((N, C), (N, P), (N, P)):
            logits_NC = self.similarity_NP.astype(np.float64) @ prototypes.weights_CP.T
            largest = max(1.0, float(np.abs(logits_NC).max(initial=0)))
            if np.abs(logits_NC - self.logits_NC).max(initial=0) <= ROUNDING * largest:
                return
        raise ProtoMaskError(
            "the answers on the test images are not those of the finished model: "
            f"{rerun('evaluate')}"
        )
