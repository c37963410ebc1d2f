"""The codebook: the same from the same images, as a file, and refused where it does not fit."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from settings import parts

from pipeline.errors import ProtoMaskError
from pipeline.masks.segmenter import Machine, Source
from pipeline.masks.segmenters.parts.codebook import Codebook, from_object, standardised, unit
from pipeline.masks.segmenters.parts.features import Features
from pipeline.masks.segmenters.parts.learning import learn
from pipeline.masks.segmenters.parts.segmenter import Parts


@pytest.fixture
def codebook(fitted: Parts) -> Codebook:
    assert fitted._codebook is not None
    return fitted._codebook


def _written(content: bytes, path: Path) -> tuple[Path, str]:
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def test_the_same_images_give_the_same_bytes(photographs: list[Source], codebook: Codebook) -> None:
    features = Features(parts(), Machine(), None)
    in_order = sorted(photographs, key=lambda source: source.sha256)
    maps = features.of_images([source.read() for source in in_order])
    again = learn(parts(), features.backbone, maps)
    assert again.content == codebook.content
    fewer = learn(parts(), features.backbone, maps[:-1])
    assert fewer.sha256 != codebook.sha256
    assert (codebook.about["images"], fewer.about["images"]) == (6, 5)


def test_read_is_what_was_written(
    codebook: Codebook, photographs: list[Source], tmp_path: Path
) -> None:
    read = Codebook.read(*_written(codebook.content, tmp_path / "codebook"))
    assert (read.content, read.sha256, read.about) == (
        codebook.content,
        codebook.sha256,
        codebook.about,
    )
    (maps,) = Features(parts(), Machine(), None).of_images([photographs[0].read()])
    for one, other in zip(codebook.standard(maps), read.standard(maps), strict=True):
        np.testing.assert_array_equal(one, other)
    standard = codebook.standard(maps)
    objectness = codebook.objectness(standard)
    np.testing.assert_array_equal(read.objectness(standard), objectness)
    np.testing.assert_array_equal(
        read.looks(standard, objectness), codebook.looks(standard, objectness)
    )


def test_each_level_has_its_number_of_parts(codebook: Codebook) -> None:
    assert [len(centres) for centres in codebook.centres] == [2, 4]
    for centres in codebook.centres:
        np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-5)
    assert codebook.for_parts.stages == (1, 2)  # without the first of three


def test_what_does_not_change_parts_is_not_asked(codebook: Codebook) -> None:
    own = codebook.about["backbone_sha256"]
    for changes in ({}, {"sample": 7}, {"min_area": 0.1}, {"superpixel": 9.0}):
        codebook.refuse_unless(parts(**changes), own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 96}, "side 64, not 96"),
        ({"levels": (3,)}, r"levels \[2, 4\], not \[3\]"),
        ({"stages": (2, 3), "margin": 0}, r"margin 32, not 0, stages \[1, 2, 3\], not \[2, 3\]"),
        ({"backbone": "test_vit"}, "backbone test_resnet, not test_vit"),
        ({"objectness": "contrast"}, "objectness norm, not contrast"),
    ],
)
def test_other_parameters_are_refused(codebook: Codebook, changes: dict, message: str) -> None:
    with pytest.raises(ProtoMaskError, match=f"was learned with {message}"):
        codebook.refuse_unless(parts(**changes), codebook.about["backbone_sha256"])


def test_other_weights_are_refused(codebook: Codebook) -> None:
    with pytest.raises(ProtoMaskError, match=r"backbone_sha256 [0-9a-f]{64}, not 00"):
        codebook.refuse_unless(parts(), "0" * 64)


def test_another_file_is_refused(codebook: Codebook, tmp_path: Path) -> None:
    file, digest = _written(codebook.content, tmp_path / "codebook")
    with pytest.raises(ProtoMaskError, match=f"has the SHA-256 {digest}, not 0000"):
        Codebook.read(file, "0" * 64)
    content = bytearray(codebook.content)
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ProtoMaskError, match=f"not {digest}"):
        Codebook.read(file, digest)
    with pytest.raises(ProtoMaskError, match="cannot be read"):
        Codebook.read(tmp_path / "none", digest)


def _without_metadata(content: bytes) -> bytes:
    return save(load(content))


def _other_format(content: bytes) -> bytes:
    return content.replace(b'\\"format\\": 1', b'\\"format\\": 9')


def _without_a_tensor(content: bytes) -> bytes:
    return content.replace(b'"weights"', b'"heights"')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "no codebook"),
        (lambda content: b"a text file" * 9, "no codebook"),
        (lambda content: content[:-1], "no codebook"),
        (_without_metadata, "no codebook"),
        (_without_a_tensor, "no codebook .*weights"),
        (_other_format, "no codebook .*its format is not 1"),
    ],
)
def test_what_is_no_codebook_is_refused(
    codebook: Codebook, tmp_path: Path, spoil, message: str
) -> None:
    spoilt = spoil(codebook.content)
    assert spoilt != codebook.content
    with pytest.raises(ProtoMaskError, match=message):
        Codebook.read(*_written(spoilt, tmp_path / "codebook"))


def test_from_object_by_hand() -> None:
    """Weights 1, 0.7, 0 and 0 of the cells 10, 27, 500 and −99: a mean of 28.9 / 1.7 = 17."""
    cells = np.array([[[10.0], [27.0]], [[500.0], [-99.0]]], np.float32)
    objectness = np.array([[1.3, 0.5], [-0.2, -3.0]])
    found = from_object(cells, objectness)
    np.testing.assert_allclose(found[..., 0], [[-7, 10], [483, -116]], rtol=1e-5)
    assert found.dtype == np.float32
    assert from_object(cells, np.full((2, 2), -1.0)).tolist() == cells.tolist()


def test_standardised_by_hand() -> None:
    """Four channels: over the root of 4; 100 is cut at 5 deviations."""
    values = np.array([4.0, 100.0, -100.0, 2.0], np.float32)[:, None, None]
    mean, std = np.full(4, 2, np.float32), np.full(4, 2, np.float32)
    (found,) = standardised([values], [mean], [std])
    assert found.ravel().tolist() == [0.5, 2.5, -2.5, 0]


def test_unit_by_hand() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], rtol=1e-6)
