"""Metrics: what a trained model's answers and explanations are worth.

A group is one file with one face, `measure(evidence) -> Values`. A group that looks at saliency
maps has a second function, `of_maps`, which measures one batch of them; `over_maps` draws each
batch once and shows it to every group, because drawing is what costs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from pipeline.metrics.evidence import Evidence

Values = dict[str, Tensor | float]
"""Metric -> a tensor N, one value per image, whose mean is the metric; or a float, a metric that
is no mean over images. A metric whose ground truth the data set lacks is absent."""


@dataclass(frozen=True)
class Drawn:
    """The saliency of a batch of images, on the CPU.

    Args:
        images_B: int64, the images' numbers in the evidence.
        prototypes_Bk: int64, each image's k prototypes by falling similarity.
        maps_BkSS: float32 ≥ 0, where and how strongly each prototype was found.
        masks_BkSS: bool, the pixels that count as found.
    """

    images_B: Tensor
    prototypes_Bk: Tensor
    maps_BkSS: Tensor
    masks_BkSS: Tensor


OfMaps = Callable[[Evidence, Drawn], dict[str, Tensor]]
"""Measures a batch: name -> a tensor whose first dimension is B."""


def over_maps(
    evidence: Evidence, functions: Sequence[OfMaps], batch_size: int = 32
) -> list[dict[str, Tensor]]:
    """Draws every image once and gives each function's values for all N images, in their order.

    Values go straight to where they stay: kept apart, a small tensor a batch splits the memory
    that the next batch's maps would reuse (10 GB instead of 2 for 6,000 images).
    """
    top_Nk = evidence.top_Nk
    measured: list[dict[str, Tensor]] = [{} for _ in functions]
    for images_B in evidence.batches(batch_size) if functions else ():
        prototypes_Bk = top_Nk[images_B]
        maps_BkSS, masks_BkSS = evidence.explanation.maps(images_B, prototypes_Bk)
        drawn = Drawn(images_B, prototypes_Bk, maps_BkSS.cpu(), masks_BkSS.cpu())
        for function, values in zip(functions, measured, strict=True):
            for name, value in function(evidence, drawn).items():
                if name not in values:
                    values[name] = value.new_empty(len(top_Nk), *value.shape[1:])
                values[name][images_B] = value
    return measured
