"""How often answers are right by how sure the model is of them."""

import numpy as np
from numpy.typing import NDArray

from pipeline.report.bar_chart import Chart, draw_bars, percent


def calibration_chart(
    confidence_N: NDArray[np.float64], right_N: NDArray[np.bool_]
) -> Chart | None:
    """Draws how often answers are right by how sure the model is of them, in bins of 10 %.

    Says the expected calibration error (Guo et al., 2017): the mean distance, over the images, of a
    bin's mean confidence from its share of right answers.

    Args:
        confidence_N: the model's confidence in its answers, float64 N, in (0, 1].
        right_N: bool N, whether they are right.

    Returns:
        The chart, with a bar for each bin that has images; None without images.
    """
    if not len(confidence_N):
        return None
    bin_N = np.minimum((10 * confidence_N).astype(int), 9)
    bins = np.unique(bin_N).tolist()
    right = [100 * float(right_N[bin_N == number].mean()) for number in bins]
    sure = [100 * float(confidence_N[bin_N == number].mean()) for number in bins]
    counts = [int((bin_N == number).sum()) for number in bins]
    error = sum(n * abs(a - b) for n, a, b in zip(counts, right, sure, strict=True)) / sum(counts)
    labels = [f"{10 * number}–{10 * number + 10}" for number in bins]
    said = [
        f"{label} % sure: {count} image{'s' if count > 1 else ''}, {percent(share)} right"
        for label, count, share in zip(labels, counts, right, strict=True)
    ]
    over = sum(n * (b - a) for n, a, b in zip(counts, right, sure, strict=True)) > 0
    more = "more" if over else "less"
    sentence = (
        f"Taken together, the model is {more} sure than it is right; the mean distance of the two "
        f"is {percent(error)} (expected calibration error)."
    )
    names = ("of the images named right", "mean confidence in them")
    axis = "By confidence in percent, the softmax of the logits"
    return draw_bars(labels, right, sure, said, sentence, axis, names)
