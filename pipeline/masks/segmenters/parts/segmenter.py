"""The segmenter `parts`: objects and parts that are the same in every image."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine, Segmenter, Source, register
from pipeline.masks.segmenters.parts.settings import PartsSettings
from pipeline.progress import track

if TYPE_CHECKING:
    from pipeline.masks.segmenters.parts.codebook import Codebook
    from pipeline.masks.segmenters.parts.features import FeatureMaps, Features


@register
class Parts(PartsSettings):
    """Finds objects and their parts; see `PartsSettings` for its parameters.

    `fit` learns the codebook, or reads a pinned one, and returns the segmenter to use.
    """

    _codebook: "Codebook | None" = PrivateAttr(None)
    _folder: Path | None = PrivateAttr(None)
    _pinned: bool = PrivateAttr(False)

    def fit(self, sources: Sequence[Source], folder: Path, machine: Machine) -> Segmenter:
        """Returns the segmenter with its codebook; see `Segmenter.fit`.

        The codebook is learned from the images with the smallest hashes, at most `sample`, so that
        a few added images seldom change it.

        Raises:
            ProtoMaskError: the backbone cannot be had, an image cannot be read, or a pinned
                codebook is missing, damaged, or was learned with other parameters.
        """
        features = self._features(machine, folder)
        if self.codebook is None:
            codebook = self._learn(sources, folder, features)
        else:
            codebook = self._read(features, machine, folder)
        fitted = self.model_copy(update={"codebook": codebook.sha256})
        fitted._codebook, fitted._folder = codebook, folder
        fitted._pinned = self.codebook is not None
        return fitted

    def remarks(self, sources: Sequence[Source], machine: Machine) -> list[str]:
        """Says what the codebook was learned from, and how it is kept; see `Segmenter.remarks`."""
        if self._codebook is None or self._pinned:
            return []
        images = self._codebook.about["images"]
        return [
            f"parts were learned from {images} images, without labels, into the codebook "
            f"{str(self.codebook)[:12]}…; images that are added can change it, and then all images "
            "are segmented again; `protomask masks codebook FILE` keeps it, "
            "and says how to pin it, so that an added image costs its own masks only"
        ]

    def with_learnt(self, machine: Machine) -> Segmenter:
        """Returns the segmenter with its codebook; see `Segmenter.with_learnt`."""
        fitted = self.model_copy()
        fitted._codebook = self._read(self._features(machine, None), machine, None)
        fitted._pinned = True
        return fitted

    def learnt(self) -> bytes | None:
        """Returns the codebook as the content of a file; None before `fit`."""
        return None if self._codebook is None else self._codebook.content

    def segment(
        self, images: Sequence[NDArray[np.uint8]], machine: Machine = Machine()
    ) -> list[Masks]:
        """Segments images; see `Segmenter.segment`.

        Raises:
            ProtoMaskError: there is no codebook, or it does not fit.
        """
        features = self._features(machine, None)
        codebook = self._codebook or self._read(features, machine, None)
        pairs = zip(images, features.of_images(images), strict=True)
        return [self._masks(image, maps, codebook) for image, maps in pairs]

    def segment_sources(self, sources: Sequence[Source], machine: Machine) -> list[Masks]:
        """Segments image files; see `Segmenter.segment_sources`.

        The features that the codebook was learned from are read, and removed: once there are
        masks, keeping features would cost more disk than it saves time.
        """
        if self._codebook is None:
            return super().segment_sources(sources, machine)
        features = self._features(machine, self._folder)
        images = [source.read() for source in sources]
        taken = [features.taken(source) for source in sources]
        unknown = [image for image, maps in zip(images, taken, strict=True) if maps is None]
        computed = iter(features.of_images(unknown))
        return [
            self._masks(image, maps or next(computed), self._codebook)
            for image, maps in zip(images, taken, strict=True)
        ]

    def _features(self, machine: Machine, folder: Path | None) -> "Features":
        from pipeline.masks.segmenters.parts.features import Features

        return Features(self, machine, folder)

    def _masks(self, image: NDArray[np.uint8], maps: "FeatureMaps", codebook: "Codebook") -> Masks:
        from pipeline.masks.segmenters.parts.regions import regions

        standard = codebook.standard(maps)
        objectness = codebook.objectness(standard)
        looks = codebook.looks(standard, objectness)
        found = regions(image, objectness, looks, codebook, self.superpixel, self.min_area)
        return Masks.of(image.shape[0], image.shape[1], found, len(self.score_names))

    def _read(self, features: "Features", machine: Machine, folder: Path | None) -> "Codebook":
        """Returns the pinned codebook: from the file that is named, or as it was learned here."""
        from pipeline.masks.segmenters.parts.codebook import Codebook

        if self.codebook is None:
            raise ProtoMaskError(
                "segmenter=parts knows no parts before it has seen a data set: set "
                "segmenter.codebook and runtime.codebook"
            )
        learned = [] if folder is None else sorted(folder.glob(f"codebooks/*/{self.codebook}.*"))
        file = machine.codebook or next(iter(learned), None)
        if file is None:
            raise ProtoMaskError(
                f"segmenter.codebook is the SHA-256 of a codebook, {self.codebook}: set "
                "runtime.codebook to its file (`protomask masks codebook FILE` writes it where the "
                "masks are)"
            )
        codebook = Codebook.read(file, self.codebook)
        codebook.refuse_unless(self, features.backbone)
        return codebook

    def _learn(self, sources: Sequence[Source], folder: Path, features: "Features") -> "Codebook":
        """Learns a codebook, or returns it if it has been learned before."""
        from pipeline.masks.segmenters.parts.codebook import Codebook, decisive
        from pipeline.masks.segmenters.parts.learning import learn

        if not sources:
            raise ProtoMaskError(
                "segmenter=parts has no image to learn parts from: all are in the test split"
            )
        chosen = sorted({source.sha256: source for source in sources}.items())[: self.sample]
        told = json.dumps([decisive(self), features.backbone, [digest for digest, _ in chosen]])
        told += features.computed_by
        name = hashlib.sha256(told.encode()).hexdigest()
        for known in sorted((folder / "codebooks" / name).glob("*.safetensors")):
            try:
                return Codebook.read(known, known.stem)
            except ProtoMaskError:
                known.unlink(missing_ok=True)
        found = features.of_sources([source for _, source in chosen])
        maps = list(track(found, "Features of images to learn parts from", len(chosen)))
        codebook = learn(self, features.backbone, maps)
        path = folder / "codebooks" / name / f"{codebook.sha256}.safetensors"
        with atomic_file(path) as part:
            part.write_bytes(codebook.content)
        return codebook
