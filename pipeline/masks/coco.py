"""Writing masks in COCO's JSON format."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file
from pipeline.masks.masks import NO_PART, Masks
from pipeline.masks.store import FIELDS, MaskStore
from pipeline.progress import track


def write_coco(path: Path, store: MaskStore, names: Sequence[str]) -> None:
    """Writes a mask store as COCO JSON, one mask in each line; the same store gives the same bytes.

    Args:
        path: path of the JSON file, which is replaced.
        store: the mask store. An annotation's `score` is the first of a mask's scores; several
            scores are also written under their own names. Its category is its part, with the
            part's name if it has one; `part` has the number, and is left out where the segmenter
            knows none. `info` has the parts' names.
        names: the `file_name` of each of the store's images.

    Raises:
        ProtoMaskError: the store is damaged, or a score is not finite.
    """
    about = store.about
    info = {
        "description": "Masks that ProtoMask found",
        "segmenter": about["segmenter"],
        "dataset": about["dataset"],
        "part_names": about["part_names"],
    }
    sizes = zip(about["images"]["width"], about["images"]["height"], strict=True)
    images = (
        {"id": number, "file_name": name, "width": width, "height": height}
        for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), start=1)
    )
    with atomic_file(path) as part, part.open("w", encoding="ascii") as file:
        file.write(f'{{\n"info": {json.dumps(info)},\n"categories": ')
        file.write(json.dumps(_categories(store)))
        _write_list(file, "images", images)
        _write_list(file, "annotations", _annotations(store))
        file.write("\n}\n")


def _categories(store: MaskStore) -> list[dict[str, Any]]:
    """Returns a category for each part that has a mask, and one for masks of no known part."""
    parts = np.unique(store.parts()).tolist() or [NO_PART]
    names = {NO_PART: "mask"} | store.part_names
    return [
        {"id": _category(part), "name": names.get(part, f"part {part}"), "supercategory": ""}
        for part in parts
    ]


def _category(part: int) -> int:
    """Returns the category of a part: 1 for masks of no known part, 2 for part 0, and so on."""
    return part - NO_PART + 1


def _annotations(store: MaskStore) -> Iterator[dict[str, Any]]:
    fields: Any = zarr.open_array(store.path / "regions", mode="r").attrs["fields"]
    score_names = fields[len(FIELDS) :]
    number = 0
    for row in track(range(len(store)), "Writing masks"):
        found = store.masks(row)
        if not np.isfinite(found.scores).all():
            raise ProtoMaskError(
                f"{store.path}: a score of {store.ids[row]} is no finite number, which JSON lacks"
            )
        for mask in range(len(found)):
            number += 1
            yield {
                "id": number,
                "image_id": row + 1,
                "category_id": _category(int(found.parts[mask])),
                "iscrowd": 0,
                "area": int(found.areas[mask]),
                "bbox": _corner_and_size(found.boxes[mask]),
                **_scores(score_names, found.scores[mask]),
                **_kind(found, mask),
                "segmentation": {
                    "size": [found.height, found.width],
                    "counts": found.coco(mask)["counts"].decode("ascii"),
                },
            }


def _scores(names: list[str], scores: NDArray[np.float32]) -> dict[str, float]:
    values = scores.tolist()
    several = dict(zip(names, values, strict=True)) if len(names) > 1 else {}
    return {"score": values[0], **several}


def _kind(found: Masks, mask: int) -> dict[str, int | bool]:
    part = int(found.parts[mask])
    return {
        **({} if part == NO_PART else {"part": part}),
        "level": int(found.levels[mask]),
        "foreground": bool(found.foreground[mask]),
    }


def _corner_and_size(box: NDArray[np.int64]) -> list[int]:
    x0, y0, x1, y1 = box.tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def _write_list(file: TextIO, name: str, items: Iterable[dict[str, Any]]) -> None:
    file.write(f',\n"{name}": [')
    for number, item in enumerate(items):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(item, allow_nan=False))
    file.write("\n]")
