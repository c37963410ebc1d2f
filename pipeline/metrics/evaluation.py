"""The evaluation of a finished model: its metrics on the test images, and those of its controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.masks.store import MaskStore
from pipeline.metrics import Values
from pipeline.metrics.evidence import Evidence, Truth, TruthOfSome
from pipeline.metrics.gathering import ExplanationName, gather_evidence
from pipeline.metrics.group import METRIC_GROUPS
from pipeline.metrics.measuring import (
    Gathered,
    gather,
    measure,
    plots,
    plotted,
    unavailable,
    values_of,
)
from pipeline.metrics.randomisation import build_controls
from pipeline.metrics.sanity import CONTROL_IMAGES, Controls, evenly_spaced, no_better
from pipeline.metrics.summary import intervals, per_image, plot_tables, summarise
from pipeline.model.base.network import PrototypeNetwork
from pipeline.saliency.prototypes import Prototypes
from pipeline.training.fabric import Fabric
from pipeline.training.features import stored_embeddings


@dataclass(frozen=True)
class Evaluation:
    """A model's metrics on the test images, and what they were computed from.

    Args:
        evidence: the model's outputs for the N test images.
        values: group → metric → value, as returned by `measuring.measure`.
        unavailable: group → metric → the reason why it was not measured.
        controls: the model's controls.
        remarks: group → what has to be known of all its metrics.
        class_names: names of the C classes, in the order of the logits.
        seed: seed of the bootstrap, ≥ 0.
    """

    evidence: Evidence
    values: dict[str, Values]
    unavailable: dict[str, dict[str, str]]
    controls: Controls
    remarks: dict[str, str]
    class_names: list[str]
    seed: int

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The mean of each metric: group → metric → number; see `summary.summarise`.

        Those of a control have its name at the end, as in `purity_random_weights`.
        """
        return summarise(self._with(self.controls.named()))

    @cached_property
    def intervals(self) -> dict[str, dict[str, dict[str, float]]]:
        """The 95 % confidence interval of each mean; see `summary.intervals`."""
        return intervals(self._with(self.controls.named()), self.seed)

    def images(self) -> pd.DataFrame:
        """Returns the metrics of each image; see `summary.per_image`."""
        ids = self.evidence.ids
        return per_image(ids, self._with(self.controls.of_images(len(ids))))

    def predictions(self) -> pd.DataFrame:
        """Returns a row per image: `image` (its id), and the classes `actual` and `predicted`."""
        names = np.array(self.class_names)
        return pd.DataFrame(
            {
                "image": self.evidence.ids,
                "actual": names[self.evidence.labels_N.numpy()],
                "predicted": names[self.evidence.outputs.logits_NC.argmax(1).numpy()],
            }
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """Returns a table of the metrics of each group; see `summary.plot_tables`."""
        return plot_tables(plotted(self.metrics), self.metrics, self.intervals)

    def curves(self) -> dict[str, pd.DataFrame]:
        """Returns the tables of groups that plot more than their metrics; see `measuring.plots`."""
        return plots(self.evidence, self.values)

    def _with(self, of_controls: Values) -> dict[str, Values]:
        """Returns the values of the model and, in the group `truth`, those of its controls."""
        if not of_controls:
            return self.values
        return self.values | {"truth": self.values["truth"] | of_controls}


def evaluate(
    network: PrototypeNetwork,
    prototypes: Prototypes,
    index: Index,
    crops: CropStore,
    masks: MaskStore,
    fabric: Fabric,
    groups: Sequence[str],
    *,
    top_k: int,
    explanations: Sequence[ExplanationName] = ("mask",),
    truth: Truth | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> Evaluation:
    """Measures metric groups on the test images.

    With ground truth, the group `truth` is measured for the model's controls as well, on a sample
    of the images, and the model compared with them (Adebayo et al., 2018).

    Args:
        network: the finished model, in evaluation mode, on any device.
        prototypes: the model's prototypes, with where they came from.
        index: index of the data set's images.
        crops: store of the images' crops, as the model sees them (`PrototypeNetwork.seen`).
        masks: store of the masks that the crops are cut from.
        fabric: the device and the precision of the backbone.
        groups: names of the metric groups to measure, as registered.
        top_k: k, the number of prototypes that explain an image, ≥ 1.
        explanations: names of the explanations that draw saliency maps.
        truth: ground truth of the test images of a data set that was drawn; None for any other.
        cache: folder of the cache of backbone features; None caches nothing.
        seed: seed of noise, controls and bootstrap, ≥ 0.

    Returns:
        The metrics with all that the stage `evaluate` writes.

    Raises:
        ProtoMaskError: the data set has no test images, or the backbone does not accept crops of
            this size.
    """
    rows_N = index.rows("test")
    if len(rows_N) == 0:
        raise ProtoMaskError(
            f"{index.dataset} has no test images to measure on: add images to its classes, or a "
            "folder test/ beside train/, and run `dvc repro`"
        )
    test = _TestImages(index, rows_N, crops, masks, fabric, top_k, explanations, truth, seed)
    embedding_NVD = stored_embeddings(network, crops, rows_N, fabric, cache)
    evidence = test.evidence(network, embedding_NVD, torch.arange(len(rows_N)))
    gathered = gather(evidence, groups)
    controls = Controls()
    if truth is not None and "truth" in groups:
        made = build_controls(network, prototypes, crops, index.rows("train"), fabric, seed)
        controls = _measured(made, network, embedding_NVD, gathered, test)
    return Evaluation(
        evidence,
        values_of(evidence, groups, gathered),
        unavailable(evidence, groups),
        controls,
        _remarks(index, groups, controls),
        index.class_names,
        seed,
    )


@dataclass(frozen=True)
class _TestImages:
    """What models are measured on, and how; for the fields see `evaluate`.

    Args:
        rows_N: int64 N, the test images, as rows of the index and the stores.
    """

    index: Index
    rows_N: NDArray[np.int64]
    crops: CropStore
    masks: MaskStore
    fabric: Fabric
    top_k: int
    explanations: Sequence[ExplanationName]
    truth: Truth | None
    seed: int

    def evidence(
        self, model: PrototypeNetwork, embedding_nVD: Tensor, images_n: Tensor
    ) -> Evidence:
        """Returns a model's evidence for some of the images.

        Args:
            model: the model.
            embedding_nVD: its embeddings of these images' views.
            images_n: int64 n, the images' positions among the N.
        """
        return gather_evidence(
            model,
            embedding_nVD,
            self.index,
            self.rows_N[images_n.numpy()],
            self.crops,
            self.masks,
            self.fabric,
            top_k=self.top_k,
            explanations=self.explanations,
            truth=None if self.truth is None else TruthOfSome(self.truth, images_n),
            seed=self.seed,
        )


def _measured(
    made: Mapping[str, PrototypeNetwork],
    network: PrototypeNetwork,
    embedding_NVD: Tensor,
    gathered: Gathered,
    test: _TestImages,
) -> Controls:
    """Measures controls on a sample of the test images, and compares the model with them there."""
    images_n = evenly_spaced(len(test.rows_N), CONTROL_IMAGES)
    rows_n, own_nVD = test.rows_N[images_n.numpy()], embedding_NVD[images_n]
    ours = test.evidence(network, own_nVD, images_n)
    learned = values_of(ours, ["truth"], gathered.of(images_n))["truth"]
    values = {}
    for name, control in made.items():
        own = control.backbone is network.backbone
        seen_nVD = own_nVD if own else stored_embeddings(control, test.crops, rows_n, test.fabric)
        theirs = test.evidence(control, seen_nVD, images_n)
        values[name] = measure(theirs, ["truth"])["truth"]
    worse = {name: no_better(learned, found, test.seed) for name, found in values.items()}
    return Controls(images_n, values, worse)


def _remarks(index: Index, groups: Sequence[str], controls: Controls) -> dict[str, str]:
    remarks = {}
    if index.object_masks_from == "box":
        why = f"{index.dataset} has no object masks: boxes stand in for them"
        remarks = {group: why for group in groups if METRIC_GROUPS[group].needs_objects}
    few, total = len(controls.images_n), len(index.rows("test"))
    if 0 < few < total:
        remarks["truth"] = (
            f"the untrained models were measured on {few} of the {total} test images, evenly spaced"
        )
    return remarks
