"""The segmenter `sam2` as the pipeline uses it: weights, parameters, what is refused."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sam2
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from settings import SAM2
from skimage.data import astronaut

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.sam2 import segmenter
from pipeline.masks.segmenters.sam2.model import CONFIGS, build, load_model
from pipeline.masks.segmenters.sam2.segmenter import Sam2


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the smallest published network, saved as the published ones are."""
    torch.manual_seed(0)
    model = build("sam2.1_hiera_tiny", "cpu")
    path = tmp_path_factory.mktemp("weights") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": model.state_dict()}, path)
    return path


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    segmenter._generator.cache_clear()
    yield
    segmenter._generator.cache_clear()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def photograph() -> NDArray[np.uint8]:
    return astronaut()[:200, :260].copy()


@pytest.mark.slow
def test_both_engines_find_the_same_with_a_published_network(
    weights: Path, photograph: NDArray[np.uint8]
) -> None:
    found = []
    for engine in ("batched", "reference"):
        changed = {
            "model": "sam2.1_hiera_tiny",
            "weights_sha256": digest(weights),
            "engine": engine,
            "points_per_side": 4,
            "crop_n_layers": 0,
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.0,
        }
        settings = Sam2.model_validate({**SAM2, **changed})
        (masks,) = settings.segment([photograph], Machine(weights=weights))
        found.append(masks)
    ours, theirs = found
    assert len(ours) == len(theirs) > 0
    assert (ours.height, ours.width) == (200, 260)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_allclose(ours.areas, theirs.areas, rtol=0.01)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)


def test_weights_of_another_network(weights: Path) -> None:
    machine = Machine(weights=weights)
    with pytest.raises(ProtoMaskError, match=r"no weights of sam2.1_hiera_small.*segmenter.model"):
        load_model("sam2.1_hiera_small", digest(weights), machine)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 damaged"])
def test_a_file_that_holds_no_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ProtoMaskError, match=r"weights.pt holds no weights"):
        load_model("sam2.1_hiera_tiny", digest(path), Machine(weights=path))


def test_other_weights_than_the_presets(weights: Path) -> None:
    settings = Sam2.model_validate({**SAM2, "model": "sam2.1_hiera_tiny"})
    with pytest.raises(ProtoMaskError, match=rf"segmenter.weights_sha256={digest(weights)}"):
        settings.segment([np.zeros((8, 8, 3), np.uint8)], Machine(weights=weights))


def test_sam2_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith("pipeline.masks.segmenters.sam2.") and not name.endswith("segmenter"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sam2", None)
    for name in ("sam2.modeling.sam2_base", "sam2.modeling.sam.transformer", "sam2.utils.amg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProtoMaskError, match=r"pip install .*'\.\[sam2\]'"):
        Sam2(**SAM2).segment([np.zeros((8, 8, 3), np.uint8)])


def test_every_model_has_a_configuration() -> None:
    folder = Path(sam2.__file__).parent / "configs" / "sam2.1"
    for name, config in CONFIGS.items():
        assert (folder / f"{config}.yaml").is_file(), name


def test_no_preset_without_a_hash() -> None:
    with pytest.raises(ValidationError, match="weights_sha256"):
        Sam2.model_validate({**SAM2, "weights_sha256": None})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "sam2.1_hiera_large"),
        ("weights_sha256", "1" * 64),
        ("engine", "reference"),
        ("precision", "bfloat16"),
        ("points_per_side", 16),
        ("pred_iou_thresh", 0.7),
        ("stability_score_thresh", 0.8),
        ("stability_score_offset", 1.0),
        ("mask_threshold", 0.1),
        ("box_nms_thresh", 0.6),
        ("crop_n_layers", 1),
        ("crop_nms_thresh", 0.6),
        ("crop_overlap_ratio", 0.2),
        ("crop_n_points_downscale_factor", 2),
        ("min_mask_region_area", 0),
    ],
)
def test_another_parameter_is_another_key(field: str, value: object) -> None:
    settings = Sam2(**SAM2)
    assert settings.key() != settings.model_copy(update={field: value}).key()
    assert getattr(settings, field) != value
