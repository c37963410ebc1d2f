"""SLIT with a small network of random weights, against the same computation spelt out."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from settings import SLIT
from torch import Tensor, nn
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
)

from pipeline.errors import ProtoMaskError
from pipeline.files import sha256
from pipeline.masks.masks import Masks
from pipeline.masks.segmenter import Machine
from pipeline.masks.segmenters.slit.boundaries import Boundaries, _normalise, _resize, load_network
from pipeline.masks.segmenters.slit.segmenter import Slit, _boundaries, cut
from pipeline.masks.segmenters.slit.settings import PUBLISHED, WEIGHTS

SMALL = {
    "depths": (1, 2, 1, 1),
    "hidden_sizes": (8, 12, 16, 16),
    "num_attention_heads": (1, 2, 2, 4),
    "sr_ratios": (8, 4, 2, 1),
    "decoder_hidden_size": 12,
}
SIDE = 64
SIZES = [(60, 80), (90, 40), (7, 5), (1, 33), (200, 64)]
PRESET = Path(__file__).parents[4] / "conf/segmenter/slit.yaml"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NO_MATTER = "0" * 64


class SmallSlit(Slit):
    architecture: ClassVar[Mapping[str, Any]] = SMALL


def small(**changes: Any) -> Slit:
    return SmallSlit(**SLIT | {"side": SIDE, "threshold": 0.5} | changes)


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """Threads cost so small a network more than they bring, the more so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1, **SMALL)).eval()
    for weights in network.parameters():
        nn.init.normal_(weights, std=0.4)
    with torch.no_grad():  # probabilities from nearly 0 to nearly 1, not all about 0.5
        for weights in network.decode_head.classifier.parameters():
            weights *= 40
    return network


@pytest.fixture(scope="module")
def weights(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network's weights, saved as they are published: under transformers 4's names."""
    folder = tmp_path_factory.mktemp("weights")
    network.save_pretrained(folder)
    path = folder / "model.safetensors"
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in load_file(path)
    return path


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    return [_picture(random, height, width) for height, width in SIZES]


def _picture(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Rectangles of random colours, one over another, and noise."""
    picture = np.zeros((height, width, 3))
    for _ in range(12):
        y, x = random.integers(0, height), random.integers(0, width)
        picture[y : y + height // 2 + 1, x : x + width // 3 + 1] = random.integers(0, 256, 3)
    return np.clip(picture + random.normal(0, 10, picture.shape), 0, 255).astype(np.uint8)


def _probability(network: nn.Module, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """One image: resized, normalised, seen, and brought back to its size pixel by pixel."""
    resized = np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    pixels = (resized / 255 - MEAN) / STD
    with torch.no_grad():
        channels_first = torch.tensor(pixels.transpose(2, 0, 1), dtype=torch.float32)
        logits = network(channels_first[None]).logits[0, 0].double().numpy()
    height, width = image.shape[:2]
    found = np.empty((height, width))
    for y in range(height):
        y0, y1, low = _between(y, height, len(logits))
        for x in range(width):
            x0, x1, left = _between(x, width, len(logits))
            upper = logits[y0, x0] * (1 - left) + logits[y0, x1] * left
            lower = logits[y1, x0] * (1 - left) + logits[y1, x1] * left
            found[y, x] = 1 / (1 + np.exp(-(upper * (1 - low) + lower * low)))
    return found


def _between(place: int, places: int, cells: int) -> tuple[int, int, float]:
    """Returns the cells on either side of a pixel's centre, and its way to the second."""
    at = min(max((place + 0.5) * cells / places - 0.5, 0), cells - 1)
    return int(at), min(int(at) + 1, cells - 1), at - int(at)


def _components(probability: NDArray, threshold: float) -> list[set[tuple[int, int]]]:
    """Dilates with a cross, then floods what is left, eight neighbours at a time."""
    height, width = probability.shape
    above = {(int(y), int(x)) for y, x in np.argwhere(probability > threshold)}
    cross = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    boundary = {(y + dy, x + dx) for y, x in above for dy, dx in cross}
    left = {(y, x) for y in range(height) for x in range(width)} - boundary
    components = []
    while left:
        component, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            component.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border += near
        components.append(component)
    return components


def _expected(probability: NDArray, threshold: float) -> dict[frozenset, float]:
    """The masks, without those one pixel wide or high, and their scores."""
    found = {}
    for component in _components(probability, threshold):
        ys, xs = zip(*component, strict=True)
        if min(max(ys) - min(ys), max(xs) - min(xs)) > 0:
            mean = np.mean([probability[place] for place in component])
            found[frozenset(component)] = 1 - mean / threshold
    return found


def _pixels(masks: Masks) -> dict[frozenset, float]:
    """The masks as sets of places, and their scores."""
    return {
        frozenset((int(y), int(x)) for y, x in np.argwhere(masks.full(number))): float(score)
        for number, score in enumerate(masks.scores[:, 0])
    }


def _slit(weights: Path, **parameters: Any) -> tuple[Slit, Machine]:
    return small(weights_sha256=sha256(weights), **parameters), Machine(weights=weights)


def test_the_published_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=1, **PUBLISHED))
    assert sum(weights.numel() for weights in network.parameters()) == 84_594_113  # "84.6M"


def test_an_image_is_prepared_as_by_the_models_own_processor(
    images: list[NDArray[np.uint8]],
) -> None:
    """Its preprocessor_config.json: bilinear, ImageNet's mean and deviation, a square."""
    size = {"height": SIDE, "width": SIDE}
    processor = SegformerImageProcessorPil(size=size, image_mean=MEAN, image_std=STD, resample=2)
    expected = processor(
        images, return_tensors="pt", input_data_format="channels_last"
    ).pixel_values
    prepared = _normalise(torch.stack([_resize(image, SIDE) for image in images]))
    torch.testing.assert_close(prepared, expected)


def test_probabilities_are_those_of_the_direct_computation(
    network: nn.Module, images: list[NDArray[np.uint8]]
) -> None:
    segmenter = small()
    for image, found in zip(
        images, Boundaries(network, segmenter, Machine()).probabilities(images), strict=True
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, _probability(network, image), atol=1e-5)


@pytest.mark.parametrize("near", [0.2, 0.5, 0.8])
def test_masks_are_those_of_the_direct_computation(
    network: nn.Module, weights: Path, images: list[NDArray[np.uint8]], near: float
) -> None:
    probabilities = [_probability(network, image) for image in images]
    threshold = _clear_threshold(probabilities, near)
    segmenter, machine = _slit(weights, threshold=threshold)
    found = segmenter.segment(images, machine)
    for image, probability, masks in zip(images, probabilities, found, strict=True):
        assert (masks.height, masks.width) == image.shape[:2]
        assert _pixels(masks) == pytest.approx(_expected(probability, threshold), abs=1e-4)
    assert sum(len(masks) for masks in found) > 5


def _clear_threshold(probabilities: list[NDArray[np.float64]], near: float) -> float:
    """Returns a threshold that no probability is so close to that rounding could carry it over."""
    values = np.sort(np.concatenate([probability.ravel() for probability in probabilities]))
    values = values[np.abs(values - near) < 0.05]
    widest = np.diff(values).argmax()
    assert values[widest + 1] - values[widest] > 1e-4
    return float(values[widest : widest + 2].mean())


def test_a_batch_finds_what_single_images_do(
    network: nn.Module, images: list[NDArray[np.uint8]]
) -> None:
    segmenter = small()
    boundaries = Boundaries(network, segmenter, Machine())
    assert boundaries.batch.value == 1  # on a CPU
    one_by_one = list(boundaries.probabilities(images))
    for batch in (2, 3, 100):
        boundaries.batch.value = batch
        for together, alone in zip(boundaries.probabilities(images), one_by_one, strict=True):
            np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_same_images_give_the_same_masks_in_any_thread(
    weights: Path, images: list[NDArray[np.uint8]], same_masks: Callable[[Masks, Masks], bool]
) -> None:
    segmenter, machine = _slit(weights)
    once = segmenter.segment(images, machine)
    _boundaries.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: segmenter.segment(images, machine), range(8)))
    assert _boundaries.cache_info().misses == 1
    for found in again:
        assert all(map(same_masks, found, once))
    assert segmenter.segment([], Machine(weights=Path("nowhere"))) == []


def test_bfloat16_sees_nearly_the_same(network: nn.Module, images: list[NDArray[np.uint8]]) -> None:
    exact, rounded = (
        list(Boundaries(network, small(precision=precision), Machine()).probabilities(images))
        for precision in ("float32", "bfloat16")
    )
    apart = np.concatenate([np.abs(a - b).ravel() for a, b in zip(exact, rounded, strict=True)])
    assert 0 < apart.mean() < 0.1  # the network exaggerates, see its fixture


class Cramped(nn.Module):
    """Has room for so many images, and says so as a GPU does."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room
        self.seen: list[int] = []

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        self.seen.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network(pixels)


def test_a_batch_without_room_is_halved(
    network: nn.Module, images: list[NDArray[np.uint8]]
) -> None:
    segmenter = small()
    expected = list(Boundaries(network, segmenter, Machine()).probabilities(images))
    cramped = Cramped(network, room=2)
    boundaries = Boundaries(cramped, segmenter, Machine())
    boundaries.batch.value = 10
    for found, alone in zip(boundaries.probabilities(images), expected, strict=True):
        np.testing.assert_allclose(found, alone, atol=1e-5)
    assert cramped.seen == [5, 5, 2, 2, 1]  # 10 and then 5 at a time, of five images
    assert boundaries.batch.value == 2


def test_no_room_for_one_image(network: nn.Module, images: list[NDArray[np.uint8]]) -> None:
    segmenter = small()
    boundaries = Boundaries(Cramped(network, room=0), segmenter, Machine())
    with pytest.raises(ProtoMaskError, match="single one of the photographs"):
        list(boundaries.probabilities(images))


def test_a_boundary_is_dilated_by_a_cross() -> None:
    probability = np.zeros((9, 9), np.float32)
    probability[4, 4] = 1
    masks = cut(probability, 0.5)
    expected = np.ones((9, 9), bool)
    for y, x in [(4, 4), (3, 4), (5, 4), (4, 3), (4, 5)]:
        expected[y, x] = False
    assert len(masks) == 1
    assert (masks.full(0) == expected).all()


def test_a_cross_of_boundary_cuts_an_image_in_four() -> None:
    probability = np.full((11, 16), 0.05, np.float32)
    probability[4, :] = 0.9
    probability[:, 6] = 0.9
    masks = cut(probability, 0.1)
    # Dilated, the boundary is rows 3–5 and columns 5–7.
    assert masks.boxes.tolist() == [[8, 6, 16, 11], [0, 6, 5, 11], [8, 0, 16, 3], [0, 0, 5, 3]]
    assert masks.areas.tolist() == [40, 25, 24, 15]
    assert masks.scores.ravel().tolist() == pytest.approx([0.5] * 4)


def test_what_touches_at_a_corner_is_one_mask() -> None:
    probability = np.fliplr(np.eye(7, dtype=np.float32))
    probability[3, 3] = 0  # a gap in the diagonal, which its dilated ends meet at the corners
    masks = cut(probability, 0.5)
    expected = """
        1 1 1 1 1 0 0
        1 1 1 1 0 0 0
        1 1 1 0 0 0 1
        1 1 0 1 0 1 1
        1 0 0 0 1 1 1
        0 0 0 1 1 1 1
        0 0 1 1 1 1 1
    """
    assert len(masks) == 1
    assert (masks.full(0) == np.array(expected.split(), int).reshape(7, 7)).all()


def test_a_score_says_how_far_a_mask_is_from_a_boundary() -> None:
    probability = np.zeros((5, 11), np.float32)
    probability[:, 5] = 1
    probability[:, :4] = 0.002
    probability[0, 0] = 0.01
    masks = cut(probability, 0.01)
    # On the left 19 pixels of 0.002 and one of 0.01, at the threshold but not above it.
    assert masks.scores.ravel().tolist() == pytest.approx([1 - 0.24, 1.0], abs=1e-6)


def test_thresholds_at_the_extremes(weights: Path, images: list[NDArray[np.uint8]]) -> None:
    for masks in _slit(weights, threshold=1e-12)[0].segment(images, Machine(weights=weights)):
        assert len(masks) == 0
        assert masks.scores.shape == (0, 1)
    segmenter, machine = _slit(weights, threshold=1 - 1e-9)
    for image, masks in zip(images, segmenter.segment(images, machine), strict=True):
        height, width = image.shape[:2]
        whole = [[0, 0, width, height]] if min(height, width) > 1 else []
        assert masks.boxes.tolist() == whole
        assert masks.areas.tolist() == [height * width] * len(whole)


def test_many_specks_are_all_found() -> None:
    probability = np.ones((300, 400), np.float32)
    for dy, dx in [(y, x) for y in range(1, 5) for x in range(1, 5)]:
        probability[dy::6, dx::6] = 0  # holes of 4×4, of which dilation leaves 2×2
    masks = cut(probability, 0.001)
    assert len(masks) == 50 * 67
    assert set(masks.areas.tolist()) == {4}


@pytest.mark.parametrize(
    ("without", "more", "said"),
    [
        (["decode_head.classifier.bias"], {}, "1 missing, 0 unexpected, 0 mismatched"),
        ([], {"head.bias": 3}, "0 missing, 1 unexpected, 0 mismatched"),
        ([], {"decode_head.classifier.bias": 19}, "0 missing, 0 unexpected, 1 mismatched"),
    ],
)
def test_weights_of_another_network_are_refused(
    weights: Path, tmp_path: Path, without: list[str], more: dict[str, int], said: str
) -> None:
    state = {name: tensor for name, tensor in load_file(weights).items() if name not in without}
    path = tmp_path / "other.safetensors"
    save_file(state | {name: torch.zeros(size) for name, size in more.items()}, path)
    expected = (
        f"{path} holds the weights of another network (of its tensors, {said}); get {WEIGHTS}"
    )
    with pytest.raises(ProtoMaskError, match=f"^{re.escape(expected)}$"):
        load_network(path, SMALL)


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>Please log in</html>")
    with pytest.raises(ProtoMaskError, match=r"page\.html is no safetensors file"):
        load_network(page, SMALL)


def test_a_file_with_another_digest_is_refused(weights: Path) -> None:
    with pytest.raises(ProtoMaskError, match=r"SHA-256"):
        small().segment([np.zeros((4, 4, 3), np.uint8)], Machine(weights=weights))


def test_without_transformers_it_says_what_to_install(
    weights: Path, images: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    _boundaries.cache_clear()
    segmenter, machine = _slit(weights)
    with pytest.raises(ProtoMaskError, match=r"pip install .*'\.\[slit\]'"):
        segmenter.segment(images, machine)


@pytest.mark.parametrize("digest", [None, "", "abc", NO_MATTER + "0", 64 * "x", 12])
def test_weights_are_named_by_their_digest(digest: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Slit(**SLIT | {"weights_sha256": digest})
    said = caught.value.errors()[0]["msg"]
    assert f"{digest!r} is no SHA-256" in said
    assert f"fetch {WEIGHTS}, run `sha256sum model.safetensors`" in said
    assert "set segmenter.weights_sha256" in said


def test_another_parameter_is_another_key() -> None:
    other = {
        "weights_sha256": "1" * 64,
        "side": 1024,
        "threshold": 0.002,
        "precision": "bfloat16",
    }
    assert set(other) == set(Slit.model_fields) - {"name", "version"}
    keys = {Slit(**SLIT | {name: value}).key() for name, value in other.items()}
    assert len(keys | {Slit(**SLIT).key()}) == 5
    assert Slit(**SLIT).key() == Slit(**SLIT).key()


def test_the_preset_asks_for_the_digest() -> None:
    preset = yaml.safe_load(PRESET.read_text())
    assert preset["weights_sha256"] is None
    Slit(**preset | {"weights_sha256": NO_MATTER})
