"""A finished model, loaded from a folder and applied to images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.image_file import examine_image, from_pillow
from pipeline.errors import ProtoMaskError
from pipeline.report.predictor import Predictor
from pipeline.training import learning
from pipeline.training.fabric import make_fabric
from protomask.answer import Answer
from protomask.exported import Exported, on_device
from protomask.named_parts import named_parts
from stages.finished import Finished
from stages.params import refuse_subfolder
from stages.workspace import Workspace

Photograph = str | Path | Image.Image | NDArray[np.uint8]


class Model:
    """A finished model that answers questions about images.

    Args:
        predictor: what applies it.
        only_mask: whether a page shows relevance on the crops' masks only.
        remarks: what has to be known of the model before its answers are believed, such as that it
            has not learned.

    Attributes:
        class_names: names of the classes that it knows.
        remarks: as above.
    """

    def __init__(
        self, predictor: Predictor, only_mask: bool = False, remarks: Sequence[str] = ()
    ) -> None:
        self._predictor, self._only_mask = predictor, only_mask
        self.class_names: list[str] = list(predictor.class_names)
        self.remarks: list[str] = list(remarks)

    def predict(self, image: Photograph, name: str | None = None) -> Answer:
        """Segments an image as the model's training images were, and classifies it.

        Args:
            image: path of an image file of any kind, a Pillow image, or RGB pixels, uint8
                height×width×3.
            name: what the image is called in the answer; None: as its file, if it has one.

        Raises:
            UnreadableImageError: the file is missing or no image.
            ProtoMaskError: the pixels are of another kind, or the segmenter's weights are not
                available.
        """
        pixels, remarks = _read(image)
        prediction = self._predictor.predict(name or _name_of(image), pixels)
        return Answer.of(self._predictor, prediction, self._only_mask, remarks)

    def __repr__(self) -> str:
        prototypes = len(self._predictor.prototypes)
        return f"<Model of {len(self.class_names)} classes with {prototypes} prototypes>"


def load(folder: str | Path, device: str | None = None) -> Model:
    """Loads a finished model.

    Args:
        folder: one that `protomask export` wrote, or that of an experiment: of its dvc.yaml,
            params.yaml and artifacts/.
        device: `cpu` or `cuda`; None: a GPU if there is one, or as an experiment's
            `runtime.device` says.

    Raises:
        ProtoMaskError: something is missing, damaged or made from something else, or there is no
            such device.
    """
    folder = Path(folder)
    if Exported.lies_in(folder):
        return _travelled(Exported(folder), device or "auto")
    if not Workspace(folder).params_file.is_file():
        if folder.absolute() == Path.cwd():
            refuse_subfolder(folder)
        what = "holds no model" if folder.is_dir() else "is no folder"
        raise ProtoMaskError(
            f"{folder.absolute()} {what}: name a folder that `protomask export` wrote, or that of "
            "an experiment, where dvc.yaml is"
        )
    return _made_here(Workspace(folder), device)


def _travelled(exported: Exported, device: str) -> Model:
    predictor = exported.predictor(device)
    return Model(predictor, exported.config.only_mask, _doubts(predictor.not_learned))


def _made_here(workspace: Workspace, device: str | None) -> Model:
    params = workspace.read_params()
    if device is not None:
        runtime = on_device(params.runtime.model_dump(), device)
        params = params.model_copy(update={"runtime": runtime})
    finished = Finished.read(workspace)
    parts, remark = named_parts(finished)
    predictor = Predictor(
        finished.network,
        make_fabric(params.runtime, finished.about.precision),
        finished.about,
        workspace.machine(params),
        finished.prototypes(),
        finished.crops,
        finished.index.ids,
        parts,
    )
    remarks = [*_doubts(predictor.not_learned), *filter(None, [remark])]
    return Model(predictor, params.explain.only_mask, remarks)


def _doubts(not_learned: Sequence[str]) -> list[str]:
    return [learning.said(not_learned)] if not_learned else []


def _read(image: Photograph) -> tuple[NDArray[np.uint8], Sequence[str]]:
    if isinstance(image, str | Path):
        return examine_image(Path(image))
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    try:
        pixels = np.asarray(image)
    except ValueError:  # lists of several lengths
        pixels = np.empty(0, np.uint8)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ProtoMaskError(
            f"an image is a path, a Pillow image, or uint8 of shape height×width×3, not "
            f"{pixels.dtype} of shape {'×'.join(map(str, pixels.shape)) or 'none'}"
        )
    return pixels, []


def _from_pillow(image: Image.Image) -> tuple[NDArray[np.uint8], Sequence[str]]:
    if not image.width or not image.height:
        raise ProtoMaskError(f"an image has pixels, and {_name_of(image)} has none")
    try:
        return from_pillow(image)
    except (OSError, ValueError) as error:
        raise ProtoMaskError(f"{_name_of(image)} cannot be read: {error}") from None


def _name_of(image: Photograph) -> str:
    if isinstance(image, str | Path):
        return Path(image).name
    return Path(getattr(image, "filename", "") or "image").name
