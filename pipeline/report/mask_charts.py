"""Charts of a segmenter's masks by rank: bars, optionally with a line."""

from collections.abc import Mapping

import pandas as pd

from pipeline.report.bar_chart import Chart, draw_bars, percent


def mask_charts(plots: Mapping[str, pd.DataFrame]) -> list[Chart]:
    """Draws the plots `object_coverage` and `mask_areas` of the stage evaluate, if present.

    Args:
        plots: tables by the plots' names.
    """
    charts = []
    if len(coverage := plots.get("object_coverage", pd.DataFrame())):
        alone, union = coverage["coverage"].tolist(), coverage["union"].tolist()
        said = f"The mask that is cut out first lies on {percent(alone[0])} of the object"
        if len(union) > 1:
            said += f", those of the first {len(union)} together on {percent(union[-1])}"
        names = ("of the object under the mask of this rank", "under it and all before it")
        ranks = coverage["rank"].tolist()
        charts.append(_by_rank(ranks, alone, union, f"{said}.", names))
    if len(areas := plots.get("mask_areas", pd.DataFrame())):
        ranks, area = areas["rank"].tolist(), areas["area"].tolist()
        said = f"The mask that is cut out first takes {percent(area[0])} of the image"
        if len(area) > 1:
            said += f", number {ranks[-1]} takes {percent(area[-1])}"
        names = ("of the image under the mask of this rank, the median over images", "")
        charts.append(_by_rank(ranks, area, [None] * len(area), f"{said}.", names))
    return charts


def _by_rank(
    ranks: list[int],
    values: list[float],
    line: list[float] | list[None],
    sentence: str,
    names: tuple[str, str],
) -> Chart:
    said = [
        f"Rank {rank}: {percent(value)}"
        + ("" if over is None else f", with all before it {percent(over)}")
        for rank, value, over in zip(ranks, values, line, strict=True)
    ]
    axis = "By rank, in the order in which masks become crops"
    return draw_bars([str(rank) for rank in ranks], values, line, said, sentence, axis, names)
