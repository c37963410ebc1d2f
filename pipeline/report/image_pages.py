"""All test images: a table that sorts and filters, and pages on which each is explained."""

import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.index import Index
from pipeline.progress import track
from pipeline.report.answers import Answer, Lines, answer, chosen, confidence, lines
from pipeline.report.contact_sheets import Thumbnail, thumbnail, write_sheet
from pipeline.report.contrast import Contrast, draw_place
from pipeline.report.drawing import COLOURS, QUALITY_SMALL
from pipeline.report.heatmaps import read_cut
from pipeline.report.image_renderer import ImageRenderer
from pipeline.report.pages import Picture, picture, write_page
from pipeline.report.stored_contrasts import Contrasts
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.stored_outputs import StoredOutputs

SCRIPT = Path(__file__).parent / "templates" / "images.js"
PER_PAGE = 20
IMAGE_SIDE, CROP, THUMBNAIL = 512, 192, 72


class Shown(NamedTuple):
    """A test image on its page.

    Args:
        image: id of the image.
        answer: what the model says of it, with pictures if it is drawn.
        drawn: the image with the regions of its margin outlined; None if it is not drawn or not
            available.
        small: the image as it lies on the page's contact sheet.
        lines: the margin by prototype; None with a single class.
        command: the command that draws the image's own page.
    """

    image: str
    answer: Answer
    drawn: Picture | None
    small: Thumbnail
    lines: Lines | None
    command: str


class ImagePages:
    """Writes the pages of the test images.

    Args:
        index: the data set's images, with ids and classes.
        renderer: draws these images and their views.
        prototypes: the finished model's prototypes and weights.
        outputs: the model's outputs on the test images.
        contrasts: says why test images were given one class rather than another.
    """

    def __init__(
        self,
        index: Index,
        renderer: ImageRenderer,
        prototypes: Prototypes,
        outputs: StoredOutputs,
        contrasts: Contrasts,
    ) -> None:
        self.index, self.renderer, self.prototypes = index, renderer, prototypes
        self.outputs, self.contrasts = outputs, contrasts
        self.names, self.whole = prototypes.class_names, renderer.crops.whole()

    def write(
        self,
        folder: Path,
        num_drawn: int,
        background_N: NDArray[np.float64] | None,
        not_learned: Sequence[str],
    ) -> None:
        """Writes images.html, images/ and a contact sheet of each class's prototypes in classes/.

        Args:
            folder: an existing folder with classes/ and without images/.
            num_drawn: how many images are drawn, see `chosen`; of the others the pages say the same
                in numbers.
            background_N: float64 N, background overlap of the test images in percent, NaN where it
                is not known; None if it was not measured.
            not_learned: what speaks against the model's having learned anything; empty if nothing.
        """
        (folder / "images").mkdir()
        for label in range(len(self.names)):
            self._write_prototypes(folder / "classes" / f"{label}.webp", label)
        drawn, sure_N = chosen(self.outputs, num_drawn), confidence(self.outputs.logits_NC)
        answers: list[Answer] = []
        places = range(len(self.outputs.rows_N))
        pages = [places[start : start + PER_PAGE] for start in places[::PER_PAGE]]
        for page, on_it in enumerate(track(pages, "Explaining test images")):
            found = [
                answer(place, self.outputs, self.contrasts, sure_N, background_N) for place in on_it
            ]
            self._write_page(folder / "images", page, len(pages), found, drawn, not_learned)
            answers += found
        self.write_table(folder / "images.html", answers, len(drawn), not_learned)

    def write_table(
        self, path: Path, answers: Sequence[Answer], num_drawn: int, not_learned: Sequence[str]
    ) -> None:
        """Writes the page of the table, which links to the pages in images/ beside it.

        Args:
            path: path of the HTML file.
            answers: what the model says of the test images, in their order.
            num_drawn: how many of them are drawn.
            not_learned: what speaks against the model's having learned anything; empty if nothing.
        """
        starts = range(0, len(answers), PER_PAGE)
        write_page(
            path,
            "images.html.jinja",
            dataset=self.index.dataset,
            not_learned=not_learned,
            views=self.prototypes.views,
            data=_data(self._ids(answers), answers, self.names),
            script=SCRIPT.read_text(encoding="utf-8"),
            per_page=PER_PAGE,
            num_images=len(answers),
            num_right=sum(found.right for found in answers),
            num_drawn=num_drawn,
            pages=[_classes(answers[start : start + PER_PAGE], self.names) for start in starts],
        )

    def _ids(self, answers: Sequence[Answer]) -> list[str]:
        ids = self.index.ids
        return [ids[self.outputs.rows_N[found.place]] for found in answers]

    def _write_page(
        self,
        folder: Path,
        page: int,
        num_pages: int,
        answers: Sequence[Answer],
        drawn: Collection[int],
        not_learned: Sequence[str],
    ) -> None:
        small = [self._small(found.place) for found in answers]
        write_sheet(folder / f"{page}.webp", small, THUMBNAIL)
        write_page(
            folder / f"{page}.html",
            "image_list.html.jinja",
            dataset=self.index.dataset,
            not_learned=not_learned,
            views=self.prototypes.views,
            page=page,
            num_pages=num_pages,
            names=self.names,
            prototype=self._prototype,
            shown=[
                self._shown(found, thumbnail(f"{page}.webp", number, ""), found.place in drawn)
                for number, found in enumerate(answers)
            ],
        )

    def _shown(self, found: Answer, small: Thumbnail, draw: bool) -> Shown:
        image = self.index.ids[self.outputs.rows_N[found.place]]
        contrast, drawn, by_prototype = found.contrast, None, None
        if contrast:
            by_prototype = lines(
                self.prototypes,
                contrast.margin.labels,
                self.outputs.similarity_NP[found.place],
                self.outputs.view_NP[found.place],
                contrast.margin.points,
            )
        if contrast and draw:
            outlined = self.contrasts.outlined(found.place, contrast.margin, IMAGE_SIDE)
            alt = f"Test photograph {image}, the regions of the table outlined"
            drawn = None if outlined is None else picture(outlined, alt)
            found = found._replace(contrast=self._with_regions(found.place, contrast))
        command = f"protomask explain {shlex.quote(image)} --out why.html"
        return Shown(
            image,
            found,
            drawn,
            small._replace(alt=f"Test photograph {image}"),
            by_prototype,
            command,
        )

    def _with_regions(self, place: int, contrast: Contrast) -> Contrast:
        """Returns the contrast with pictures of its regions, but not of its prototypes."""
        views, cuts = self.prototypes.views, self.contrasts.cuts(place, contrast.margin)
        rows = [
            row._replace(
                picture=draw_place(
                    views, cuts[views.crop(row.region.view)], row.region.view, row.colour, CROP
                )
            )
            for row in contrast.rows
        ]
        return contrast._replace(rows=rows)

    def picture(self, place: int) -> Picture:
        """Returns a small picture of a test image.

        Args:
            place: position of the image in the outputs.
        """
        image = self.index.ids[self.outputs.rows_N[place]]
        return picture(self._small(place), f"Test photograph {image}", QUALITY_SMALL)

    def _small(self, place: int) -> Image.Image:
        """Returns a small picture of a test image: as the store has it, in its own proportions."""
        row = int(self.outputs.rows_N[place])
        pixels = self.whole.crops([row])[0, 0]
        width, height = self.whole.sizes[row].tolist()
        factor = THUMBNAIL / max(width, height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)

    def _write_prototypes(self, path: Path, label: int) -> None:
        """Writes the contact sheet of a class's prototypes, in the order of their numbers."""
        prototypes = self.prototypes
        pictures = []
        for number in np.flatnonzero(prototypes.class_of_P == label).tolist():
            row, view = int(prototypes.rows_P[number]), int(prototypes.view_P[number])
            cut = read_cut(self.renderer.crops, row, prototypes.views.crop(view))
            pictures.append(draw_place(prototypes.views, cut, view, COLOURS[0]))
        side = max((max(drawn.size) for drawn in pictures), default=1)
        write_sheet(path, pictures, side)

    def _prototype(self, number: int) -> Thumbnail:
        """Returns a prototype's picture for the pages in images/."""
        prototypes = self.prototypes
        label = int(prototypes.class_of_P[number])
        place = int((prototypes.class_of_P[:number] == label).sum())
        image = self.index.ids[prototypes.rows_P[number]]
        alt = f"Prototype {number} of {self.names[label]}, from {image}"
        return thumbnail(f"../classes/{label}.webp", place, alt)


def _classes(answers: Sequence[Answer], names: Sequence[str]) -> str:
    """Names the classes of the images of a page."""
    return ", ".join(dict.fromkeys(names[found.actual] for found in answers))


def _data(ids: Sequence[str], answers: Sequence[Answer], names: Sequence[str]) -> str:
    """Returns the table's columns as JSON that may stand inside a script element."""
    regions = sorted({found.decisive for found in answers})
    margins = [found.contrast.margin.points if found.contrast else None for found in answers]
    columns: dict[str, Any] = {
        "names": list(names),
        "regions": regions,
        "image": list(ids),
        "actual": [found.actual for found in answers],
        "named": [found.named for found in answers],
        "confidence": [round(100 * found.confidence, 1) for found in answers],
        "margin": margins,
        "region": [regions.index(found.decisive) for found in answers],
        "background": [
            None if found.background is None else round(found.background, 1) for found in answers
        ],
    }
    text = json.dumps(columns, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")
