"""artifacts/finetune/ → artifacts/evaluate/: the metrics, and what they were made of."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import save_file

from pipeline.datasets.dataset import DATASETS
from pipeline.files import atomic_folder
from pipeline.metrics.drawn_truth import DrawnTruth
from pipeline.metrics.evaluation import Evaluation, evaluate
from pipeline.training.fabric import make_fabric
from stages import provenance
from stages.finished import Finished
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    finished = Finished.read(workspace)
    finished.refuse_unless_made_with(params)
    index, crops, masks = finished.index, finished.crops, finished.masks()
    truth = None
    if DATASETS[index.dataset].knows_truth:
        truth = DrawnTruth(workspace.index_folder, index, index.rows("test"), masks, crops)
    evaluation = evaluate(
        finished.network,
        finished.prototypes(),
        index,
        crops,
        masks,
        make_fabric(params.runtime, finished.about.precision),
        params.evaluate.groups,
        top_k=params.evaluate.top_k,
        explanations=params.evaluate.explanations,
        truth=truth,
        cache=workspace.feature_cache(params),
        seed=params.seed,
    )
    evaluated = {"evaluate": provenance.tracked("evaluate", params)}
    _write(workspace, evaluation, {**finished.about.made_with, **evaluated})
    _say(evaluation)


def _write(workspace: Workspace, evaluation: Evaluation, made_with: provenance.MadeWith) -> None:
    outputs = evaluation.evidence.outputs
    with atomic_folder(workspace.evaluate) as folder:
        tensors = {
            "logits_NC": outputs.logits_NC,
            "similarity_NP": outputs.similarity_NP,
            "view_NP": outputs.view_NP,
        }
        save_file(tensors, folder / "answers.safetensors")
        _write_json(evaluation.metrics, folder / workspace.metrics.name)
        _write_json(evaluation.intervals, folder / workspace.intervals.name)
        notes = {
            "unavailable": evaluation.unavailable,
            "no_better": evaluation.controls.no_better,
            "remarks": evaluation.remarks,
        }
        _write_json(notes, folder / "notes.json")
        _write_json(made_with, folder / workspace.made_with.name)
        table = pa.Table.from_pandas(evaluation.images(), preserve_index=False)
        pq.write_table(table, folder / "images.parquet", compression="zstd")
        evaluation.predictions().to_csv(folder / "predictions.csv", index=False)
        _write_tables(evaluation.tables(), folder / "plots")
        _write_tables(evaluation.curves(), folder / "ranks")


def _write_json(values: Any, path: Path) -> None:
    text = json.dumps(values, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    folder.mkdir()
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)


def _say(evaluation: Evaluation) -> None:
    for group, values in evaluation.metrics.items():
        print(f"{group}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for group, missing in evaluation.unavailable.items():
        for why in dict.fromkeys(missing.values()):
            names = [name for name, reason in missing.items() if reason == why]
            print(f"{group}: not measured, {why}: {', '.join(names)}")
    for group, remark in evaluation.remarks.items():
        print(f"{group}: {remark}")
    for control, names in evaluation.controls.no_better.items():
        if names:
            print(f"truth: no better than with {control.replace('_', ' ')}: {', '.join(names)}")
