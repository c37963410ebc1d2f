"""The metric groups by name, measured together so that every saliency map is drawn once."""

from collections.abc import Callable, Sequence

import torch

from pipeline.errors import ProtoMaskError
from pipeline.metrics import (
    OfMaps,
    Values,
    compactness,
    complexity,
    contrastivity,
    general,
    over_maps,
)
from pipeline.metrics.evidence import Evidence

GROUPS: dict[str, Callable[..., Values]] = {
    "general": general.measure,
    "compactness": compactness.measure,
    "contrastivity": contrastivity.measure,
    "complexity": complexity.measure,
}
"""Name -> `measure(evidence)`; a group in `OF_MAPS` takes what was gathered from maps as well."""

OF_MAPS: dict[str, OfMaps] = {
    "contrastivity": contrastivity.of_maps,
    "complexity": complexity.of_maps,
}


def measure(evidence: Evidence, groups: Sequence[str]) -> dict[str, Values]:
    """Group -> metric -> value, for the groups named, with one pass over the saliency maps."""
    unknown = [name for name in groups if name not in GROUPS]
    if unknown:
        raise ProtoMaskError(
            f"unknown metric group {', '.join(unknown)}: choose from {', '.join(GROUPS)}"
        )
    if not evidence.ids:
        raise ProtoMaskError("no metric can be measured: the split holds no image")
    drawing = [name for name in groups if name in OF_MAPS]
    gathered = over_maps(evidence, [OF_MAPS[name] for name in drawing])
    arguments = {name: (values,) for name, values in zip(drawing, gathered, strict=True)}
    return {name: GROUPS[name](evidence, *arguments.get(name, ())) for name in groups}


def summarise(values: dict[str, Values]) -> dict[str, dict[str, float]]:
    """Group -> metric -> number, all finite, so that it can be written as strict JSON.

    A metric with one value per image becomes the mean of the finite ones. Images whose value is
    not finite (OIRR where a map has nothing inside the object) are left out of the mean, and
    `<metric>_undefined` then says how many they were: such a mean describes the other images
    only, and is to be read with that number. A metric without any finite value is absent, and
    only its `<metric>_undefined` remains (1 for a metric that is no mean over images, as NPR).
    """
    return {
        group: {
            name: number
            for metric, value in metrics.items()
            for name, number in finite_mean(metric, value).items()
        }
        for group, metrics in values.items()
    }


def finite_mean(metric: str, value: torch.Tensor | float) -> dict[str, float]:
    """The mean of the finite values, and how many were not finite, if any were not."""
    per_image = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    finite = per_image[per_image.isfinite()]
    undefined = len(per_image) - len(finite)
    mean = {metric: float(finite.mean())} if len(finite) else {}
    return mean | ({f"{metric}_undefined": float(undefined)} if undefined else {})
