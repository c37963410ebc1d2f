"""ProtoPool: a pool of prototypes that all classes share, of which each chooses some."""

import math
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from pipeline.model.base import losses
from pipeline.model.base.backbone import Backbone
from pipeline.model.base.distance_network import DistanceNetwork
from pipeline.model.base.distances import crop_distances, similarity, smallest_distance
from pipeline.model.base.head import DistanceHead, largest_score, mean_score
from pipeline.model.base.models import register
from pipeline.model.base.network import Output
from pipeline.model.base.settings import BackboneSettings, Count, Epsilon
from pipeline.model.base.start import centres

SHARPEST = 1000.0
LEAN = 10.0
"""How many deviations of the slots' first values they lean to what the training views suggest."""
STRONGEST = 0.05
"""The share of a class's views that says how much of a prototype there is in it."""
GUMBEL_TEMPERATURE = 0.5


class ProtoPoolSettings(BackboneSettings):
    """The parameters of ProtoPool.

    Args:
        embedding_dim: D.
        prototypes: P, how many all classes share.
        slots: K, how many prototypes a class chooses.
        gumbel_epochs: epochs, the warm-up's among them, after which the choice is as good as made.
        epsilon: ε of the similarity.
    """

    loss_terms = ("cluster", "separation", "orthogonality")
    name: Literal["protopool"] = "protopool"
    code: str = "pipeline/model/protopool.py"
    embedding_dim: Count = 128
    prototypes: Count = 202
    slots: Count = 10
    gumbel_epochs: Count = 30
    epsilon: Epsilon = 1e-4

    @model_validator(mode="after")
    def _consistent(self) -> "ProtoPoolSettings":
        if self.slots >= self.prototypes:
            raise ValueError(
                f"slots is {self.slots} and must be below prototypes, which is {self.prototypes}: "
                "a class is told from others by prototypes that it does not choose"
            )
        return self


@register
class ProtoPool(DistanceNetwork):
    """ProtoPool (Rymarczyk et al., 2022): views are cells, as of a ProtoPNet.

    A class has K slots, each a distribution over the P prototypes, q = softmax((a·q' + g) / 0.5)
    with Gumbel noise g in training. The sharpness a = 1000·√(e/E) rises over the first E epochs,
    the warm-up's among them, to 1000, where a distribution is a choice. The similarity is focal:
    that of the nearest cell minus the mean over all cells. A class's score is the sum over its
    slots of q·s.

    When training ends, each slot takes its most probable prototype, which makes V: how many slots
    of a class have chosen a prototype. Prototypes that none has chosen are dropped.

    Attributes:
        slots: q', C×K×P, normal with a deviation of √(2 / (P·(C + K))) (Xavier) at first; None in a
            finished model.
        own: bool C×P, which prototypes a class has chosen, in a finished model.
    """

    settings_type = ProtoPoolSettings
    label = "ProtoPool"
    shares_prototypes = True

    own: Tensor

    def __init__(
        self, settings: ProtoPoolSettings, num_classes: int, backbone: Backbone | None = None
    ) -> None:
        P, K = settings.prototypes, settings.slots
        super().__init__(settings, num_classes, P, backbone)
        self.slots: nn.Parameter | None = nn.Parameter(
            nn.init.xavier_normal_(torch.empty(num_classes, K, P))
        )
        self.register_buffer("own", torch.zeros(num_classes, P, dtype=torch.bool))
        self.sharpness = 0.0
        self._slots_CKP: Tensor | None = None

    @property
    def own_CP(self) -> Tensor:
        return self.own

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        """Sets the sharpness; the warm-up counts, since the slots are chosen from the start."""
        self.sharpness = SHARPEST * math.sqrt(min(1.0, epoch / self.settings.gumbel_epochs))

    def distributions(self) -> Tensor:
        """Returns each slot's distribution over the prototypes, C×K×P; in evaluation mode its
        choice, one-hot."""
        assert self.slots is not None
        if not self.training:
            return functional.one_hot(self.slots.argmax(-1), self.slots.shape[-1]).float()
        if self.sharpness == 0:
            return self.slots.softmax(-1)
        return functional.gumbel_softmax(self.slots * self.sharpness, GUMBEL_TEMPERATURE)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        distance_BVP = crop_distances(embedding_BVD, self.prototypes)
        scores_BVP = similarity(distance_BVP, self.settings.epsilon)
        focal_BP = largest_score(scores_BVP, valid_BV) - mean_score(scores_BVP, valid_BV)
        weights_CP: Tensor = self.classifier
        if self.slots is not None:
            self._slots_CKP = self.distributions()
            weights_CP = self._slots_CKP.sum(1)
        distance_BP = smallest_distance(distance_BVP, valid_BV)
        return Output(focal_BP @ weights_CP.T, distance_BP, embedding_BVD)

    def head(self) -> DistanceHead:
        return super().head()._replace(focal=True)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns CE, Clst, Sep and the slots' orthogonality.

        The K prototypes that are most present in a class's slots count as its own.
        """
        assert output.distance is not None and self._slots_CKP is not None
        presence_CP = self._slots_CKP.detach().sum(1)
        chosen_CK = presence_CP.topk(min(self.settings.slots, presence_CP.shape[1])).indices
        own_CP = torch.zeros_like(presence_CP, dtype=torch.bool).scatter(1, chosen_CK, True)
        own_BP = own_CP[labels_B]
        return {
            "cross_entropy": losses.cross_entropy(output.logits, labels_B, weights_C),
            "cluster": losses.cluster(output.distance, own_BP),
            "separation": losses.separation(output.distance, own_BP),
            "orthogonality": losses.orthogonality(self._slots_CKP),
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        groups = super().parameter_groups()
        assert self.slots is not None
        return groups | {"prototypes": [self.prototypes, self.slots]}

    @torch.no_grad()
    def start_from(self, features_XF: Tensor, labels_X: Tensor, seed: int) -> None:
        """Makes the first rows of W discriminants, and the prototypes centres of each class.

        What is left over of P / C stays as it was. The slots of a class lean towards the K
        prototypes that are found in its views more often than in those of other classes.
        """
        assert self.slots is not None
        self._discriminate(features_XF, labels_X)
        embedding_XD = self.embed(features_XF)
        each = len(self.prototypes) // self.num_classes
        for label in labels_X.unique().tolist() if each else ():
            found = centres(embedding_XD[labels_X == label].cpu(), each, seed)
            self.prototypes[label * each : (label + 1) * each] = found.to(self.device)
        scores_XP = similarity(crop_distances(embedding_XD, self.prototypes), self.settings.epsilon)
        found_CP = torch.stack(
            [_strongest(scores_XP, labels_X == c) for c in range(len(self.slots))]
        )
        K = min(self.slots.shape[1:])
        chosen_CK1 = (found_CP - found_CP.mean(0)).topk(K).indices[..., None]
        lean = torch.full_like(chosen_CK1, LEAN, dtype=self.slots.dtype) * self.slots.std()
        self.slots[:, :K].scatter_add_(2, chosen_CK1, lean)

    @torch.no_grad()
    def finish(self) -> None:
        self.eval()
        chosen_CP = self.distributions().sum(1)
        used = chosen_CP.any(0).nonzero().squeeze(1)
        self.slots = self._slots_CKP = None
        self.classifier = nn.Parameter(chosen_CP.clone())
        self.class_of = chosen_CP.argmax(0)
        self.own = chosen_CP > 0
        self.keep(used)

    def keep(self, prototypes: Tensor) -> None:
        super().keep(prototypes)
        self.own = self.own[:, prototypes]

    def reshape(self, num_prototypes: int) -> None:
        super().reshape(num_prototypes)
        self.slots = None
        self.own = self.own.new_empty(self.num_classes, num_prototypes)


def _strongest(scores_XP: Tensor, own_X: Tensor) -> Tensor:
    """Returns the mean similarity of the views of a class that are most similar, P; 0 of none."""
    own_XP = scores_XP[own_X]
    count = math.ceil(STRONGEST * len(own_XP))
    return (
        own_XP.topk(count, dim=0).values.mean(0)
        if count
        else scores_XP.new_zeros(scores_XP.shape[1])
    )
