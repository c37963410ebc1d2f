"""Masks in PNG files: of every kind of file, 600 pixels are inside."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.errors import ProtoMaskError
from pipeline.masks.layout import Place
from pipeline.masks.layouts.png_folder import FolderMasks
from pipeline.masks.masks import Masks
from pipeline.masks.png import MOST_LABELS, Reading

HEIGHT, WIDTH = 50, 60


def _rectangle(inside: int = 255, outside: int = 0) -> NDArray[np.uint8]:
    """A rectangle of 30×20 pixels."""
    pixels = np.full((HEIGHT, WIDTH), outside, np.uint8)
    pixels[10:30, 15:45] = inside
    return pixels


def _soft() -> NDArray[np.uint8]:
    """The same with blurred edges: a ring of 128 inside, of 127 and of 1 outside."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for ring, value in ((-2, 1), (-1, 127), (0, 128), (1, 255)):
        pixels[10 + ring : 30 - ring, 15 + ring : 45 - ring] = value
    assert (pixels > 0).sum() == 24 * 34
    return pixels


def _palette(numbers: NDArray[np.uint8], colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(numbers).convert("L")
    picture.putpalette([value for number in range(256) for value in colours.get(number, (9, 8, 7))])
    assert picture.mode == "P"
    return picture


def _bands(*bands: NDArray[np.uint8] | int) -> Image.Image:
    return Image.fromarray(
        np.dstack([np.broadcast_to(np.uint8(b), (HEIGHT, WIDTH)) for b in bands])
    )


def _quantized(method: int) -> Image.Image:
    return Image.fromarray(_rectangle()).convert("RGB").quantize(4, method)


def _png(path: Path, picture: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, "PNG", **options)


def _opened(folder: Path, reading: Reading) -> FolderMasks:
    return FolderMasks(folder, FolderMasks.reads(Place(folder)), reading)


def _areas(folder: Path, reading: Reading = "mask", name: str = "a") -> list[int]:
    regions = _opened(folder, reading).regions(name, HEIGHT, WIDTH)
    return Masks.of(HEIGHT, WIDTH, regions, 1).areas.tolist()


BLACK, WHITE, GREY, RED = (0, 0, 0), (255, 255, 255), (127, 127, 127), (200, 0, 0)
KINDS: dict[str, Image.Image] = {
    "black and white": Image.fromarray(_rectangle() > 0),
    "grey": Image.fromarray(_rectangle()),
    "small numbers": Image.fromarray(_rectangle(1)),
    "soft grey": Image.fromarray(_soft()),
    "soft grey of 16 bits": Image.fromarray(_soft().astype(np.uint16) * 257),
    "small numbers of 16 bits": Image.fromarray(_rectangle(3).astype(np.uint16)),
    "soft grey as RGB": _bands(_soft(), _soft(), _soft()),
    "dark blue": _bands(0, 0, _rectangle(1)),
    "opaque alpha of a grey picture": _bands(_rectangle(), 255),
    "opaque alpha": _bands(0, _rectangle(1), 0, 255),
    "alpha": _bands(0, 0, 0, _rectangle()),
    "alpha, inverted colours": _bands(0, 0, _rectangle(0, 9), _rectangle()),
    "soft alpha": _bands(200, 200, 200, _soft()),
    "alpha of a grey picture": _bands(0, _rectangle()),
    "palette, black first": _palette(_rectangle(1, 0), {0: BLACK, 1: WHITE}),
    "palette, white first": _palette(_rectangle(0, 1), {0: WHITE, 1: BLACK}),
    "palette, black last": _palette(_rectangle(7, 9), {7: WHITE, 9: BLACK}),
    "palette by median cut": _quantized(0),
    "palette by coverage": _quantized(1),
    "palette by octree": _quantized(2),
    "palette of greys, black last": _palette(
        255 - _soft(), {255 - grey: (grey, grey, grey) for grey in range(256)}
    ),
    "nearly white first": _palette(_rectangle(0, 1), {0: (254, 254, 254), 1: (1, 1, 1)}),
    "two colours of a blurred mask": Image.fromarray(_rectangle())
    .filter(ImageFilter.GaussianBlur(0.5))
    .convert("RGB")
    .quantize(2),
    "nearly black and white": Image.fromarray(_rectangle(254, 1)),
    "labels, black inside": _palette(_rectangle(1, 0), {0: RED, 1: BLACK}),
    "labels, no colours": _palette(_rectangle(1, 0), {0: BLACK, 1: BLACK}),
    "labels, dark greys": _palette(_rectangle(2, 0), {0: BLACK, 2: (2, 2, 2)}),
}
TRANSPARENT: dict[str, tuple[Image.Image, int | tuple[int, ...] | bytes]] = {
    "number of a palette": (_palette(_rectangle(0, 3), {0: RED, 3: GREY}), 3),
    "black of a palette": (_palette(_rectangle(1, 0), {0: BLACK, 1: BLACK}), 0),
    "soft palette": (_palette(_soft(), dict.fromkeys(range(256), RED)), bytes(range(256))),
    "opaque palette": (_palette(_rectangle(0, 1), {0: WHITE, 1: BLACK}), bytes([255, 255])),
    "grey": (Image.fromarray(_rectangle(0, 7)), 7),
    "grey of 16 bits": (Image.fromarray(_rectangle(0, 9).astype(np.uint16) * 1000), 9000),
    "white": (Image.fromarray(_rectangle() == 0), 255),
    "colour": (_bands(0, 0, _rectangle(0, 5)), (0, 0, 5)),
}


def _assert_the_rectangle(folder: Path) -> None:
    (region,) = _opened(folder, "mask").regions("a", HEIGHT, WIDTH)
    assert (region.x0, region.y0) == (15, 10)
    assert region.bitmap.shape == (20, 30)
    assert region.bitmap.all()


@pytest.mark.parametrize("kind", KINDS)
def test_600_pixels_are_inside(tmp_path: Path, kind: str) -> None:
    _png(tmp_path / "a" / "0.png", KINDS[kind])
    _assert_the_rectangle(tmp_path)


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_600_pixels_are_visible(tmp_path: Path, kind: str) -> None:
    picture, transparent = TRANSPARENT[kind]
    _png(tmp_path / "a" / "0.png", picture, transparency=transparent)
    with Image.open(tmp_path / "a" / "0.png") as read:
        assert read.mode == picture.mode
        assert "transparency" in read.info
    _assert_the_rectangle(tmp_path)


def _chunk(kind: bytes, content: bytes) -> bytes:
    length, check = len(content), zlib.crc32(kind + content)
    return struct.pack(f">I4s{length}sI", length, kind, content, check)


@pytest.mark.parametrize("bits", [1, 2, 4, 16])
def test_a_transparent_colour_of_every_depth(tmp_path: Path, bits: int) -> None:
    """Written here, as Pillow writes other depths only."""
    if bits == 16:
        colours = np.where(_rectangle()[..., None], [0xFFFF, 0, 0], [0x1234, 0, 0xFFFF])
        rows, key, kind = colours.astype(">u2").view(np.uint8), (0x1234, 0, 0xFFFF), 2
    else:
        pixels, key, kind = _rectangle(0, 1), (1,), 0
        digits = np.unpackbits(pixels[..., None], axis=2)[..., -bits:].reshape(HEIGHT, -1)
        rows = np.packbits(digits, axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    chunks = {
        b"IHDR": header,
        b"tRNS": np.array(key, ">u2").tobytes(),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    (tmp_path / "a").mkdir()
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks.items())
    (tmp_path / "a" / "0.png").write_bytes(content)
    _assert_the_rectangle(tmp_path)


@pytest.mark.parametrize(
    ("picture", "area"),
    [
        (_palette(_rectangle(0, 0), {0: WHITE, 1: BLACK}), 3000),
        (_palette(_rectangle(1, 1), {0: WHITE, 1: BLACK}), 0),
        (_palette(_rectangle(4, 4), {4: RED}), 3000),
        (_bands(9, 9, 9, 0), 0),
        (_bands(9, 9, 9, 200), 3000),
    ],
    ids=["white", "black", "label", "transparent", "all half visible"],
)
def test_a_single_colour(tmp_path: Path, picture: Image.Image, area: int) -> None:
    _png(tmp_path / "a" / "0.png", picture)
    assert _areas(tmp_path) == ([area] if area else [])


def _labels(*values: int, dtype: type = np.uint8) -> NDArray[Any]:
    """0 with columns of each value, 2 pixels wide for the first, 3 for the second, and so on."""
    pixels = np.zeros((HEIGHT, WIDTH), dtype)
    for width, value in enumerate(values, start=2):
        pixels[:, 10 * width : 11 * width] = value
    return pixels


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(_labels(1, 2, 255)),
        Image.fromarray(_labels(700, 256, 65535, dtype=np.uint16)),
        _palette(_labels(1, 2, 3), {0: BLACK, 1: RED, 2: GREY, 3: WHITE}),
        _palette(_labels(3, 2, 1), {0: WHITE, 1: BLACK, 2: BLACK, 3: RED}),
        _bands(_labels(1, 1, 0), _labels(0, 5, 5), 0),
        _bands(_labels(1, 2, 3), _labels(1, 2, 3), _labels(1, 2, 3), 255),
        _bands(_labels(0, 2, 3), 0, 0, _labels(255, 255, 255)),
    ],
    ids=["grey", "16 bits", "palette", "odd palette", "colours", "opaque", "transparent"],
)
def test_one_mask_a_label(tmp_path: Path, picture: Image.Image) -> None:
    _png(tmp_path / "a.png", picture)
    assert _areas(tmp_path, "labels", "a.png") == [200, 150, 100]


@pytest.mark.parametrize(
    "colours", [{0: WHITE, 1: BLACK}, {1: WHITE, 0: BLACK}], ids=["white first", "black first"]
)
def test_black_is_no_label_in_black_and_white(
    tmp_path: Path, colours: dict[int, tuple[int, int, int]]
) -> None:
    inside = 0 if colours[0] == WHITE else 1
    _png(tmp_path / "a.png", _palette(_rectangle(inside, 1 - inside), colours))
    assert _areas(tmp_path, "labels", "a.png") == [600]


def test_labels_that_are_read_as_one_mask(tmp_path: Path) -> None:
    """All values but 0 are inside, unless a cut at one half, for blurred edges, would lose some."""
    _png(tmp_path / "a.png", Image.fromarray(_labels(1, 2, 3)))
    assert _areas(tmp_path, name="a.png") == [450]
    _png(tmp_path / "a.png", Image.fromarray(_labels(128, 200, 255)))
    assert _areas(tmp_path, name="a.png") == [450]
    _png(tmp_path / "a.png", Image.fromarray(_labels(255, 200, 127)))
    with pytest.raises(ProtoMaskError, match=r"a\.png is to be one mask.*segmenter\.png=labels"):
        _areas(tmp_path, name="a.png")


@pytest.mark.parametrize(("shape", "top"), [((HEIGHT, WIDTH, 3), 250), ((HEIGHT, WIDTH), 127)])
def test_a_photograph_is_no_mask(tmp_path: Path, shape: tuple[int, ...], top: int) -> None:
    values = np.random.default_rng(0).integers(0, top, shape, np.uint8)
    _png(tmp_path / "a.png", Image.fromarray(values))
    with pytest.raises(ProtoMaskError, match=r"a\.png is to be one mask, .* like a photograph's"):
        _areas(tmp_path, name="a.png")


@pytest.mark.parametrize("radius", [0.5, 1, 2, 4])
def test_blurred_edges_are_no_labels(tmp_path: Path, radius: float) -> None:
    soft = Image.fromarray(_rectangle()).filter(ImageFilter.GaussianBlur(radius))
    values = np.asarray(soft)
    assert (values > 0).sum() > 700
    assert (values.max() < 255) == (radius == 4)
    _png(tmp_path / "a.png", soft)
    (area,) = _areas(tmp_path, name="a.png")
    assert area == (values >= 128).sum()
    assert 540 <= area <= 600


def test_a_photograph_is_no_label_map(tmp_path: Path) -> None:
    values = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    _png(tmp_path / "a.png", Image.fromarray(values % (MOST_LABELS + 1)))
    assert len(_opened(tmp_path, "labels").regions("a.png", HEIGHT, WIDTH)) == MOST_LABELS
    _png(tmp_path / "a.png", Image.fromarray(values % (MOST_LABELS + 2)))
    with pytest.raises(ProtoMaskError, match=r"a\.png holds 1001 values.*segmenter\.png=mask"):
        _opened(tmp_path, "labels").regions("a.png", HEIGHT, WIDTH)


@pytest.mark.parametrize("orientation", range(10))
def test_a_turned_file_is_refused(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _png(tmp_path / "a" / "0.png", Image.fromarray(_rectangle()), exif=exif)
    if 2 <= orientation <= 8:
        with pytest.raises(ProtoMaskError, match=rf"0\.png has an orientation of {orientation} "):
            _areas(tmp_path)
    else:
        assert _areas(tmp_path) == [600]


def test_metadata_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    _png(tmp_path / "a" / "0.png", Image.fromarray(_rectangle()), exif=b"Exif\0\0no TIFF at all")
    assert _areas(tmp_path) == [600]
