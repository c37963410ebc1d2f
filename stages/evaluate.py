"""artifacts/finetune/ → artifacts/evaluate/: the metrics, and what they were made of."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.files import whole_folder
from pipeline.metrics import Values
from pipeline.metrics.drawn_truth import DrawnTruth
from pipeline.metrics.evidence import Evidence
from pipeline.metrics.gathering import gather_evidence
from pipeline.metrics.groups import GROUPS, measure, plots, unavailable
from pipeline.metrics.randomisation import with_random_prototypes, with_random_weights
from pipeline.metrics.sanity import no_better
from pipeline.metrics.summary import intervals, per_image, plot_tables, summarise
from pipeline.training.devices import make_fabric
from stages import provenance, workspace
from stages.finished import Finished
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    groups, seed = params.evaluate.groups, params.seed
    finished = Finished.read()
    finished.refuse_unless_made_with(params)
    index, crops, masks, network = (
        finished.index,
        finished.crops,
        finished.masks(),
        finished.network,
    )
    rows, fabric = index.rows("test"), make_fabric(params.runtime)
    if len(rows) == 0:
        raise ProtoMaskError(f"{index.dataset} has no test images to measure on")
    drawn = index.dataset == "demo"
    gather = partial(
        gather_evidence,
        index=index,
        rows_N=rows,
        crops=crops,
        masks=masks,
        fabric=fabric,
        top_k=params.evaluate.top_k,
        explanations=params.evaluate.explanations,
        truth=DrawnTruth(workspace.INDEX_FOLDER, index, rows, masks, crops) if drawn else None,
        seed=seed,
    )
    evidence = gather(network, memory=workspace.features(params))
    values = measure(evidence, groups)
    notes: dict[str, dict] = {
        "unavailable": unavailable(evidence, groups),
        "no_better": {},
        "remarks": _remarks(index, groups),
    }
    if drawn and "truth" in groups:
        prototypes = finished.prototypes()
        sources, cells = prototypes.pixels(crops), torch.tensor(prototypes.cell_P)
        controls = {"random_weights": with_random_weights(network, sources, cells, fabric, seed)}
        if network.finetunes:
            controls["random_prototypes"] = with_random_prototypes(
                network, crops, index.rows("train"), fabric, seed
            )
        learned = dict(values["truth"])
        for name, control in controls.items():
            found = measure(gather(control), ["truth"])["truth"]
            notes["no_better"][name] = no_better(learned, found, seed)
            values["truth"] |= {f"{metric}_{name}": value for metric, value in found.items()}
    evaluated = {"evaluate": provenance.tracked("evaluate", params)}
    _write(evidence, values, notes, index, rows, seed, {**finished.about.made_with, **evaluated})


def _remarks(index: Index, groups: Sequence[str]) -> dict[str, str]:
    """Group → what is to be known of all its metrics."""
    if index.object_masks_from != "box":
        return {}
    why = f"{index.dataset} has no object masks: boxes stand in for them"
    return {group: why for group in ("complexity", "segmentation") if group in groups}


def _write(
    evidence: Evidence,
    values: dict[str, Values],
    notes: dict[str, dict],
    index: Index,
    rows: np.ndarray,
    seed: int,
    made_with: provenance.MadeWith,
) -> None:
    metrics, sure = summarise(values), intervals(values, seed)
    answers = evidence.answers
    with whole_folder(workspace.EVALUATE) as folder:
        tensors = {
            "logits_NC": answers.logits_NC,
            "similarity_NP": answers.similarity_NP,
            "view_NP": answers.view_NP,
        }
        save_file(tensors, folder / "answers.safetensors")
        text = json.dumps({**metrics, "intervals": sure}, indent=2, allow_nan=False)
        (folder / workspace.METRICS.name).write_text(text + "\n", encoding="utf-8")
        table = pa.Table.from_pandas(per_image(evidence.ids, values), preserve_index=False)
        pq.write_table(table, folder / "images.parquet", compression="zstd")
        (folder / "notes.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
        (folder / workspace.MADE_WITH.name).write_text(
            json.dumps(made_with, indent=2) + "\n", encoding="utf-8"
        )
        _write_predictions(index, rows, answers.logits_NC.argmax(1).numpy(), folder)
        _write_tables(plot_tables(GROUPS, metrics, sure), folder / "plots")
        _write_tables(plots(evidence, values), folder / "ranks")
    _say(metrics, notes)


def _write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    folder.mkdir()
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)


def _say(metrics: dict[str, dict[str, float]], notes: dict[str, dict]) -> None:
    for group, values in metrics.items():
        print(f"{group}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for group, missing in notes["unavailable"].items():
        for why in dict.fromkeys(missing.values()):
            names = [name for name, reason in missing.items() if reason == why]
            print(f"{group}: not measured, {why}: {', '.join(names)}")
    for group, remark in notes["remarks"].items():
        print(f"{group}: {remark}")
    for control, names in notes["no_better"].items():
        if names:
            print(f"truth: no better than with {control.replace('_', ' ')}: {', '.join(names)}")


def _write_predictions(
    index: Index, rows: np.ndarray, predicted_N: np.ndarray, folder: Path
) -> None:
    """Writes what DVC draws the confusion matrix from: a row a test image."""
    names = np.array(index.class_names)
    predictions = pd.DataFrame(
        {
            "image": index.table["id"].to_numpy()[rows],
            "actual": names[index.labels[rows]],
            "predicted": names[predicted_N],
        }
    )
    predictions.to_csv(folder / "predictions.csv", index=False)
