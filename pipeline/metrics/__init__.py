"""Metrics: quantitative evaluation of a trained model's outputs and explanations.

A metric group is a module that implements those of these functions that it needs:

- `measure(evidence) -> Values`: metrics computed from the outputs for all images at once;
- `of_batch(batch) -> dict`: measures a batch of images, for what is too large to hold at once;
- `of_maps(batch, drawn) -> dict`: measures a batch's saliency maps, once per explanation;
- `from_batches`, `from_maps(evidence, gathered) -> Values`: compute metrics from what these two
  have returned for all images, where it is not yet a metric;
- `unavailable(evidence) -> dict`: the metrics that cannot be measured here, with the reason;
- `plots(evidence, values) -> dict`: tables for `dvc plots`, besides that of all metrics.

`groups.measure` calls them so that each image is read, explained and evaluated once for all groups.
"""

from torch import Tensor

Values = dict[str, Tensor | float]
"""Metric → a tensor N, one value per image, whose mean is the metric; or a float, for a metric that
is not a mean over images. A value that is not finite means that the metric is undefined there.
A tensor N×R, one row of values per image, is for plots only."""
