from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import regionprops
from torch import Tensor

from pipeline.metrics.evidence import Batch, Copies, Drawn, Evidence, Subject
from pipeline.metrics.groups import completeness, continuity
from pipeline.metrics.perturbation import noise_outside, outside
from pipeline.model.base.head import DistanceHead
from pipeline.model.base.inference import ModelOutputs, outputs_of

METRICS = {"vlc", "vac", "plc", "palc", "pac", "psc", "prc"}


def test_bounding_boxes_by_hand():
    maps_SS = torch.zeros(3, 4, 5)
    maps_SS[0, 1, 2], maps_SS[0, 3, 1] = 0.1, 7.0
    maps_SS[1] = 1.0
    boxes = completeness.bounding_boxes(maps_SS)
    assert boxes.tolist() == [[1, 1, 3, 4], [0, 0, 5, 4], [0, 0, 0, 0]]


@given(seed=st.integers(0, 1000))
def test_bounding_boxes_agree_with_scikit_image(seed):
    mask_SS = torch.rand(7, 9, generator=torch.Generator().manual_seed(seed)) > 0.9
    mask_SS[seed % 7, seed % 9] = True
    (region,) = regionprops(mask_SS.numpy().astype("uint8"))
    y0, x0, y1, x1 = region.bbox
    assert completeness.bounding_boxes(mask_SS.float()).tolist() == [x0, y0, x1, y1]


def test_boxes_grow_by_a_pixel_unless_they_are_empty():
    boxes = completeness.grown(torch.tensor([[1, 2, 3, 5], [0, 0, 0, 0]]))
    assert boxes.tolist() == [[0, 1, 4, 6], [0, 0, 0, 0]]


@dataclass
class CropBoxes:
    """Draws the box of a crop, as bright as the crop is."""

    boxes_NK4: Tensor
    crops_NKSS3: Tensor
    name: str = "boxes"

    def maps(
        self,
        images_B: Tensor,
        prototypes_Bk: Tensor,
        crop_Bk: Tensor,
        copies: Copies | None = None,
    ) -> tuple[Tensor, Tensor]:
        size = self.crops_NKSS3.shape[2]
        crops = self.crops_NKSS3[images_B] / 255 if copies is None else copies.crops_XKSS3
        bright_Bk = crops.mean(dim=(2, 3, 4)).gather(1, crop_Bk)
        boxes_Bk4 = self.boxes_NK4[images_B[:, None], crop_Bk]
        whole_image = torch.tensor([0.0, 0, size, size]).expand(len(images_B), 1, 4)
        masks = ~outside(whole_image, boxes_Bk4, size)[:, :, 0]
        return masks * bright_Bk[..., None, None], masks


@dataclass
class Asked:
    """Another subject, and how many crops it was asked about."""

    subject: Subject
    crops_asked: list[int] = field(default_factory=list)

    @property
    def pixel_std_3(self) -> Tensor:
        return self.subject.pixel_std_3

    def crops(self, images_B: Tensor) -> Tensor:
        return self.subject.crops(images_B)

    def inside(self, images_B: Tensor) -> Tensor:
        return self.subject.inside(images_B)

    def infer(
        self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor | None = None
    ) -> ModelOutputs:
        self.crops_asked.append(int(valid_BK.sum()))
        return self.subject.infer(crops_BKSS3, valid_BK, inside_BKSS)


@pytest.fixture
def evidence(make_evidence) -> Evidence:
    """What the model of `conftest` truly says; some images lack crops.

    The noise has some three times the range of the pixels, so that answers to so few of them move.
    """
    made = make_evidence(images=5)
    subject = replace(made.subject, pixel_std_3=torch.tensor([50.0, 60.0, 70.0]))
    valid_NK = torch.ones_like(made.valid_NK)
    valid_NK[1, 2:], valid_NK[4, 1:] = False, False
    return replace(
        made,
        subject=Asked(subject),
        valid_NK=valid_NK,
        outputs=subject.infer(subject.crops_NKSS3, valid_NK),
        explanations=[CropBoxes(made.boxes_NK4, subject.crops_NKSS3)],
    )


def drawn(batch: Batch) -> Drawn:
    explanation = batch.evidence.explanations[0]
    return Drawn(explanation, *explanation.maps(batch.images_B, batch.prototypes_Bk, batch.crop_Bk))


def measured(evidence: Evidence, batch_size: int) -> dict[str, Tensor]:
    found = [completeness.Completeness().of_maps(b, drawn(b)) for b in evidence.batches(batch_size)]
    return {name: torch.cat([values[name] for values in found]) for name in found[0]}


def test_of_maps_against_a_loop_that_asks_about_whole_copies(evidence):
    values = measured(evidence, 5)
    assert set(values) == METRICS
    explanation, subject = evidence.explanations[0], evidence.subject
    for image in range(5):
        one = torch.tensor([image])
        valid_1K, first = evidence.valid_NK[one], ModelOutputs(*(t[one] for t in evidence.outputs))
        of_prototypes: dict[str, list[float]] = {name: [] for name in METRICS}
        for j in evidence.top_Nk[image].view(-1, 1, 1):
            maps, masks = explanation.maps(one, j, first.view_NP[:, j[0]])
            box = completeness.bounding_boxes(maps) + torch.tensor([-1, -1, 1, 1])
            noisy = outside(evidence.boxes_NK4[one], box, 8)
            copy = noise_outside(subject.crops(one), noisy, subject.pixel_std_3, 0, one)[:, 0]
            second = subject.infer(copy, valid_1K)
            maps2, masks2 = explanation.maps(one, j, second.view_NP[:, j[0]], Copies(copy, second))
            changes = continuity.of_outputs(evidence, first, second, valid_1K, j[0][None])
            changes |= {"vlc": continuity.vlc(masks, masks2), "vac": continuity.vac(maps, maps2)}
            for name, change in changes.items():
                of_prototypes[name].append(change.item())
        for name, changes in of_prototypes.items():
            expected = torch.tensor(changes).mean().item()
            assert values[name][image].item() == pytest.approx(expected, rel=1e-4, abs=1e-4), name
    for name, value_N in values.items():
        assert value_N.count_nonzero() > 0, name


class Quarters:
    """A model whose views are the quarters of each crop, and their embeddings the mean colours."""

    pixel_std_3 = torch.ones(3)

    def __init__(self, head: DistanceHead) -> None:
        self.head = head

    def embedding(self, crops_BKSS3: Tensor) -> Tensor:
        rows = crops_BKSS3.float().unflatten(3, (2, -1)).unflatten(2, (2, -1))
        return rows.mean(dim=(3, 5)).flatten(1, 3)  # B×K×2×s×2×s×3

    def infer(
        self, crops_BKSS3: Tensor, valid_BK: Tensor, inside_BKSS: Tensor | None = None
    ) -> ModelOutputs:
        valid_BV = valid_BK.repeat_interleave(4, dim=1)
        return outputs_of(self.head, self.embedding(crops_BKSS3), valid_BV)


def test_only_the_cells_of_crops_that_changed_are_asked_about(make_evidence):
    head = DistanceHead(torch.rand(2, 3), torch.rand(3, 2), 1e-4, torch.zeros(2))
    quarters = Quarters(head)
    crops_NKSS3 = torch.rand(3, 4, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    valid_NK = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    evidence = make_evidence(
        images=3, head=head, grid=(2, 2), valid_NK=valid_NK, subject=Asked(quarters)
    )
    # What is stored differs from what the model would say, and is kept where nothing changed.
    stored = outputs_of(head, torch.rand(3, 16, 3), evidence.valid_views(valid_NK))
    evidence = replace(evidence, outputs=stored)
    changed_XK = torch.tensor([[False, True, False, True], [True, False, True, True]])
    images_X = torch.tensor([0, 1])
    inside_XKSS = torch.ones(crops_NKSS3[:2].shape[:-1], dtype=torch.bool)
    alone_XK = torch.tensor([[0] * 4, [1] * 4])
    given = crops_NKSS3[:2], changed_XK, alone_XK, inside_XKSS, images_X
    found = completeness._infer(evidence, *given)
    # crops 1 and 3 of image 0, crop 0 of image 1; its crops 2 and 3 are missing
    assert evidence.subject.crops_asked == [3]
    fresh = quarters.embedding(crops_NKSS3[:2]).unflatten(1, (4, 4))
    kept = stored.embedding_NVD[:2].unflatten(1, (4, 4))
    got = found.embedding_NVD.unflatten(1, (4, 4))
    for image, crop, new in [(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1), (1, 0, 1), (1, 1, 0)]:
        torch.testing.assert_close(got[image, crop], (fresh if new else kept)[image, crop])
    again = outputs_of(head, found.embedding_NVD, evidence.valid_views(valid_NK[:2]))
    assert torch.equal(found.similarity_NP, again.similarity_NP)
    assert torch.equal(found.view_NP, again.view_NP)
    assert (found.view_NP[1] < 8).all(), "crops 0 and 1 alone have cells"
    assert torch.equal(evidence.outputs.embedding_NVD, stored.embedding_NVD)


def test_crops_with_noise_on_the_same_pixels_show_the_same_by_hand():
    noisy = torch.zeros(2, 3, 2, 4, 4, dtype=torch.bool)
    noisy[0, 0, 0, 1, 1] = noisy[0, 2, 0, 1, 1] = True  # crop 0 of copies 0 and 2 of image 0
    noisy[1, 1, 1] = noisy[1, 2, 1] = True  # crop 1 of copies 1 and 2 of image 1
    found = completeness._first_alike(noisy)
    assert found.tolist() == [[0, 0], [1, 0], [0, 0], [3, 3], [3, 4], [3, 4]]


def test_batches_change_nothing(evidence):
    together = measured(evidence, 5)
    for size in (1, 3):
        for name, values in measured(evidence, size).items():
            torch.testing.assert_close(values, together[name])


def test_where_the_mask_alone_is_seen_no_other_pixel_gets_noise(evidence):
    batch, nowhere = Batch(evidence, torch.arange(5)), torch.zeros(5, 3, 8, 8)
    explanation = evidence.explanations[0]

    class HalfInside(Asked):
        """The masks are the upper halves of all crops but the first, which has no pixel of its."""

        def inside(self, images_B: Tensor) -> Tensor:
            inside = super().inside(images_B).clone()
            inside[:, 0] = inside[:, :, 4:] = False
            return inside

        def infer(self, crops_BKSS3: Tensor, *given: Tensor) -> ModelOutputs:
            seen.append((crops_BKSS3, given[1]))
            return super().infer(crops_BKSS3, *given)

    for only_inside in (True, False):
        seen: list[tuple[Tensor, Tensor]] = []
        subject = HalfInside(evidence.subject.subject)
        now = replace(evidence, subject=subject, only_inside=only_inside)
        completeness.Completeness().of_maps(
            replace(batch, evidence=now), Drawn(explanation, nowhere, nowhere > 0)
        )
        # Of 15 valid crops 10 are not the first; the three copies of each show the same.
        assert subject.crops_asked and sum(subject.crops_asked) == (10 if only_inside else 15)
        crops, inside = (torch.cat(found) for found in zip(*seen, strict=True))
        assert not inside[:, :, 4:].any()
        # Noise of a standard deviation over 2 leaves no pixel that gets it between 0 and 1.
        plain = ((crops >= 0) & (crops <= 1)).all(-1)
        assert plain[:, :, 4:].float().mean() == (1 if only_inside else pytest.approx(0, abs=0.1))


def test_nothing_is_asked_or_moves_where_the_map_is_the_whole_image(evidence):
    batch = Batch(evidence, torch.arange(5))
    everywhere = torch.ones(5, 3, 8, 8)
    whole = replace(
        evidence.explanations[0], boxes_NK4=torch.tensor([0.0, 0, 8, 8]).expand(5, 4, 4)
    )
    values = completeness.Completeness().of_maps(batch, Drawn(whole, everywhere, everywhere > 0))
    assert evidence.subject.crops_asked == []
    for name in METRICS - {"vac"}:
        assert values[name].tolist() == [0] * 5, name


def test_all_crops_change_where_the_map_is_empty(evidence):
    batch = Batch(evidence, torch.arange(5))
    nothing = torch.zeros(5, 3, 8, 8)
    explanation = evidence.explanations[0]
    values = completeness.Completeness().of_maps(batch, Drawn(explanation, nothing, nothing > 0))
    # each image's valid crops, once for its three prototypes, whose copies show the same
    assert sum(evidence.subject.crops_asked) == int(evidence.valid_NK.sum())
    assert (values["psc"] > 0).all()
    assert values["vlc"].tolist() == [100] * 5


@pytest.mark.parametrize("left", [0.0, 0.3, 1.5, 2.49, 3.7])
@pytest.mark.parametrize("width", [1.2, 2.5, 4.0])
def test_nothing_changes_where_the_map_is_the_box_of_the_only_crop(evidence, left, width):
    """Wherever the box lies between the pixels of the map."""
    only = torch.tensor([left, 1.9, left + width, 6.6]).expand_as(evidence.boxes_NK4)
    explanation = replace(evidence.explanations[0], boxes_NK4=only)
    off_grid = replace(evidence, boxes_NK4=only, explanations=[explanation])
    single = torch.tensor([4])
    assert int(evidence.valid_NK[single].sum()) == 1
    batch = Batch(off_grid, single)
    values = completeness.Completeness().of_maps(batch, drawn(batch))
    assert drawn(batch).masks_BkSS.any() and evidence.subject.crops_asked == []
    assert values["psc"].tolist() == [0]


def test_the_noise_follows_from_the_seed(evidence):
    first = measured(evidence, 5)["psc"]
    assert torch.equal(first, measured(evidence, 5)["psc"])
    assert not torch.equal(first, measured(replace(evidence, seed=1), 5)["psc"])
