"""`protomask app`: a page in the browser about photographs, masks and parts (Gradio)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.datasets.image_file import read_image
from pipeline.errors import ProtoMaskError
from pipeline.masks.masks import NO_PART, Masks
from pipeline.masks.part_names import read_part_names, rename_part
from pipeline.masks.store import MaskStore
from pipeline.report.drawing import Outline, colour_of, outlined
from pipeline.report.parts import parts_in
from pipeline.saliency.margin import signed
from pipeline.saliency.prototypes import figure
from protomask import Answer, Model, Region, load
from stages.workspace import Workspace

try:
    import gradio as gr
except ImportError:
    raise ProtoMaskError(
        "the page needs Gradio: install the extra `app` (`pip install -e '.[app]'`)"
    ) from None

MOST_REGIONS, MOST_MASKS, EXAMPLES, SIDE = 8, 24, 8, 640
SCORES = ("class", "score")
MARGIN = ("region", "points", "looks most like", "of", "from")
Marked = tuple[NDArray[np.uint8], list[tuple[NDArray[np.bool_], str]]]


def run(folder: Path, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        folder: of the model.
        port: where; this machine alone can open it.
    """
    page = build(folder)
    print(f"the page is at http://127.0.0.1:{port}, for this machine alone; Ctrl-C ends it")
    try:
        page.launch(server_name="127.0.0.1", server_port=port, quiet=True)
    except OSError as error:
        raise ProtoMaskError(
            f"port {port} of this machine cannot be had: name another one with --port ({error})"
        ) from None


def build(folder: Path) -> gr.Blocks:
    """Returns the page: for an exported model one tab, for an experiment also masks and parts.

    Raises:
        ProtoMaskError: there is no model, or something of it is missing or damaged.
    """
    model, workspace = load(folder), Workspace(folder)
    with gr.Blocks(title="ProtoMask", analytics_enabled=False) as page:
        gr.Markdown("# ProtoMask: this part looks like that part")
        for remark in model.remarks:
            gr.Markdown(f"**{remark}**")
        with gr.Tab("A photograph"):
            _photograph_tab(model)
        if workspace.masks.is_dir():
            browser = MaskBrowser(workspace)
            with gr.Tab("Masks of the data set"):
                _masks_tab(browser)
            if browser.parts:
                with gr.Tab("Names of parts"):
                    _parts_tab(browser)
    return page


def _photograph_tab(model: Model) -> None:
    with gr.Row():
        # Without a mode Gradio leaves the file as it is: transparency and 16 bits are read here.
        photograph = gr.Image(
            type="filepath", image_mode=None, label="Drop a photograph here", elem_id="photo"
        )
        regions = gr.AnnotatedImage(label="Its regions, by their points")
    why = gr.Markdown(elem_id="why")
    with gr.Row():
        margin = gr.HTML(label="What decides between the first two classes", elem_id="margin")
        scores = gr.HTML(label="Scores", elem_id="scores")
    drawn = gr.Image(label="This looks like that", interactive=False, elem_id="figure")

    def ask(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, "", "", "", None
        try:
            answer = model.predict(path)
        except ProtoMaskError as error:
            raise gr.Error(str(error)) from None
        return (
            marked_regions(path, answer),
            "\n\n".join([f"### {answer.label}\n{answer.why}", *answer.remarks]),
            table(SCORES, [[name, figure(score)] for name, score in answer.scores.items()]),
            table(MARGIN, [row_of(region) for region in by_points(answer)]),
            answer.figure(),
        )

    photograph.change(ask, photograph, [regions, why, scores, margin, drawn])


def marked_regions(path: str, answer: Answer) -> Marked:
    """Returns a photograph with the regions that add most, labelled with their points."""
    regions = by_points(answer)
    labels = [f"{region.name} {signed(region.points)}" for region in regions]
    masks = apart([region.mask for region in regions])
    return read_image(Path(path)), list(zip(masks, labels, strict=True))


def apart(masks: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Returns masks without the pixels of smaller ones: colours that lie over one another mix."""
    shown = list(masks)
    covered = np.zeros(masks[0].shape if masks else (0, 0), bool)
    for place in sorted(range(len(masks)), key=lambda place: int(masks[place].sum())):
        shown[place] = masks[place] & ~covered
        covered |= masks[place]
    return shown


def by_points(answer: Answer) -> list[Region]:
    """Returns the regions that add most for or against, the largest first."""
    return sorted(answer.regions, key=lambda region: -abs(region.points))[:MOST_REGIONS]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as HTML."""
    lines = [Markup("").join(Markup("<th>{}</th>").format(head) for head in heads)]
    lines += [Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def row_of(region: Region) -> list[str]:
    """Returns a region's row: what it adds, and the prototype in it that adds most."""
    first = max(region.matches, key=lambda match: abs(match.points), default=None)
    looks = [f"prototype {first.prototype}", first.class_name, first.image] if first else [""] * 3
    return [region.name, signed(region.points), *looks]


def _masks_tab(browser: "MaskBrowser") -> None:
    image = gr.Dropdown(browser.ids, value=browser.ids[0], label="Image", elem_id="image")
    shown = gr.AnnotatedImage(browser.marked(browser.ids[0]), label="Its largest masks")
    image.change(browser.marked, image, shown)


def _parts_tab(browser: "MaskBrowser") -> None:
    gr.Markdown("The same number is the same part in every image. Names change no result.")
    first = browser.parts[0]
    part = gr.Dropdown(browser.parts, value=first, label="Part", elem_id="part")
    pictures = gr.Gallery(browser.examples(first), label="Where it is found", columns=4)
    name = gr.Textbox(browser.names().get(first, ""), label="Its name", elem_id="name")
    save = gr.Button("Save the name", elem_id="save")
    said = gr.Markdown(elem_id="saved")

    def show(number: int) -> tuple[list[Any], str, str]:
        return browser.examples(number), browser.names().get(number, ""), ""

    part.change(show, part, [pictures, name, said])
    save.click(browser.rename, [part, name], said)


class MaskBrowser:
    """The masks of an experiment's images, and the names of their parts.

    Args:
        workspace: of the experiment.

    Raises:
        ProtoMaskError: masks or index are missing or damaged.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._masks = workspace, MaskStore(workspace.masks)
        index = workspace.read_index()
        self._masks.refuse_other_images(index.image_files)
        self._root = workspace.images_root(workspace.read_params())
        self._paths, self.ids = index.table["path"].tolist(), index.ids
        self._found = {part.number: part for part in parts_in(self._masks)}
        self.parts = list(self._found)

    def names(self) -> dict[int, str]:
        """Returns the names of parts by their numbers."""
        return read_part_names(self._workspace.part_names, *self._of_segmenter()).names

    def marked(self, image: str) -> Marked:
        """Returns an image with its largest masks."""
        row, names = self.ids.index(image), self.names()
        masks = self._masks.masks(row)
        largest = range(min(len(masks), MOST_MASKS))
        called = [_called(masks, mask, names) for mask in largest]
        shown = apart([masks.full(mask) for mask in largest])
        return self._read(row), list(zip(shown, called, strict=True))

    def examples(self, part: int) -> list[Any]:
        """Draws a part in some images."""
        rows = self._found[part].rows
        chosen = rows[np.linspace(0, len(rows) - 1, min(EXAMPLES, len(rows))).astype(int)]
        pictures = []
        for row in chosen.tolist():
            masks = self._masks.masks(row)
            places = [masks.full(mask) for mask in np.flatnonzero(masks.parts == part).tolist()]
            outlines = [Outline(place, colour_of(0)) for place in places]
            pictures.append((outlined(self._read(row), outlines, SIDE, 0.6), self.ids[row]))
        return pictures

    def rename(self, part: int, name: str) -> str:
        """Writes a part's name into the file of names; returns what to say of it."""
        path, (segmenter, _) = self._workspace.part_names, self._of_segmenter()
        name = " ".join(name.split())
        try:
            rename_part(path, segmenter, self.parts, part, name)
        except ProtoMaskError as error:
            raise gr.Error(str(error)) from None
        return f"Part {part} is called **{name}**" if name else f"Part {part} has no name"

    def _of_segmenter(self) -> tuple[dict[str, Any], dict[int, str]]:
        return self._masks.about["segmenter"], dict(self._masks.part_names)

    def _read(self, row: int) -> NDArray[np.uint8]:
        try:
            return read_image(self._root / self._paths[row])
        except ProtoMaskError as error:
            raise gr.Error(str(error)) from None


def _called(masks: Masks, mask: int, names: dict[int, str]) -> str:
    part = int(masks.parts[mask])
    return f"mask {mask}" if part == NO_PART else names.get(part, f"part {part}")
