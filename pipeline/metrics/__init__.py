"""Metrics: quantitative evaluation of a trained model's outputs and explanations.

`group.MetricGroup` is the interface of a group of metrics, `groups/` holds one module for each, and
`measuring` measures them together on the `evidence`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Values = dict[str, "Tensor | float"]
"""Metric → a tensor N, one value per image, whose mean is the metric; or a float, for a metric that
is not a mean over images. A value that is not finite means that the metric is undefined there.
A tensor N×R, one row of values per image, is for plots only."""
