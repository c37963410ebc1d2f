"""Do explanations lie on what matters? ProtoMask beside a whole-image model, on the built-in data.

Run where `dvc exp run -S evaluate=full` has finished on the data set `demo`:
`python benchmarks/truth.py`. The other model is a logistic regression on whole-image features of
the same backbone. Its explanation of a test image is the relevance, by `prp` or `grad`, of the
logit of the class that it predicts, cut and measured as ProtoMask's own relevance is: the image is
its one crop, its one region, and each class its one prototype. For ProtoMask on patches, run the
experiment with `-S segmenter=patches`.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor
from whole_images import embed, fit, whole_image

from pipeline.backbone.backbone import Backbone
from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.image_file import read_image
from pipeline.errors import ProtoMaskError
from pipeline.metrics.drawn_truth import DrawnTruth, sister
from pipeline.metrics.evidence import ranking
from pipeline.metrics.groups import truth
from pipeline.model.blackbox.model import LogitTarget
from pipeline.progress import track
from pipeline.saliency.maps import strongest
from pipeline.saliency.relevance import Propagator, Rule
from stages.finished import Finished
from stages.workspace import Workspace

workspace = Workspace()

RULES: tuple[Rule, ...] = ("prp", "grad")
ROWS = (
    "purity",
    "part_agreement",
    "discrimination",
    "discrimination_margin",
    "decisive_region",
    "deletion_auc",
)
BATCH = 16


class Classifier(NamedTuple):
    """The regression as one linear map of pooled features.

    Args:
        weights_CF: float32.
        bias_C: float32.
    """

    weights_CF: Tensor
    bias_C: Tensor

    @classmethod
    def of(cls, regression: Any) -> "Classifier":
        scaler, last = regression[0], regression[-1]
        weights = last.coef_ / scaler.scale_
        bias = last.intercept_ - weights @ scaler.mean_
        return cls(torch.from_numpy(weights).float(), torch.from_numpy(bias).float())

    def logits(self, features_NF: Tensor) -> Tensor:
        return features_NF @ self.weights_CF.T + self.bias_C


class Whole(NamedTuple):
    """Test images and their redrawings, as the regression sees them.

    Args:
        images_NSS3: uint8.
        logits_NC: of the images.
        redrawn_NC: of the same with one part of another class.
        labels_NSS: uint8, which part each pixel shows.
        part_N: int64, the part that was replaced.
        now_NSS: uint8, which part each pixel shows then.
    """

    images_NSS3: Tensor
    logits_NC: Tensor
    redrawn_NC: Tensor
    labels_NSS: Tensor
    part_N: Tensor
    now_NSS: Tensor


def main() -> None:
    params, finished = workspace.read_params(), Finished.read(workspace)
    index, crops, rows = finished.index, finished.crops, finished.index.rows("test")
    if not DATASETS[index.dataset].knows_truth:
        raise ProtoMaskError(f"{index.dataset} does not know what tells its classes apart")
    known = DrawnTruth(workspace.index_folder, index, rows, finished.masks(), crops)
    backbone = Backbone(params.model.backbone, params.model.pretrained).eval()
    paths = [workspace.images_root(params) / path for path in index.table["path"]]
    size = crops.settings.side
    features = embed(backbone, paths, size)
    others = np.setdiff1d(np.arange(len(index)), rows)
    classifier = Classifier.of(fit(features[others], index.labels[others]))
    images = np.stack([whole_image(read_image(paths[row]), size) for row in rows])
    redrawn = np.stack([whole_image(drawing, size) for drawing in _redrawn(known)])
    _, part_N, now_NSS = known.redrawn(torch.arange(len(rows)))
    whole = Whole(
        torch.from_numpy(images),
        classifier.logits(torch.from_numpy(features[rows])),
        classifier.logits(_features(backbone, redrawn)),
        known.labels(torch.arange(len(rows))),
        part_N,
        now_NSS,
    )
    first_N, second_N = ranking(whole.logits_NC)[:, :2].unbind(1)
    weights_NF = classifier.weights_CF[first_N]
    lead_NF = weights_NF - classifier.weights_CF[second_N]
    columns = {}
    for rule in RULES:
        propagator = Propagator(backbone, rule)
        maps_NSS, lead_NSS = (_maps(propagator, of, whole) for of in (weights_NF, lead_NF))
        columns[rule] = _truths(known, whole, maps_NSS, lead_NSS)
    accuracy = (whole.logits_NC.argmax(1).numpy() == index.labels[rows]).mean()
    _print(columns, float(accuracy))


def _redrawn(known: DrawnTruth) -> Iterator[NDArray[np.uint8]]:
    """Yields every test image with one part of its sister class."""
    names = known.index.table["class_name"].iloc[known.rows_N]
    for image, name in enumerate(track(names.tolist(), "Drawing")):
        part, donor = sister(name)
        yield known.drawn(image, {part: donor}).image


@torch.inference_mode()
def _features(backbone: Backbone, images: NDArray[np.uint8]) -> Tensor:
    batches = torch.from_numpy(images).permute(0, 3, 1, 2).split(BATCH)
    return torch.cat([backbone(batch.float() / 255) for batch in batches])


def _maps(propagator: Propagator, weights_NF: Tensor, whole: Whole) -> Tensor:
    """Returns the strongest positive relevance of sums of weighted features, N×S×S."""
    batches = list(zip(whole.images_NSS3.split(BATCH), weights_NF.split(BATCH), strict=True))
    maps = [
        propagator.maps(images, LogitTarget(weights)).detach()
        for images, weights in track(batches, f"Relevance by {propagator.rule}")
    ]
    maps_NSS = torch.cat(maps).clamp_min(0)
    return maps_NSS * strongest(maps_NSS)


def _truths(
    known: DrawnTruth, whole: Whole, maps_NSS: Tensor, lead_NSS: Tensor
) -> dict[str, float]:
    """Measures the maps as the group `truth` measures those of prototypes and of regions."""
    maps_N1SS, Q = maps_NSS[:, None], known.distinguishing_CCQ.shape[-1]
    share_N1Q = truth.part_shares(maps_N1SS, whole.labels_NSS, Q)
    predicted_N, runner_up_N = ranking(whole.logits_NC)[:, :2].unbind(1)
    either_NSS = truth.labels_of_both(whole.labels_NSS, whole.now_NSS, whole.part_N)
    found_N1 = truth.main_part(truth.part_shares(maps_N1SS, either_NSS, Q))
    logit_N1, after_N1 = (
        logits.gather(1, predicted_N[:, None]) for logits in (whole.logits_NC, whole.redrawn_NC)
    )
    parts_NQ = known.distinguishing_CCQ[predicted_N, runner_up_N]
    lead_N1Q = truth.part_shares(lead_NSS[:, None], whole.labels_NSS, Q)
    points_N1 = torch.ones(len(maps_NSS), 1)
    discrimination_N = truth.discrimination(share_N1Q, points_N1, parts_NQ)
    margin_N = truth.discrimination_margin(lead_N1Q, points_N1, parts_NQ)
    decisive_N = truth.decisive_region(lead_N1Q, points_N1, parts_NQ)
    agreement = truth.part_agreement(truth.main_part(share_N1Q), predicted_N[:, None], Q)
    change_N1 = truth.similarity_change(logit_N1, after_N1)
    return {
        "purity": float(truth.purity(share_N1Q).nanmean()),
        "part_agreement": agreement,
        "discrimination": float(discrimination_N.nanmean()),
        "discrimination_margin": float(margin_N.nanmean()),
        "decisive_region": float(decisive_N.nanmean()),
        "deletion_auc": truth.deletion_auc(change_N1, found_N1 == whole.part_N[:, None]),
    }


def _print(columns: dict[Rule, dict[str, float]], accuracy: float) -> None:
    metrics = json.loads(workspace.metrics.read_text())
    ours = {"mask": "", "prp": "_prp", "grad": "_grad"}
    measured = {name: end for name, end in ours.items() if f"purity{end}" in metrics["truth"]}
    table = Table(
        "%",
        *(f"ProtoMask, {name}" for name in measured),
        *(f"whole image, {rule}" for rule in columns),
        title=f"test accuracy {metrics['general']['accuracy']:.4f} and {accuracy:.4f}",
    )
    for row in ROWS:
        found = [metrics["truth"].get(f"{row}{end}") for end in measured.values()]
        found += [column[row] for column in columns.values()]
        table.add_row(row, *("–" if value is None else f"{value:.1f}" for value in found))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
