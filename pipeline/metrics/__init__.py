"""Metrics: what a trained model's answers and explanations are worth.

A group is one file with the same small face, of which it has what it needs:

- `measure(evidence) -> Values`: what takes one look at all answers;
- `of_batch(batch) -> dict`: measures a batch of images, for what is too large to hold at once;
- `of_maps(batch, drawn) -> dict`: measures a batch's saliency maps, once for each explanation;
- `from_batches`, `from_maps(evidence, gathered) -> Values`: make metrics of what these two have
  gathered for all images, where it is not yet one;
- `unavailable(evidence) -> dict`: which of its metrics cannot be measured here, and why;
- `plots(evidence, values) -> dict`: tables for `dvc plots`, besides that of all metrics.

`groups.measure` calls them so that each image is read, drawn and asked about once for all groups.
"""

from torch import Tensor

Values = dict[str, Tensor | float]
"""Metric -> a tensor N, one value per image, whose mean is the metric; or a float, a metric that
is no mean over images. A value that is not finite says that the metric is not defined there.
A tensor N×R, a row of values an image, is for plots only."""
