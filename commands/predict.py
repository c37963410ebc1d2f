"""Photographs → their classes, and a picture or a page of why."""

import sys
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from pipeline.crops.extraction import Crops, cut_as_stored, whole_image
from pipeline.crops.store import CropStore
from pipeline.datasets.photograph import UnreadableImageError, examine_photograph
from pipeline.errors import ProtoMaskError
from pipeline.files import sha256, whole_file
from pipeline.masks.segmenter import SEGMENTERS, Machine, Segmenter
from pipeline.model.base.inference import Answers, answers
from pipeline.model.base.network import PrototypeNetwork, views
from pipeline.model.base.saved import About
from pipeline.report.heatmaps import relevance_of
from pipeline.report.image_page import Asked, write_photograph_page
from pipeline.report.prediction_picture import Reason, draw_reasons
from pipeline.report.score_lines import Looks
from pipeline.report.view_pictures import draw_view
from pipeline.saliency.maps import SimilarPlaces
from pipeline.saliency.prototypes import Points, Prototypes
from pipeline.training.devices import make_fabric
from stages import workspace
from stages.finished import Finished
from stages.params import Params, read_params

RANKS, ROWS, EXPLAINED = 3, 5, 2
SOURCE = "ProtoMask photograph"


def run(photographs: list[Path], out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ProtoMaskError(f"{out} is a file; --out names a folder for the pictures")
    predictor = Predictor.load(read_params(workspace.PARAMS))
    unreadable = 0
    for path in photographs:
        try:
            photograph, remarks = examine_photograph(path)
        except UnreadableImageError as error:
            print(f"Error: {error}", file=sys.stderr)
            unreadable += 1
            continue
        for remark in remarks:
            print(f"{path}: {remark}", file=sys.stderr)
        ranking, picture = predictor.explain(photograph)
        target = _write(picture, path, out)
        said = ", ".join(f"{name} {score:.2f}" for name, score in ranking)
        print(f"{path}: {said} → {target}")
    if unreadable:
        raise ProtoMaskError(f"{unreadable} of {len(photographs)} photographs could not be read")


def write_page(photograph: Path, out: Path) -> None:
    if out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the page to write")
    if out.exists() and out.samefile(photograph):
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the page to write")
    pixels, remarks = examine_photograph(photograph)
    for remark in remarks:
        print(f"{photograph}: {remark}", file=sys.stderr)
    params = read_params(workspace.PARAMS)
    predictor = Predictor.load(params)
    asked = predictor.ask(photograph.name, pixels)
    with whole_file(out) as part:
        write_photograph_page(part, asked, predictor.looks(params.explain.only_mask))
    (name, score), *_ = asked.ranking
    print(f"{photograph}: {name} {score:.2f} → {out}")


class Predictor(NamedTuple):
    """The finished model with all it takes to use it on a photograph and to show why.

    Args:
        network: on the device that `fabric` says.
        fabric: device and precision.
        about: the model's classes and crop settings.
        segmenter: finds masks as they were found for training.
        machine: what it works with.
        prototypes: where the model's prototypes came from.
        crops: the crops of the training images.
        images: the ids of the index's images.
    """

    network: PrototypeNetwork
    fabric: Fabric
    about: About
    segmenter: Segmenter
    machine: Machine
    prototypes: Prototypes
    crops: CropStore
    images: list[str]

    @classmethod
    def load(cls, params: Params) -> "Predictor":
        finished = Finished.read()
        fabric = make_fabric(params.runtime)
        return cls(
            finished.network.to(fabric.device),
            fabric,
            finished.about,
            rebuild_segmenter(finished.about.segmenter),
            workspace.machine_of(params),
            finished.prototypes(),
            finished.crops,
            finished.index.ids,
        )

    def explain(self, photograph: NDArray[np.uint8]) -> tuple[list[tuple[str, float]], Image.Image]:
        """Returns the first classes with their scores, and the picture of why."""
        asked = self.ask("", photograph)
        score, views = asked.scores[0], self.prototypes.views
        rows = [] if views.kind == "image" else score.rows
        reasons = [self._reason(points, asked.crops) for points in rows]
        outlines = asked.outlines(views, sorted({points.view for points in rows}))
        return asked.ranking, draw_reasons(
            photograph, outlines, asked.ranking, score, reasons, views
        )

    def ask(self, name: str, photograph: NDArray[np.uint8]) -> Asked:
        """Asks the model about a photograph: if it sees crops, about those of its masks."""
        masks, size = None, self.crops.settings.side
        if self.network.sees == "crops":
            (masks,) = self.segmenter.segment([photograph], self.machine)
            crops = cut_as_stored(self.crops, photograph, masks)
        else:
            crops = whole_image(photograph, 1, size)
        found = self._answers(crops)
        logits_C = found.logits_NC[0].numpy()
        order = np.argsort(-logits_C, kind="stable").tolist()[:RANKS]
        similarity_P, view_P = found.similarity_NP[0].numpy(), found.view_NP[0].numpy()
        scores = [
            self.prototypes.score(label, similarity_P, view_P, ROWS).rounded()
            for label in order[:EXPLAINED]
        ]
        ranking = [(self.about.class_names[label], float(logits_C[label])) for label in order]
        return Asked(name, photograph, masks, crops, ranking, scores)

    def looks(self, only_mask: bool) -> Looks:
        """Returns what draws the lines of a page."""
        relevance = relevance_of(self.network)
        places = SimilarPlaces(self.network) if self.network.in_cells else None
        return Looks(self.prototypes, relevance, self.crops, self.images, only_mask, places)

    @torch.inference_mode()
    def _answers(self, crops: Crops) -> Answers:
        crops_1KSS3, valid_1K = (
            torch.from_numpy(crops.pixels)[None],
            torch.from_numpy(crops.valid)[None],
        )
        device = self.fabric.device
        with self.fabric.autocast():
            features_1VF = self.network.features(crops_1KSS3.to(device), valid_1K.to(device))
        return answers(self.network, features_1VF.float().cpu(), views(valid_1K, features_1VF))

    def _reason(self, points: Points, crops: Crops) -> Reason:
        first, views = points.prototypes[0], self.prototypes.views
        row, view = int(self.prototypes.rows_P[first]), int(self.prototypes.view_P[first])
        pixels = self.crops.crops([row])[0, views.crop(view)]
        size = self.crops.settings.side
        this = draw_view(views, crops.pixels[views.crop(points.view)], points.view, size)
        name = self.about.class_names[int(self.prototypes.class_of_P[first])]
        return Reason(points, name, self.images[row], this, draw_view(views, pixels, view, size))


def rebuild_segmenter(fingerprint: dict[str, Any]) -> Segmenter:
    """Returns the segmenter with this fingerprint.

    Raises:
        ProtoMaskError: this version of ProtoMask has none such.
    """
    try:
        return SEGMENTERS[fingerprint["name"]].model_validate(fingerprint)
    except (ProtoMaskError, ValidationError) as error:
        raise ProtoMaskError(
            f"the model was trained on masks of a segmenter that this version of ProtoMask does "
            f"not have ({error}): run `dvc repro`"
        ) from None


def _write(picture: Image.Image, photograph: Path, out: Path) -> Path:
    """Writes a photograph's picture, over an earlier one of the same photograph only."""
    source = sha256(photograph)
    for number in count(1):
        target = out / f"{photograph.stem}{f'-{number}' if number > 1 else ''}.png"
        if not target.exists() or _source_of(target) == source:
            break
    about = PngInfo()
    about.add_text(SOURCE, source)
    with whole_file(target) as part:
        picture.save(part, "PNG", pnginfo=about)
    return target


def _source_of(picture: Path) -> str | None:
    """Returns the hash of the photograph that a picture explains; None if it is no such picture."""
    try:
        with Image.open(picture) as image:
            return image.info.get(SOURCE)
    except (OSError, SyntaxError, ValueError):
        return None
