"""Writes the exports beside this file, by the tools' own code where that can be installed.

    python make.py cvat label_studio sam        # pip install datumaro label-studio-sdk
    python make.py fiftyone                     # pip install fiftyone
    python make.py roboflow amg                 # pip install supervision segment-anything

Written by the tools' code: CVAT's two formats (Datumaro's exporters, which CVAT calls), Label
Studio's COCO and PNG files (its converter), FiftyOne's COCO (its exporter) and SA-1B's files
(Datumaro). In `amg` and `amg_rle` the run lengths are Segment Anything's, and the rest is laid out
as its script `amg.py` does. Roboflow's files, which only its site writes, are laid out as published
ones are; its `supervision` has to read them.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
from drawn import BOX, HEIGHT, PARTS, PHOTOGRAPHS, WIDTH, drawn, polygon
from PIL import Image as Pillow

HERE = Path(__file__).parent
SCORES = (0.875, 0.75)


def cvat() -> None:
    dataset = _datumaro([name.rpartition(".")[0] for name in PHOTOGRAPHS])
    dataset.export(str(HERE / "cvat"), "coco_instances", save_media=False, merge_images=False)
    (HERE / "cvat/images").rmdir()
    for transform in ("polygons_to_masks", "boxes_to_masks", "merge_instance_segments"):
        dataset.transform(transform)
    colours = {"background": (0, 0, 0), "wing": (61, 61, 245), "beak": (250, 50, 83)}
    label_map = {name: [colour, [], []] for name, colour in colours.items()}
    dataset.export(
        str(HERE / "cvat_masks"),
        "voc_segmentation",
        save_media=False,
        apply_colormap=True,
        label_map=label_map,
    )


def sam() -> None:
    dataset = _datumaro([PurePosixPath(name).stem for name in PHOTOGRAPHS], boxes=False)
    dataset.export(str(HERE / "sa_1b"), "segment_anything", save_media=False)


def _datumaro(names: list[str], boxes: bool = True):
    from datumaro.components.annotation import Bbox, Mask, Polygon
    from datumaro.components.dataset import Dataset
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image

    items, number = [], 0
    for name, photograph in zip(names, PHOTOGRAPHS, strict=True):
        annotations = []
        for (part, mask), score in zip(drawn(photograph).items(), SCORES, strict=False):
            number += 1
            said = {
                "label": PARTS.index(part),
                "id": number,
                "group": number,
                "attributes": {"occluded": False, "predicted_iou": score, "stability_score": 0.96}
                if not boxes
                else {"occluded": number % 2 == 0},
            }
            whole = photograph == PHOTOGRAPHS[0]
            annotations.append(Mask(mask, **said) if whole else Polygon(polygon(mask), **said))
        if boxes and photograph == PHOTOGRAPHS[0]:
            number += 1
            annotations.append(
                Bbox(*BOX, label=1, id=number, group=number, attributes={"rotation": 0.0})
            )
        picture = Image.from_numpy(np.zeros((HEIGHT, WIDTH, 3), np.uint8), ext=".jpg")
        items.append(DatasetItem(name, subset="default", media=picture, annotations=annotations))
    return Dataset.from_iterable(items, categories=list(PARTS), media_type=Image)


LABELS = '<Label value="wing"/><Label value="beak"/>'
CONFIG = f"""<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image">{LABELS}</BrushLabels>
<PolygonLabels name="shape" toName="image">{LABELS}</PolygonLabels>
<RectangleLabels name="box" toName="image"><Label value="beak"/></RectangleLabels></View>"""


def label_studio() -> None:
    """In the first photograph parts are brushed, in the second they are polygons."""
    from label_studio_sdk.converter import Converter

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tasks = [_task(root, number) for number in range(len(PHOTOGRAPHS))]
        (root / "export.json").write_text(json.dumps(tasks))
        converter = Converter(CONFIG, folder, upload_dir=str(root / "upload"))
        for format_, name in (
            ("COCO", "coco"),
            ("BRUSH_TO_COCO", "brush_coco"),
            ("BRUSH_TO_PNG", "png"),
        ):
            out = root / f"label_studio_{name}"
            out.mkdir()
            converter.convert(str(root / "export.json"), str(out), format_, is_dir=False)
            shutil.rmtree(out / "images", ignore_errors=True)
            shutil.copytree(out, HERE / out.name, dirs_exist_ok=True)
        shutil.copy(root / "export.json", HERE / "label_studio_png/project.json")


def _task(root: Path, number: int) -> dict:
    from label_studio_sdk.converter.brush import mask2rle

    name = f"{0xABCDEF0 + number:08x}-{PurePosixPath(PHOTOGRAPHS[number]).name}"
    (root / "upload/1").mkdir(parents=True, exist_ok=True)
    Pillow.new("RGB", (WIDTH, HEIGHT)).save(root / "upload/1" / name)
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    results = []
    for part, mask in drawn(PHOTOGRAPHS[number]).items():
        if number == 0:
            rle = mask2rle(mask.astype(np.uint8) * 255)
            value = {"format": "rle", "rle": rle, "brushlabels": [part]}
            results.append({"type": "brushlabels", "from_name": "tag", "value": value})
        else:
            points = np.reshape(polygon(mask), (-1, 2)) / (WIDTH, HEIGHT) * 100
            value = {"points": points.tolist(), "closed": True, "polygonlabels": [part]}
            results.append({"type": "polygonlabels", "from_name": "shape", "value": value})
    if number == 0:
        x, y, width, height = np.array(BOX) / (WIDTH, HEIGHT, WIDTH, HEIGHT) * 100
        value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
        value["rectanglelabels"] = ["beak"]
        results.append({"type": "rectanglelabels", "from_name": "box", "value": value})
    results = [{"id": f"r{at}", "to_name": "image", **size, **r} for at, r in enumerate(results)]
    drawing = {"id": 10 + number, "completed_by": 1, "was_cancelled": False, "result": results}
    drawing |= {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    return {
        "id": number + 1,
        "data": {"image": f"/data/upload/1/{name}"},
        "annotations": [drawing] if results else [],
    }


def fiftyone() -> None:
    import fiftyone as fo
    from fiftyone.utils.coco import COCODetectionDatasetExporter

    with tempfile.TemporaryDirectory() as folder:
        exporter = COCODetectionDatasetExporter(
            export_dir=str(HERE / "fiftyone"),
            export_media=False,
            classes=list(PARTS),
            info={},
        )
        with exporter:
            for photograph in PHOTOGRAPHS:
                path = Path(folder) / PurePosixPath(photograph).name
                Pillow.new("RGB", (WIDTH, HEIGHT)).save(path)
                found = [_detection(fo, part, mask) for part, mask in drawn(photograph).items()]
                if photograph == PHOTOGRAPHS[0]:
                    found.append(fo.Detection(label="beak", bounding_box=_relative(BOX)))
                exporter.export_sample(
                    str(path),
                    fo.Detections(detections=found),
                    fo.ImageMetadata.build_for(str(path)),
                )


def _detection(fo, part: str, mask: np.ndarray):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return fo.Detection(
        label=part,
        bounding_box=_relative((x0, y0, x1 - x0, y1 - y0)),
        mask=mask[y0:y1, x0:x1],
        confidence=SCORES[PARTS.index(part)],
        iscrowd=part == "beak",
    )


def _relative(box: tuple[int, ...]) -> list[float]:
    return [value / side for value, side in zip(box, (WIDTH, HEIGHT) * 2, strict=True)]


def roboflow() -> None:
    import supervision

    for split, photographs in {"train": PHOTOGRAPHS[:1], "valid": PHOTOGRAPHS[1:]}.items():
        images, annotations = [], []
        for number, photograph in enumerate(photographs):
            name = PurePosixPath(photograph).name
            stem = name.replace(".jpg", "_jpg")
            images.append(
                {
                    "id": number,
                    "license": 1,
                    "file_name": f"{stem}.rf.{0x1234567890ABCDEF + number:032x}.jpg",
                    "height": HEIGHT,
                    "width": WIDTH,
                    "date_captured": "2026-01-01T00:00:00+00:00",
                    "extra": {"name": name},
                }
            )
            for part, mask in drawn(photograph).items():
                said = {"category_id": 1 + PARTS.index(part), "segmentation": [polygon(mask)]}
                annotations.append(_of(len(annotations), number, **said))
            if photograph == PHOTOGRAPHS[0]:
                annotations.append(_of(len(annotations), number, category_id=2, segmentation=[]))
        categories = [{"id": 0, "name": "birds", "supercategory": "none"}]
        categories += [
            {"id": 1 + at, "name": part, "supercategory": "birds"} for at, part in enumerate(PARTS)
        ]
        content = {
            "info": {"year": "2026", "version": "1", "description": "Exported from roboflow.com"},
            "licenses": [{"id": 1, "url": "", "name": "Public Domain"}],
            "categories": categories,
            "images": images,
            "annotations": annotations,
        }
        path = HERE / "roboflow" / split / "_annotations.coco.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        with tempfile.TemporaryDirectory() as folder:
            for image in images:
                Pillow.new("RGB", (WIDTH, HEIGHT)).save(Path(folder) / image["file_name"])
            read = supervision.DetectionDataset.from_coco(folder, str(path))
            assert len(read) == len(images)


def _of(number: int, image: int, **said: object) -> dict:
    x, y, width, height = BOX
    box = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
    return {"id": number, "image_id": image, **box, **said}


def amg() -> None:
    import torch
    from segment_anything.utils.amg import coco_encode_rle, mask_to_rle_pytorch

    header = (
        "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,"
        "stability_score,crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
    )
    for photograph in PHOTOGRAPHS:
        stem = PurePosixPath(photograph).stem
        folder = HERE / "amg" / stem
        folder.mkdir(parents=True, exist_ok=True)
        rows, found = [header], []
        for number, (mask, score) in enumerate(
            zip(drawn(photograph).values(), SCORES, strict=False)
        ):
            Pillow.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{number}.png")
            crop_box = f"0,0,{WIDTH},{HEIGHT}"
            rows.append(f"{number},{mask.sum()},0,0,1,1,0.5,0.5,{score},0.96,{crop_box}")
            runs = coco_encode_rle(mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0])
            found.append(
                {
                    "segmentation": runs,
                    "area": int(mask.sum()),
                    "bbox": [0, 0, 1, 1],
                    "predicted_iou": score,
                    "point_coords": [[0.5, 0.5]],
                    "stability_score": 0.96,
                    "crop_box": [0, 0, WIDTH, HEIGHT],
                }
            )
        (folder / "metadata.csv").write_text("\n".join(rows))
        (HERE / "amg_rle").mkdir(exist_ok=True)
        (HERE / "amg_rle" / f"{stem}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    for tool in sys.argv[1:]:
        globals()[tool]()
