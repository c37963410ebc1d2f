"""Draws a search for learning rates: validation accuracy over each rate, a dot for each trial.

`python benchmarks/learning_rates.py NAME OUT.svg` after `protomask study tune --name NAME …`.
"""

import sys
from pathlib import Path
from typing import Annotated

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
import typer
from optuna.trial import TrialState

from pipeline.files import atomic_file
from pipeline.study import search
from stages.workspace import Workspace


def main(
    name: Annotated[str, typer.Argument(help="Of the search.")],
    out: Annotated[Path, typer.Argument(help="The drawing, an SVG file.")],
) -> None:
    file = Workspace().cache / "tune" / f"{name}.sqlite"
    storage = f"sqlite:///{file}"
    # Without the file, Optuna makes an empty one.
    if not (file.is_file() and optuna.get_all_study_names(storage)):
        sys.exit(f"there is no search {name}: run `protomask study tune --name {name}`")
    study = optuna.load_study(study_name="search", storage=storage)
    trials = [trial for trial in search.ended(study) if search.score_of(trial) is not None]
    if not trials:
        sys.exit(f"no trial of the search {name} has ended: run `protomask study tune` to its end")
    scores = np.array([search.score_of(trial) for trial in trials])
    complete = np.array([trial.state == TrialState.COMPLETE for trial in trials])
    rates = [key for key in search.SPACE if key.startswith("lr_") and key in trials[0].params]
    figure, panels = plt.subplots(
        1, len(rates), sharey=True, squeeze=False, layout="constrained", figsize=(3 * len(rates), 3)
    )
    for rate, panel in zip(rates, panels[0], strict=True):
        values = np.array([trial.params[rate] for trial in trials])
        panel.scatter(values[complete], scores[complete], label="complete")
        panel.scatter(
            values[~complete], scores[~complete], label="ended early", marker="x", c="grey"
        )
        panel.set(xscale="log", xlabel=f"train.{rate}")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("validation accuracy")
    panels[0, -1].legend()
    # The same search is drawn with the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = name
    with atomic_file(out) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    print(f"{len(trials)} trials in {out}")


if __name__ == "__main__":
    typer.run(main)
