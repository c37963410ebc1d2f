"""The decoder against sam2's own, point by point."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sam2.sam2_image_predictor import SAM2ImagePredictor

from pipeline.masks.segmenters.sam2.decoder import PointDecoder


@pytest.fixture(scope="module")
def asked(
    make_model: Callable[[int], torch.nn.Module], blobs: Callable[..., NDArray[np.uint8]]
) -> dict:
    """Two photographs' features, ten points, and what sam2 answers of the first photograph."""
    model = make_model(0)
    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    generator = torch.Generator().manual_seed(1)
    points_n2 = torch.rand(10, 2, generator=generator) * 256
    tokens = []
    for seed in (8, 7):  # the predictor keeps the last one
        predictor.set_image(blobs(seed))
        embedding = predictor._features["image_embed"]
        none = model.sam_prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        tokens.append((embedding + none).flatten(2).transpose(1, 2))
    fine, middle = predictor._features["high_res_feats"]
    with torch.inference_mode():
        _, iou, logits = predictor._predict(
            points_n2[:, None], torch.ones(10, 1, dtype=torch.int), return_logits=True
        )
    return {
        "model": model,
        "tokens": torch.cat(tokens[::-1]),
        "features": (middle, fine),
        "points": points_n2,
        "iou": iou,
        "logits": logits,
    }


@torch.inference_mode()
def test_the_same_scores_and_masks(asked: dict) -> None:
    decoder = PointDecoder(asked["model"])
    decoded = decoder(asked["tokens"][:1], asked["points"][None])
    torch.testing.assert_close(decoded.iou_BM, asked["iou"], atol=1e-5, rtol=0)
    assert decoded.iou_BM.std() > 0.01, "the scores must differ to prove anything"
    logits = decoder.masks(decoded, *asked["features"])
    # sam2 clamps the logits that it returns at the decoder's resolution.
    torch.testing.assert_close(logits.clamp(-32, 32), asked["logits"], atol=2e-3, rtol=1e-4)
    assert asked["logits"].abs().max() > 5


@torch.inference_mode()
def test_crops_do_not_see_each_other(asked: dict) -> None:
    decoder = PointDecoder(asked["model"])
    both = decoder(asked["tokens"], asked["points"].expand(2, -1, -1))
    for crop in (0, 1):
        alone = decoder(asked["tokens"][crop : crop + 1], asked["points"][None])
        rows = slice(crop * 10, crop * 10 + 10)
        for together, single in zip(both, alone, strict=True):
            torch.testing.assert_close(together[rows], single, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both.iou_BM[:10], both.iou_BM[10:], atol=1e-3)


@torch.inference_mode()
def test_bfloat16_is_near(asked: dict) -> None:
    decoder = PointDecoder(asked["model"], torch.bfloat16)
    decoded = decoder(asked["tokens"][:1].bfloat16(), asked["points"][None])
    assert decoded.image_BTC.dtype == torch.bfloat16 and decoded.iou_BM.dtype == torch.float32
    torch.testing.assert_close(decoded.iou_BM, asked["iou"], atol=0.1, rtol=0)
    assert asked["model"].sam_mask_decoder.iou_token.weight.dtype == torch.float32
