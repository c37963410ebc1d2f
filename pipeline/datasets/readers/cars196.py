"""Stanford Cars (Krause et al., 2013) in either of its official layouts."""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.datasets.dataset import Annotations, DataSet, read_mat, register
from pipeline.datasets.index import Image, Split
from pipeline.errors import ProtoMaskError

NAME = "Stanford Cars"
TEST = "cars_test_annos_withlabels.mat"


@register
class Cars196(DataSet):
    """Stanford Cars."""

    name = "cars196"
    copies = (
        "its first home is gone; https://github.com/pytorch/vision/issues/7545 tells where copies "
        "are kept, such as "
        "https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars"
    )

    def read(self, root: Path) -> Annotations:
        """Reads cars_annos.mat beside car_ims/, or devkit/ beside cars_train/ and cars_test/.

        The labels of the test images, published later than devkit/, may lie in it or beside it.

        Args:
            root: the data set's folder.

        Raises:
            ProtoMaskError: `root` has neither layout, or a file is missing or damaged.
        """
        if (root / "cars_annos.mat").is_file():
            return _read_one_table(root)
        if (root / "devkit").is_dir():
            return _read_devkit(root)
        raise ProtoMaskError(
            f"dataset.root: {root} is not laid out as {NAME} is: it holds neither cars_annos.mat "
            f"and car_ims/, nor devkit/, cars_train/ and cars_test/; {self.copies}"
        )


def _read_one_table(root: Path) -> Annotations:
    table = read_mat(root / "cars_annos.mat", NAME)
    names = _class_names(table)
    images = [
        _image(car, str(car["relative_im_path"]), "test" if car["test"] else "train", names)
        for car in np.atleast_1d(table["annotations"])
    ]
    return Annotations(images, list(names.values()), [])


def _read_devkit(root: Path) -> Annotations:
    devkit = root / "devkit"
    names = _class_names(read_mat(devkit / "cars_meta.mat", NAME))
    train = read_mat(devkit / "cars_train_annos.mat", NAME)["annotations"]
    beside = (root / TEST).is_file()
    test = read_mat((root if beside else devkit) / TEST, NAME)["annotations"]
    images = [
        *(
            _image(car, f"cars_train/{car['fname']}", "train", names)
            for car in np.atleast_1d(train)
        ),
        *(_image(car, f"cars_test/{car['fname']}", "test", names) for car in np.atleast_1d(test)),
    ]
    return Annotations(images, list(names.values()), [])


def _class_names(table: dict[str, Any]) -> dict[int, str]:
    return {number: str(name) for number, name in enumerate(table["class_names"], 1)}


def _image(car: Any, path: str, split: Split, names: dict[int, str]) -> Image:
    """Converts an entry; its box counts pixels from 1 and includes the last row and column."""
    x0, y0, x1, y1 = (int(car[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2"))
    return Image(
        id=str(PurePosixPath(path).with_suffix("")),
        path=path,
        class_name=names[int(car["class"])],
        split=split,
        object_box=(x0 - 1, y0 - 1, x1, y1),
    )
