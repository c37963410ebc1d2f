"""The comparison of two runs: what it says of each."""

import pandas as pd
from tiny_experiment import BEHIND, IN_EVERY_SECOND, PART_P, Brightness, Tiny

from pipeline.report.parts import Parts
from pipeline.report.score_lines import Explainer
from pipeline.study import comparison_page
from pipeline.study.comparison_page import Run, verdicts


def test_prototypes_are_explained_by_their_part(parted: Tiny) -> None:
    parts = Parts({IN_EVERY_SECOND: "wing"}, {BEHIND: 0.5})
    explainer = Explainer(
        parted.prototypes, Brightness(), parted.crops, parted.index.ids, parts=parts
    )
    renderer = parted.report().renderer
    outputs = parted.outputs
    tested = comparison_page.Tested(
        Run("a", {}), parted.index, outputs, pd.DataFrame(), explainer, renderer
    )
    said = {-1: "", 3: " (wing)", 5: " (part 5, found in 50 % of the images)", 7: " (part 7)"}
    lines = [
        line for verdict in verdicts(tested, range(len(outputs.rows_N))) for line in verdict.lines
    ]
    shown = {line.points.prototypes[0]: line for line in lines}
    assert set(shown) == {0, 2, 3, 4, 5}
    for prototype, line in shown.items():
        assert line.shows == said[PART_P[prototype]]
        assert line.that and f"{line.shows}: crop" in line.that.alt
