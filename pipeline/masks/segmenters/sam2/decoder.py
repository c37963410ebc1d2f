"""SAM 2's mask decoder for many points of the same crop.

The published decoder repeats the crop's image tokens for every point and projects them again in
each of its five attentions between image and prompt, which is three quarters of its computation.
Here, with the same weights and the same result up to rounding:

- what the first layer needs of the image tokens is computed once for each crop, not for each point;
- elsewhere the projections are applied to the few prompt tokens instead of the 4096 image tokens:
  q·(W k) = (Wᵀ q)·k, and Σ a (W v) = W Σ a v;
- the predicted IoU is known before the masks are, so only points with a mask that passes are
  upscaled.

Shapes: G crops, n points of a crop, B = G·n points, T image tokens, Q prompt tokens, C channels, H
heads of d channels, M masks of a point.
"""

import copy
from typing import NamedTuple

import torch
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Decoded(NamedTuple):
    """The transformer's output for B points, from which masks are computed.

    Args:
        iou_BM: predicted IoU of the masks of each point, in [0, 1].
        mask_tokens_BMC: output tokens of these masks.
        image_BTC: image tokens, as updated for each point.
    """

    iou_BM: Tensor
    mask_tokens_BMC: Tensor
    image_BTC: Tensor


class PointDecoder(nn.Module):
    """Decodes point prompts, three masks for each point (`multimask_output`).

    Args:
        model: the network whose prompt encoder and mask decoder are used.
        dtype: dtype of the computation; points and predicted IoUs are computed in float32.
    """

    position_TC: Tensor

    def __init__(self, model: SAM2Base, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.prompts = model.sam_prompt_encoder
        self.iou_head = model.sam_mask_decoder.iou_prediction_head
        self.decoder = copy.deepcopy(model.sam_mask_decoder).to(dtype)
        self.side = model.sam_image_embedding_size
        position_1CHW = self.prompts.get_dense_pe()
        self.register_buffer("position_TC", position_1CHW.flatten(2)[0].T.contiguous().to(dtype))

    def forward(self, tokens_GTC: Tensor, points_Gn2: Tensor) -> Decoded:
        """Runs the transformer.

        Args:
            tokens_GTC: image tokens of the crops, G×T×C.
            points_Gn2: point prompts G×n×2, (x, y) in pixels of the model's input, 0..1024.
        """
        decoder, transformer = self.decoder, self.decoder.transformer
        prompt_BQC = self._prompt_tokens(points_Gn2).to(tokens_GTC.dtype)
        position_TC = self.position_TC
        first, *others = transformer.layers
        queries_BQC, image_BTC = _first_layer(first, prompt_BQC, tokens_GTC, position_TC)
        for layer in others:
            queries_BQC, image_BTC = _layer(layer, queries_BQC, prompt_BQC, image_BTC, position_TC)
        # The outputs at the object score's token and at the points' own tokens are not used.
        start = int(decoder.pred_obj_scores)
        asked = slice(start, start + 1 + decoder.num_mask_tokens)
        queries_BQC, prompt_BQC = queries_BQC[:, asked], prompt_BQC[:, asked]
        queries_BQC = queries_BQC + _from_image(
            transformer.final_attn_token_to_image,
            queries_BQC + prompt_BQC,
            image_BTC + position_TC,
            image_BTC,
        )
        queries_BQC = transformer.norm_final_attn(queries_BQC)
        iou_BM = self.iou_head(queries_BQC[:, 0].float())[:, 1:]
        return Decoded(iou_BM, queries_BQC[:, 2:], image_BTC)

    def masks(self, decoded: Decoded, middle_1chw: Tensor, fine_1chw: Tensor) -> Tensor:
        """Returns the mask logits, B×M×256×256.

        Args:
            decoded: the transformer's output for B points of one crop.
            middle_1chw: the crop's feature map at half the resolution of the logits, 1×c×128×128.
            fine_1chw: the crop's feature map at the resolution of the logits, 1×c×256×256.
        """
        convolve, norm, activate, convolve_again, activate_again = self.decoder.output_upscaling
        image = decoded.image_BTC.transpose(1, 2).unflatten(2, (self.side, -1))
        image = activate(norm(convolve(image) + middle_1chw))
        image = activate_again(convolve_again(image) + fine_1chw)
        weights_BMc = torch.stack(
            [
                network(decoded.mask_tokens_BMC[:, number])
                for number, network in enumerate(self.decoder.output_hypernetworks_mlps[1:])
            ],
            dim=1,
        )
        return (weights_BMc @ image.flatten(2)).unflatten(2, image.shape[2:])

    def _prompt_tokens(self, points_Gn2: Tensor) -> Tensor:
        points_B12 = points_Gn2.flatten(0, 1)[:, None]
        labels_B1 = torch.ones(points_B12.shape[:2], dtype=torch.int, device=points_B12.device)
        points_BqC, _ = self.prompts(points=(points_B12, labels_B1), boxes=None, masks=None)
        decoder = self.decoder
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        if decoder.pred_obj_scores:
            own.insert(0, decoder.obj_score_token.weight)
        own_QC = torch.cat(own).float()
        return torch.cat([own_QC.expand(len(points_BqC), -1, -1), points_BqC], dim=1)


def _first_layer(
    layer: TwoWayAttentionBlock, prompt_BQC: Tensor, image_GTC: Tensor, position_TC: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes the first layer, in which all points of a crop have the same image tokens."""
    queries_BQC = layer.norm1(layer.self_attn(q=prompt_BQC, k=prompt_BQC, v=prompt_BQC))
    placed_GTC = image_GTC + position_TC

    attention, crops = layer.cross_attn_token_to_image, len(image_GTC)
    # The queries of all points of a crop are concatenated: one attention with n·Q queries.
    side_by_side = (queries_BQC + prompt_BQC).unflatten(0, (crops, -1)).flatten(1, 2)
    seen = attention(q=side_by_side, k=placed_GTC, v=image_GTC).view_as(queries_BQC)
    queries_BQC = _think(layer, queries_BQC + seen)

    attention = layer.cross_attn_image_to_token
    q_GHTd = _heads(attention.q_proj(placed_GTC), attention)
    k_BHQd = _heads(attention.k_proj(queries_BQC + prompt_BQC), attention)
    k_GnHQd = k_BHQd.unflatten(0, (crops, -1))
    scores_GnHQT = (k_GnHQd * _scale(attention)) @ q_GHTd[:, None].transpose(-1, -2)
    told_BTC = _told(attention, scores_GnHQT.flatten(0, 1), queries_BQC)
    image_GnTC = image_GTC[:, None] + told_BTC.unflatten(0, (crops, -1))
    return queries_BQC, layer.norm4(image_GnTC.flatten(0, 1))


def _layer(
    layer: TwoWayAttentionBlock,
    queries_BQC: Tensor,
    prompt_BQC: Tensor,
    image_BTC: Tensor,
    position_TC: Tensor,
) -> tuple[Tensor, Tensor]:
    """Computes a later layer, in which each point has its own image tokens."""
    q_BQC = queries_BQC + prompt_BQC
    queries_BQC = layer.norm1(queries_BQC + layer.self_attn(q=q_BQC, k=q_BQC, v=queries_BQC))
    placed_BTC = image_BTC + position_TC
    seen = _from_image(
        layer.cross_attn_token_to_image, queries_BQC + prompt_BQC, placed_BTC, image_BTC
    )
    queries_BQC = _think(layer, queries_BQC + seen)

    attention = layer.cross_attn_image_to_token
    k_BHQd = _heads(attention.k_proj(queries_BQC + prompt_BQC), attention) * _scale(attention)
    weight_HdC = attention.q_proj.weight.unflatten(0, (attention.num_heads, -1))
    bias_Hd = attention.q_proj.bias.unflatten(0, (attention.num_heads, -1))
    bias_BHQ1 = torch.einsum("bhqd,hd->bhq", k_BHQd, bias_Hd)[..., None]
    asked_BHQC = k_BHQd @ weight_HdC
    scores_BHQT = (asked_BHQC.flatten(1, 2) @ placed_BTC.transpose(1, 2)).unflatten(
        1, (attention.num_heads, -1)
    ) + bias_BHQ1
    return queries_BQC, layer.norm4(image_BTC + _told(attention, scores_BHQT, queries_BQC))


def _think(layer: TwoWayAttentionBlock, queries_BQC: Tensor) -> Tensor:
    queries_BQC = layer.norm2(queries_BQC)
    return layer.norm3(queries_BQC + layer.mlp(queries_BQC))


def _from_image(attention: Attention, q_BQC: Tensor, k_BTC: Tensor, v_BTC: Tensor) -> Tensor:
    """Attention of prompt tokens to image tokens, with the projections on the prompt's side.

    The bias of the keys' projection adds the same value to all of a query's scores and cancels in
    the softmax.
    """
    heads = attention.num_heads
    q_BHQd = _heads(attention.q_proj(q_BQC), attention)
    q_BHQC = q_BHQd @ attention.k_proj.weight.unflatten(0, (heads, -1))
    seen_B1qC = scaled_dot_product_attention(
        q_BHQC.flatten(1, 2)[:, None], k_BTC[:, None], v_BTC[:, None], scale=_scale(attention)
    )
    seen_BHQC = seen_B1qC[:, 0].unflatten(1, (heads, -1))
    value_HCd = attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    seen_BQc = (seen_BHQC @ value_HCd).transpose(1, 2).flatten(2) + attention.v_proj.bias
    return attention.out_proj(seen_BQc)


def _told(attention: Attention, scores_BHQT: Tensor, values_BQC: Tensor) -> Tensor:
    """Returns the update of image tokens by their attention to prompt tokens, B×T×C."""
    v_BHQd = _heads(attention.v_proj(values_BQC), attention)
    out_HdC = attention.out_proj.weight.T.unflatten(0, (attention.num_heads, -1))
    told_BqC = (v_BHQd @ out_HdC).flatten(1, 2)
    share_BqT = scores_BHQT.softmax(2).flatten(1, 2)
    return share_BqT.transpose(1, 2) @ told_BqC + attention.out_proj.bias


def _heads(x_BLc: Tensor, attention: Attention) -> Tensor:
    return x_BLc.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)


def _scale(attention: Attention) -> float:
    return (attention.internal_dim // attention.num_heads) ** -0.5
