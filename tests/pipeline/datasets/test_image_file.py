"""Photographs as cameras, web pages and broken downloads leave them."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageSequence
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.datasets.image_file import (
    UnreadableImageError,
    examine_image,
    is_image,
    read_image,
    read_label_image,
    upper_half,
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
    assert np.array_equal(read_image(path), UPRIGHT)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp", "jp2", "gif"])
def test_lossless_formats_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, (12, 16, 3), dtype=np.uint8) * 255
    path = tmp_path / f"x.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Pillow.fromarray(pixels).save(path, **options)
    found = read_image(path)
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    rgba = np.array([[(200, 100, 0, 255), (200, 100, 0, 0), (200, 100, 0, 51)]], np.uint8)
    Pillow.fromarray(rgba).save(tmp_path / "x.png")
    # 51/255 = 0.2 of the colour and 0.8 of white: 40+204, 20+204, 0+204.
    expected = [[(200, 100, 0), (255, 255, 255), (244, 224, 204)]]
    assert read_image(tmp_path / "x.png").tolist() == [[list(p) for p in expected[0]]]


def test_grey_with_transparency(tmp_path: Path) -> None:
    la = np.array([[(10, 255), (10, 0)]], np.uint8)
    Pillow.fromarray(la).save(tmp_path / "x.png")
    assert Pillow.open(tmp_path / "x.png").mode == "LA"
    assert read_image(tmp_path / "x.png").tolist() == [[[10] * 3, [255] * 3]]


def test_a_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Pillow.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 100, 110, 120, 50, 60, 70])
    image.save(tmp_path / "x.png", transparency=1)
    found = read_image(tmp_path / "x.png")
    assert found.tolist() == [[[9, 9, 9], [255, 255, 255], [50, 60, 70]]]


def test_a_colour_that_a_png_calls_transparent(tmp_path: Path) -> None:
    """A tRNS chunk in a PNG without an alpha channel."""
    Pillow.fromarray(UPRIGHT).save(tmp_path / "x.png", transparency=(0, 255, 0))
    expected = UPRIGHT.copy()
    expected[0, 1] = 255
    assert np.array_equal(read_image(tmp_path / "x.png"), expected)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[0, 128, 255]], np.uint8)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_a_bitmap_of_one_bit(tmp_path: Path) -> None:
    Pillow.fromarray(np.array([[False, True]])).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").tolist() == [[[0] * 3, [255] * 3]]


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
    found = read_image(tmp_path / f"x.{suffix}")
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
    found = read_image(tmp_path / "x.jpg").astype(int)
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
    assert np.array_equal(read_image(tmp_path / f"x.{suffix}"), UPRIGHT)


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Pillow.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert len(list(ImageSequence.Iterator(Pillow.open(tmp_path / "x.gif")))) == 2
    assert (read_image(tmp_path / "x.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_extreme_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    Pillow.new("RGB", size, "green").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "name", ["a b.png", 'it\'s "x".png', "Zaunkönig.png", "鳥 🐦.png", "-rf.png"]
)
def test_names_of_all_kinds(tmp_path: Path, name: str) -> None:
    Pillow.fromarray(UPRIGHT).save(tmp_path / name, "PNG")
    assert np.array_equal(read_image(tmp_path / name), UPRIGHT)


@pytest.mark.parametrize("read", [read_image, read_label_image])
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
        read_image(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(UnreadableImageError, match="directory"):
        read_image(tmp_path)


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
        for read in (read_image, read_label_image):
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
    for read in (read_image, read_label_image):
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


def _chunk(kind: bytes, data: bytes, check: int | None = None) -> bytes:
    check = zlib.crc32(kind + data) if check is None else check
    return len(data).to_bytes(4, "big") + kind + data + check.to_bytes(4, "big")


BROKEN = {
    "a huge text": _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 5_000_000)),
    "many texts": _chunk(b"tEXt", b"Comment\0" + b"x" * 70_000_000),
    "a huge profile": _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(b"x" * 5_000_000)),
    "a profile of another kind": _chunk(b"iCCP", b"sRGB\0\5nothing"),
    "a text with a wrong sum": _chunk(b"tEXt", b"Comment\0x", 1),
    "half a resolution": _chunk(b"pHYs", b"\0\0"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("place", ["before the pixels", "after them"])
def test_metadata_that_cannot_be_parsed_do_not_cost_the_pixels(
    tmp_path: Path, broken: str, place: str
) -> None:
    """Of a PNG that is turned: its EXIF data are whole, and still count."""
    exif, content = Pillow.Exif(), io.BytesIO()
    exif[0x0112] = 3
    stored = Pillow.fromarray(np.ascontiguousarray(UPRIGHT[::-1, ::-1]))
    stored.save(content, "PNG", exif=exif, transparency=(0, 255, 0))
    good = content.getvalue()
    at = 33 if place == "before the pixels" else len(good) - 12
    path = tmp_path / "x.png"
    path.write_bytes(good[:at] + BROKEN[broken] + good[at:])
    expected = UPRIGHT.copy()
    expected[0, 1] = 255
    pixels, remarks = examine_image(path)
    assert np.array_equal(pixels, expected)
    # After the pixels, some texts are of no interest to Pillow at all.
    assert remarks in (
        [],
        ["its metadata (texts, colour profile) cannot be parsed and were ignored"],
    )
    assert remarks or place == "after them"
    assert np.array_equal(read_label_image(path), np.asarray(stored)[..., 0])
    assert is_image(path)


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2, "big") + data


@pytest.mark.parametrize(
    "broken",
    [
        _segment(0xE0, b"JFIF\0"),
        _segment(0xE2, b"ICC_PROFILE\0"),
        _segment(0xED, b"Photoshop 3.0\x008BIM\4\4"),
        _segment(0xEE, b"Adobe"),
    ],
)
def test_segments_that_cannot_be_parsed_do_not_cost_a_jpeg_its_pixels(
    tmp_path: Path, broken: bytes
) -> None:
    """Of a JPEG that is turned: its EXIF data are whole, and still count."""
    exif, content = Pillow.Exif(), io.BytesIO()
    exif[0x0112] = 3
    colours = np.repeat(np.repeat(UPRIGHT, 16, 0), 16, 1)
    stored = Pillow.fromarray(np.ascontiguousarray(colours[::-1, ::-1]))
    stored.save(content, "JPEG", exif=exif, quality=100, subsampling=0)
    (tmp_path / "good.jpg").write_bytes(content.getvalue())
    path = tmp_path / "x.jpg"
    path.write_bytes(content.getvalue()[:2] + broken + content.getvalue()[2:])
    pixels, remarks = examine_image(path)
    assert np.array_equal(pixels, read_image(tmp_path / "good.jpg"))
    assert np.abs(pixels.astype(int) - colours).max() < 12
    assert remarks == ["its metadata (texts, colour profile) cannot be parsed and were ignored"]
    assert is_image(path)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_exif_data_that_cannot_be_parsed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    pixels = np.full((8, 16, 3), 200, np.uint8)
    Pillow.fromarray(pixels).save(path, exif=b"Exif\0\0this is no TIFF", **options.get(suffix, {}))
    found, remarks = examine_image(path)
    assert np.array_equal(found, pixels)
    assert remarks == ["its EXIF data cannot be parsed: read as it is stored, not turned"]


def test_exif_data_with_a_wrong_sum(tmp_path: Path) -> None:
    Pillow.fromarray(UPRIGHT).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:33] + _chunk(b"eXIf", b"II*\0", 1) + content[33:])
    found, remarks = examine_image(tmp_path / "x.png")
    assert np.array_equal(found, UPRIGHT)
    assert len(remarks) == 1


XMP = b"""<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description
 tiff:Orientation="%d"/></x:xmpmeta><?xpacket end="w"?>"""


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_only_exif_data_turn_a_photograph(tmp_path: Path, suffix: str) -> None:
    """As in browsers; XMP data are often of the photograph before it was turned."""
    path, pixels = tmp_path / f"x.{suffix}", np.full((8, 16, 3), 200, np.uint8)
    packet = XMP % 6
    text, tags = PngInfo(), ImageFileDirectory_v2()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    tags[700] = packet
    options = {
        "png": {"pnginfo": text},
        "tif": {"tiffinfo": tags},
        "webp": {"xmp": packet, "lossless": True},
        "jpg": {"xmp": packet},
    }[suffix]
    image = Pillow.fromarray(pixels)
    image.save(path, **options)
    assert Pillow.open(path).getexif()[0x0112] == 6
    found, remarks = examine_image(path)
    assert np.array_equal(found, pixels)
    assert remarks == ["only its XMP data say that it is turned: read as it is stored"]
    # EXIF data say the same: now it is turned, and there is nothing to be said.
    exif = Pillow.Exif()
    exif[0x0112] = tags[0x0112] = 6
    image.save(path, **({} if suffix == "tif" else {"exif": exif}), **options)
    found, remarks = examine_image(path)
    assert (found.shape, remarks) == ((16, 8, 3), [])


RANGE = "its smallest value became 0 and its largest 255: none is known to be white"


@pytest.mark.parametrize(
    ("values", "expected", "remarks"),
    [
        # 51 is a fifth of 255, and so are −1.2 of −2..2 and 3 of 2..7.
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255], [RANGE]),
        (np.array([[2, 3, 7]], np.int32), [0, 51, 255], [RANGE]),
        (np.array([[0, 819, 4095]], np.uint16), [0, 51, 255], [RANGE]),
        (np.array([[0, 4096, 8192]], np.uint16), [0, 16, 32], []),
        (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255], [RANGE]),
        (np.array([[-2, -1.2, 2]], np.float32), [0, 51, 255], [RANGE]),
    ],
)
def test_values_beyond_eight_bits(
    tmp_path: Path, values: NDArray[np.generic], expected: list[int], remarks: list[str]
) -> None:
    Pillow.fromarray(values).save(tmp_path / "x.tif")
    found, said = examine_image(tmp_path / "x.tif")
    assert found.tolist() == [[[value] * 3 for value in expected]]
    assert said == remarks


def test_one_value_that_is_no_number_does_not_blacken_the_others(tmp_path: Path) -> None:
    values = np.array([[0.5, np.nan, 0.6, 1.0, np.inf, -np.inf]], np.float32)
    Pillow.fromarray(values).save(tmp_path / "x.tif")
    found, remarks = examine_image(tmp_path / "x.tif")
    assert found[0, :, 0].tolist() == [0, 0, 51, 255, 255, 0]
    assert remarks[1] == "of its values that are no finite numbers, NaN and −∞ became 0 and ∞ 255"
    Pillow.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match="none of its values is a finite number"):
        read_image(tmp_path / "x.tif")


def test_a_grey_map_of_sixteen_bits_has_a_white(tmp_path: Path) -> None:
    """Pillow reads it with 32 bits."""
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([0, 32896], ">u2").tobytes())
    assert Pillow.open(tmp_path / "x.pgm").mode == "I"
    found, remarks = examine_image(tmp_path / "x.pgm")
    assert (found[0, :, 0].tolist(), remarks) == ([0, 128], [])


def test_a_nearly_black_photograph_is_remarked_on(tmp_path: Path) -> None:
    for value, count in ((15, 1), (16, 0)):
        Pillow.new("RGB", (4, 4), (0, value, 0)).save(tmp_path / "x.png")
        remarks = examine_image(tmp_path / "x.png").remarks
        assert [remark.split(":")[0] for remark in remarks] == ["nearly black"] * count


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_how_many_frames_are_not_read(tmp_path: Path, suffix: str) -> None:
    first, *more = (Pillow.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime"))
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=more)
    found, remarks = examine_image(tmp_path / f"x.{suffix}")
    assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 4
    assert remarks == ["of its 3 frames or pages the first was read"]


@pytest.mark.parametrize(
    ("grey", "inside"),
    [
        ([0, 51, 102], [0, 1, 1]),  # the middle of 0..102 is 51
        ([0, 50, 102], [0, 0, 1]),
        ([0, 127, 128, 255], [0, 0, 1, 1]),  # of 0..255, 127.5
        ([100, 174, 175, 250], [0, 0, 1, 1]),  # of 100..250, 175
        ([0, 0], [0, 0]),
        ([102, 102], [1, 1]),
        ([255, 255], [1, 1]),
    ],
)
def test_pixels_from_the_middle_of_the_range_on(grey: list[int], inside: list[int]) -> None:
    assert upper_half(np.array([grey], np.uint8)).tolist() == [[bool(value) for value in inside]]
