"""Photographs as cameras, web pages and broken downloads leave them."""

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageSequence

from pipeline.datasets.photograph import (
    UnreadableImageError,
    read_label_image,
    read_photograph,
)

# Two rows, three columns, every pixel another colour: any turn or flip of it shows.
UPRIGHT = np.array(
    [
        [(255, 0, 0), (0, 255, 0), (0, 0, 255)],
        [(255, 255, 0), (0, 255, 255), (255, 0, 255)],
    ],
    np.uint8,
)


def test_the_format_is_taken_from_the_content(tmp_path: Path) -> None:
    path = tmp_path / "really a gif.jpg"
    Pillow.fromarray(UPRIGHT).save(path, "GIF")
    assert np.array_equal(read_photograph(path), UPRIGHT)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "jp2", "gif"])
def test_lossless_formats_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, (12, 16, 3), dtype=np.uint8) * 255
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Pillow.fromarray(pixels).save(path, **options)
    found = read_photograph(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    rgba = np.array([[(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)]], np.uint8)
    Pillow.fromarray(rgba).save(tmp_path / "x.png")
    # 51/255 = 0.2 of the colour and 0.8 of white: 40+204, 20+204, 0+204.
    expected = [[(200, 100, 0), (255, 255, 255), (244, 224, 204)]]
    assert read_photograph(tmp_path / "x.png").tolist() == [[list(p) for p in expected[0]]]


def test_grey_with_transparency(tmp_path: Path) -> None:
    la = np.array([[(10, 255), (10, 0)]], np.uint8)
    Pillow.fromarray(la).save(tmp_path / "x.png")
    assert Pillow.open(tmp_path / "x.png").mode == "LA"
    assert read_photograph(tmp_path / "x.png").tolist() == [[[10] * 3, [255] * 3]]


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Pillow.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 100, 110, 120, 50, 60, 70])
    image.save(tmp_path / "x.png", transparency=1)
    found = read_photograph(tmp_path / "x.png")
    assert found.tolist() == [[[9, 9, 9], [255, 255, 255], [50, 60, 70]]]


def test_a_colour_that_a_png_calls_transparent(tmp_path: Path) -> None:
    """A tRNS chunk in a PNG without an alpha channel."""
    Pillow.fromarray(UPRIGHT).save(tmp_path / "x.png", transparency=(0, 255, 0))
    expected = UPRIGHT.copy()
    expected[0, 1] = 255
    assert np.array_equal(read_photograph(tmp_path / "x.png"), expected)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "x.png")
    assert read_photograph(tmp_path / "x.png").tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_a_bitmap_of_one_bit(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[False, True]])).save(tmp_path / "x.png")
    assert read_photograph(tmp_path / "x.png").tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str, order: str) -> None:
    # 65535 is white; 32896 = 128·257; 385 = 1.498·257, which rounds to 1.
    deep = np.array([[0, 385, 32896, 65535]], np.uint16)
    image = Pillow.fromarray(deep)
    if suffix == "tif" and order == ">":
        _write_big_endian_tiff(tmp_path / "x.tif", deep)
    else:
        image.save(tmp_path / f"x.{suffix}")
    found = read_photograph(tmp_path / f"x.{suffix}")
    assert found.tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def _write_big_endian_tiff(path: Path, values: NDArray[np.uint16]) -> None:
    """Writes the smallest TIFF of mode I;16B: one strip of grey values."""
    height, width = values.shape
    data = values.astype(">u2").tobytes()
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    out = io.BytesIO()
    out.write(b"MM\x00\x2a" + (8 + len(data)).to_bytes(4, "big") + data)
    out.write(len(tags).to_bytes(2, "big"))
    for tag, kind, value in tags:
        size = 2 if kind == 3 else 4
        number = value.to_bytes(size, "big").ljust(4, b"\0")
        out.write(tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + b"\0\0\0\x01" + number)
    out.write(b"\0\0\0\0")
    path.write_bytes(out.getvalue())


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    """No ink is white, all black ink is black, cyan takes the red away."""
    cmyk = np.zeros((16, 48, 4), np.uint8)
    cmyk[:, 16:32, 3] = 255
    cmyk[:, 32:, 0] = 255
    Pillow.fromarray(cmyk, "CMYK").save(tmp_path / "x.jpg", quality=100, subsampling=0)
    found = read_photograph(tmp_path / "x.jpg").astype(int)
    for column, colour in ((8, (255, 255, 255)), (24, (0, 0, 0)), (40, (0, 255, 255))):
        assert np.abs(found[8, column] - colour).max() <= 3


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        # What a camera stores so that the turn its EXIF asks for gives UPRIGHT.
        (1, UPRIGHT),
        (2, UPRIGHT[:, ::-1]),
        (3, UPRIGHT[::-1, ::-1]),
        (4, UPRIGHT[::-1]),
        (5, UPRIGHT.transpose(1, 0, 2)),
        (6, UPRIGHT.transpose(1, 0, 2)[::-1]),  # to be turned 90° clockwise
        (7, UPRIGHT[::-1, ::-1].transpose(1, 0, 2)),
        (8, UPRIGHT.transpose(1, 0, 2)[:, ::-1]),  # to be turned 90° anticlockwise
        (9, UPRIGHT),  # no such orientation
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_orientation(
    tmp_path: Path, orientation: int, stored: NDArray[np.uint8], suffix: str
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    image = Pillow.fromarray(np.ascontiguousarray(stored))
    image.save(tmp_path / f"x.{suffix}", exif=exif, **options)
    assert np.array_equal(read_photograph(tmp_path / f"x.{suffix}"), UPRIGHT)


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Pillow.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Pillow.open(tmp_path / "x.gif")))) == 2
    assert (read_photograph(tmp_path / "x.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    Pillow.new("RGB", size, "green").save(tmp_path / "x.png")
    assert read_photograph(tmp_path / "x.png").shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "name", ["a b.png", 'it\'s "x".png', "Zaunkönig.png", "鳥 🐦.png", "-rf.png"]
)
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    Pillow.fromarray(UPRIGHT).save(tmp_path / name, "PNG")
    assert np.array_equal(read_photograph(tmp_path / name), UPRIGHT)


@pytest.mark.parametrize("read", [read_photograph, read_label_image])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"these are notes, not pixels\n", "not an image"),
        (b"\xff\xd8\xff\xe0", "not an image|truncated"),
    ],
)
def test_what_is_no_image(tmp_path: Path, read: object, content: bytes, reason: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason) as error:
        read(path)  # type: ignore[operator]
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tif", "webp", "bmp"])
def test_a_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImageError):
        read_photograph(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_photograph(tmp_path / "none.jpg")
    with pytest.raises(UnreadableImageError, match="directory"):
        read_photograph(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "gif"])
def test_damaged_bytes_never_crash(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders raise struct.error, RuntimeError and more: all of it means an unreadable image."""
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100_000)
    random = np.random.default_rng(0)
    exif = Pillow.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(
        content, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix), exif=exif
    )
    good = content.getvalue()
    path = tmp_path / f"x.{suffix}"
    outcomes = set()
    for attempt in range(80):
        damaged = bytearray(good)
        limit = 300 if attempt % 2 else len(good)
        for place in random.integers(0, min(limit, len(good)), 3):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        for read in (read_photograph, read_label_image):
            try:
                assert read(path).dtype == np.uint8
                outcomes.add("read")
            except UnreadableImageError:
                outcomes.add("unreadable")
    assert "unreadable" in outcomes


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A header that claims 60,000 × 60,000 pixels must not be believed."""
    path = tmp_path / "x.bmp"
    Pillow.new("RGB", (4, 4)).save(path)
    content = bytearray(path.read_bytes())
    content[18:26] = (60_000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    for read in (read_photograph, read_label_image):
        with pytest.raises(UnreadableImageError, match="decompression bomb"):
            read(path)


def test_labels_keep_their_values(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [3, 128, 255]], np.uint8)
    Pillow.fromarray(labels).save(tmp_path / "grey.png")
    assert np.array_equal(read_label_image(tmp_path / "grey.png"), labels)
    palette = Pillow.fromarray(labels % 4)
    palette = palette.convert("P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_label_image(tmp_path / "palette.png"), labels % 4)


def test_labels_of_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 300]], np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="8 bits"):
        read_label_image(tmp_path / "x.png")
