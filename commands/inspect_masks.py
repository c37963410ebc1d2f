"""Looking at a mask store: what made it, one image's masks, and whether it is undamaged."""

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.datasets.image_file import read_image
from pipeline.errors import ProtoMaskError, make, rerun
from pipeline.files import atomic_file, sha256
from pipeline.masks.masks import NO_PART, Masks
from pipeline.masks.names import form
from pipeline.masks.part_names import codebook_of, read_part_names
from pipeline.masks.store import MaskStore
from pipeline.progress import examples, track
from pipeline.report.drawing import Outline, colour_of, outlined
from stages.params import refuse_subfolder
from stages.workspace import Workspace

SHARES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
BAR = 32
SMALLEST, LARGEST = 960, 1920
GREY = 128
WIDEST = 10_000
"""Of what goes into a pipe or a file: in it no hash is folded."""


def opened(store: Path) -> MaskStore:
    """Opens a mask store.

    Raises:
        ProtoMaskError: it is missing or damaged, or the current folder is below that of dvc.yaml.
    """
    if not store.exists():
        refuse_subfolder(Path.cwd())
    return MaskStore(store)


def info(store: Path) -> None:
    masks = opened(store)
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    about, per_image = masks.about, masks.num_masks()
    files = _files(store)
    size = sum(path.stat().st_size for path in files)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in {
        "data set": f"{about['dataset']}, {len(masks)} images",
        **({"images' ids": examples(masks.ids)} if len(masks) else {}),
        **{name: _said(value) for name, value in about["segmenter"].items() if value is not None},
        "masks": str(per_image.sum()),
        "masks an image": _summary(per_image),
        "levels": _per_level(masks),
        **_parts(masks),
        **({"learned from": learned} if (learned := masks.learned_from()) else {}),
        "foreground": f"{masks.foreground().sum()} masks",
        "on disk": f"{size / 1e6:.2f} MB in {len(files)} files, "
        f"{size / max(len(masks), 1):.0f} bytes an image",
    }.items():
        table.add_row("segmenter" if name == "name" else name, escape(value))
    console.print(table)
    shares = area_shares(masks)
    if len(shares):
        console.print(_histogram(shares))


def codebook(out: Path, store: Path) -> None:
    learned = opened(store).codebook()
    if learned is None:
        raise ProtoMaskError(f"{store} has no codebook: its segmenter learns none")
    with atomic_file(out) as part:
        part.write_bytes(learned)
    digest = hashlib.sha256(learned).hexdigest()
    print(
        f"{out}: the codebook of {store}. To find the same parts in other images, and not to learn "
        f"again when images are added, set segmenter.codebook={digest} and runtime.codebook={out}"
    )


def show(workspace: Workspace, image: str, store: Path, out: Path | None) -> None:
    if out and out.is_dir():
        raise ProtoMaskError(f"{out} is a folder; --out names the picture to write")
    masks = opened(store)
    row = _find(workspace, image, masks)
    photograph = _photograph(workspace, masks, row)
    if out and photograph and out.resolve() == photograph.resolve():
        raise ProtoMaskError(f"{out} is the photograph itself; --out names the picture to write")
    found = masks.masks(row)
    names = read_part_names(workspace.part_names, masks.about["segmenter"], masks.part_names)
    _print_masks(found, _score_names(store), names.names)
    if names.remark:
        print(names.remark)
    pixels = _read_segmented(workspace, masks, row)
    if pixels is None:
        print("the photograph is not here, or has changed; its masks are drawn over grey")
        pixels = np.full((found.height, found.width, 3), GREY, np.uint8)
    side = min(max(found.height, found.width, SMALLEST), LARGEST)
    outlines = [
        Outline(found.full(number), colour_of(number), str(number)) for number in range(len(found))
    ]
    picture = outlined(pixels, outlines, side)
    out = out or Path(masks.ids[row].replace("/", "-") + ".masks.png")
    with atomic_file(out) as part:
        picture.save(part, "PNG")
    print(f"{len(found)} masks of {masks.ids[row]}, drawn in {out}")


def verify(workspace: Workspace, store: Path) -> None:
    try:
        masks = opened(store)
        wrong = masks.verify()
        num_files = len(_files(store))
    except ProtoMaskError:
        raise
    except Exception as error:
        # A damaged zarr.json can hold anything, so that reading it can fail in any way.
        wrong = [f"zarr.json: damaged ({type(error).__name__}: {error})"]
    if wrong:
        print("\n".join(wrong))
        raise ProtoMaskError(
            f"{store} is not as it was written: {rerun('masks')}; nothing is segmented again that "
            "this machine has segmented"
        )
    print(f"OK: {num_files} files in {store} are as they were written")
    _verify_images(workspace, masks)


def _verify_images(workspace: Workspace, masks: MaskStore) -> None:
    """Compares the photographs with those that were segmented, if they are this workspace's."""
    if not (workspace.image_files.exists() and workspace.params_file.exists()):
        return
    root = workspace.images_root(workspace.read_params())
    table = workspace.read_image_files().table
    paths = dict(zip(table["id"], table["path"], strict=True))
    segmented = dict(zip(masks.ids, masks.about["images"]["sha256"], strict=True))
    if not paths.keys() & segmented.keys() or not root.is_dir():
        print("its photographs are not those of this workspace: they were not looked at")
        return
    wrong = []
    for image, digest in track(segmented.items(), "Reading photographs", len(segmented)):
        path = root / paths[image] if image in paths else None
        if path is None or not path.is_file():
            wrong.append(f"{image}: the photograph is no longer there")
        elif sha256(path) != digest:
            wrong.append(f"{image}: {path} has changed since it was segmented")
    if wrong:
        print("\n".join(wrong))
        raise ProtoMaskError(
            f"{len(wrong)} photographs are not those that were segmented: "
            f"{_segment_anew(workspace)}"
        )
    print(f"OK: {len(segmented)} photographs in {root} are those that were segmented")


def _segment_anew(workspace: Workspace) -> str:
    """Returns the advice that makes masks of the photographs that are there now."""
    if workspace.images_root(workspace.read_params()) == workspace.index_folder:
        return (
            "run `dvc repro --force --single-item prepare`, which draws them anew, and then "
            f"{make('masks')}"
        )
    return (
        f"{make('masks')}, which segments only what has changed; if DVC then says that "
        f"nothing has, remove {workspace.cache / 'listings'}, so that every photograph is read "
        "again, and repeat"
    )


def area_shares(masks: MaskStore) -> NDArray[np.float64]:
    """Returns every mask's area as a share of its image, 0..1."""
    images = masks.about["images"]
    pixels = np.array(images["height"], np.float64) * np.array(images["width"], np.float64)
    return masks.areas() / np.repeat(pixels, masks.num_masks())


def count_shares(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns how many shares lie in each interval of `SHARES`, the upper end included."""
    upper = np.searchsorted(SHARES, shares, side="left") - 1
    return np.bincount(np.clip(upper, 0, len(SHARES) - 2), minlength=len(SHARES) - 1)


def _histogram(shares: NDArray[np.float64]) -> Table:
    counts = count_shares(shares)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("area, share of image", justify="right")
    table.add_column("masks", justify="right")
    table.add_column("")
    for low, high, number in zip(SHARES, SHARES[1:], counts.tolist(), strict=False):
        bar = "█" * round(BAR * number / counts.max())
        table.add_row(f"{100 * low:g}–{100 * high:g} %", str(number), bar)
    return table


def _print_masks(found: Masks, score_names: list[str], part_names: Mapping[int, str]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("mask", "x0", "y0", "x1", "y1", "area", "level", *score_names):
        table.add_column(name, justify="right")
    table.add_column("shows")
    for number in range(len(found)):
        share = 100 * found.areas[number] / (found.height * found.width)
        scores = [f"{score:.3g}" for score in found.scores[number].tolist()]
        box = [str(side) for side in found.boxes[number].tolist()]
        level, shown = str(found.levels[number]), _shown(found, number, part_names)
        table.add_row(str(number), *box, f"{share:.2f} %", level, *scores, escape(shown))
    Console(highlight=False).print(table)


def _shown(found: Masks, mask: int, part_names: Mapping[int, str]) -> str:
    """Returns the name or number of a mask's part, if known, and that it is background, if so."""
    part = int(found.parts[mask])
    known = [] if part == NO_PART else [part_names.get(part, f"part {part}")]
    return ", ".join(known if found.foreground[mask] else [*known, "background"])


def _find(workspace: Workspace, image: str, masks: MaskStore) -> int:
    """Returns the number of the image with this id, or with this path in the index or from here.

    Another spelling (`pipeline.masks.names.form`) will do if no other image has it.
    """
    rows = {name: row for row, name in enumerate(masks.ids)}
    if image in rows:
        return rows[image]
    paths = _paths(workspace)
    by_path = {path: name for name, path in paths.items()}
    for path in (image, _within_root(workspace, image)):
        name = by_path.get(path or "")
        if name in rows:
            return rows[name]
    alike = {
        row for name, row in rows.items() if form(image) in (form(name), form(paths.get(name, "")))
    }
    if len(alike) == 1:
        return alike.pop()
    near = difflib.get_close_matches(image, {*masks.ids, *by_path}, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {examples(masks.ids)}"
    raise ProtoMaskError(f"no image {image!r} in {masks.path}; {hint}")


def _paths(workspace: Workspace) -> dict[str, str]:
    """Returns the images' ids and paths, as far as there is an index."""
    if not workspace.image_files.exists():
        return {}
    table = workspace.read_image_files().table
    return dict(zip(table["id"], table["path"], strict=True))


def _root(workspace: Workspace) -> Path | None:
    if not workspace.params_file.exists():
        return None
    return workspace.images_root(workspace.read_params())


def _within_root(workspace: Workspace, image: str) -> str | None:
    root = _root(workspace)
    if root is None or not Path(image).resolve().is_relative_to(root.resolve()):
        return None
    return Path(image).resolve().relative_to(root.resolve()).as_posix()


def _read_segmented(workspace: Workspace, masks: MaskStore, row: int) -> NDArray[np.uint8] | None:
    """Returns an image's photograph, or None where it is not here or is another."""
    path = _photograph(workspace, masks, row)
    return read_image(path) if path is not None and masks.is_of(row, path) else None


def _photograph(workspace: Workspace, masks: MaskStore, row: int) -> Path | None:
    """Returns where an image's photograph should be; None where nothing here says so."""
    root, name = _root(workspace), _paths(workspace).get(masks.ids[row])
    return None if root is None or name is None else root / name


def _score_names(store: Path) -> list[str]:
    """Reads what the columns after a mask's box, area and bytes are called."""
    path = store / "regions" / "zarr.json"
    try:
        fields: list[str] = json.loads(path.read_text(encoding="utf-8"))["attributes"]["fields"]
        return fields[fields.index("bytes") + 1 :]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ProtoMaskError(f"{path} is damaged ({error}): {rerun('masks')}") from None


def _files(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def _summary(values: NDArray[np.int64]) -> str:
    if len(values) == 0:
        return "none"
    return (
        f"{values.min()} at least, {np.median(values):g} median, {values.mean():.1f} mean, "
        f"{values.max()} at most"
    )


def _per_level(masks: MaskStore) -> str:
    counts = np.bincount(masks.levels(), minlength=1).tolist()
    return ", ".join(f"{count} of level {level}" for level, count in enumerate(counts))


def _parts(masks: MaskStore) -> dict[str, str]:
    """Says how many parts the masks show, if any, and how a file of their names begins."""
    count = len(set(masks.parts().tolist()) - {NO_PART})
    codebook = codebook_of(masks.about["segmenter"])
    return {"parts": f"{count}, which parts.yaml names by `codebook: {codebook}`"} if count else {}


def _said(value: object) -> str:
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)
