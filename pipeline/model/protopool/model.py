"""ProtoPool: all classes share a pool of prototypes, and each class selects K of them."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.backbone.backbone import Backbone
from pipeline.model.base import losses
from pipeline.model.base.distance_network import DistanceNetwork
from pipeline.model.base.distances import above, crop_distances, similarity, smallest_distance
from pipeline.model.base.head import largest_score, mean_score
from pipeline.model.base.models import register
from pipeline.model.base.network import Output
from pipeline.model.base.start import centres
from pipeline.model.protopool.settings import ProtoPoolSettings

SHARPEST = 1000.0
LEAN = 10.0
"""Increase of the selected slot logits in `start_from`, in standard deviations of all of them."""
STRONGEST = 0.05
"""Share of a class's views (the most similar ones) whose mean similarity ranks its prototypes."""
GUMBEL_TEMPERATURE = 0.5


@register
class ProtoPool(DistanceNetwork):
    """ProtoPool (Rymarczyk et al., 2022): a view is a cell of the feature map of the whole image.

    Each class has K slots. A slot is a distribution over the P prototypes,
    q = softmax((a·q' + g) / 0.5) with Gumbel noise g in training. The sharpness a = 1000·√(e/E)
    increases over the first E epochs, including the warm-up, to 1000, where the distribution is
    nearly one-hot. The similarity is focal: that of the nearest cell minus the mean over all cells.
    The score of a class is the sum of q·s over its slots.

    When training ends, each slot selects its most probable prototype; V_cj is then the number of
    slots of class c that have selected prototype j. Prototypes that no slot has selected are
    removed.

    Args:
        settings: parameters of the model, such as P, K and D.
        num_classes: C, the number of classes, ≥ 1.
        backbone: the feature extractor; None builds it from the settings.

    Attributes:
        slots: q', float C×K×P, normal with a standard deviation of √(2 / (P·(C + K))) (Xavier) at
            initialisation; None in a finished model.
        own: bool C×P, the prototypes that each class has selected; only in a finished model.
        sharpness: a of the Gumbel-softmax in the current epoch, 0..1000.

    Raises:
        ProtoMaskError: the backbone cannot be built from the settings.
    """

    settings_type = ProtoPoolSettings
    label = "ProtoPool"
    shares_prototypes = True
    focal = True

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
        """The prototypes that each class has selected, bool C×P."""
        return self.own

    def begin_epoch(self, epoch: int, warmup_epochs: int) -> None:
        """Sets the sharpness; the warm-up counts, since the slots are trained from the start.

        Args:
            epoch: the epoch's number, counted from 0 at the start of the warm-up.
            warmup_epochs: number of warm-up epochs; unused.
        """
        self.sharpness = SHARPEST * math.sqrt(min(1.0, epoch / self.settings.gumbel_epochs))

    def distributions(self) -> Tensor:
        """Returns the distribution of each slot over the prototypes, float C×K×P; sums to 1.

        In evaluation mode it is one-hot at the slot's most probable prototype.
        """
        assert self.slots is not None
        if not self.training:
            chosen_CKP = functional.one_hot(self.slots.argmax(-1), self.slots.shape[-1])
            return chosen_CKP.to(self.slots.dtype)
        if self.sharpness == 0:
            return self.slots.softmax(-1)
        return functional.gumbel_softmax(self.slots * self.sharpness, GUMBEL_TEMPERATURE)

    def score(self, embedding_BVD: Tensor, valid_BV: Tensor) -> Output:
        """Scores images by focal similarity; for arguments and result see `PrototypeNetwork`."""
        distance_BVP = crop_distances(embedding_BVD, self.prototypes)
        scores_BVP = similarity(distance_BVP, self.settings.epsilon)
        focal_BP = largest_score(scores_BVP, valid_BV) - mean_score(scores_BVP, valid_BV)
        focal_BP = above(focal_BP, self.floor)
        weights_CP: Tensor = self.classifier
        if self.slots is not None:
            self._slots_CKP = self.distributions()
            weights_CP = self._slots_CKP.sum(1)
        distance_BP = smallest_distance(distance_BVP, valid_BV)
        return Output(focal_BP @ weights_CP.T, distance_BP, embedding_BVD)

    def losses(self, output: Output, labels_B: Tensor, weights_C: Tensor) -> dict[str, Tensor]:
        """Returns the scalar terms cross-entropy, Clst, Sep and the slots' orthogonality.

        The K prototypes with the largest sum of probabilities over a class's slots count as its
        own.

        Args:
            output: the model's output for a batch of B images, with distances.
            labels_B: int64 B, the images' classes, 0..C−1.
            weights_C: float C, the cross-entropy weight of each class.
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
        """Returns the parameters of W (`projection`), and prototypes and slots (`prototypes`)."""
        groups = super().parameter_groups()
        assert self.slots is not None
        return groups | {"prototypes": [self.prototypes, self.slots]}

    @torch.no_grad()
    def start_from(self, features_XF: Tensor, labels_X: Tensor, views: int, seed: int) -> None:
        """Initialises W, the prototypes and the slots from features of the training views.

        W starts as in `DistanceNetwork`. ⌊P / C⌋ prototypes become cluster centres of each class;
        the remaining ones are unchanged. In each class's slots, the logits of those K prototypes
        are increased whose similarity to the class's views exceeds the mean over classes most.

        Args:
            features_XF: backbone features of X training views, float X×F.
            labels_X: int64 X, the classes of the views' images, 0..C−1.
            views: V, the number of views of an image.
            seed: seed of the clustering, ≥ 0.
        """
        assert self.slots is not None
        self._start_projection(features_XF, labels_X, views, seed)
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
        """Selects the prototype of each slot, sets V accordingly and removes unused prototypes."""
        self.eval()
        chosen_CP = self.distributions().sum(1)
        used = chosen_CP.any(0).nonzero().squeeze(1)
        self.slots = self._slots_CKP = None
        self.classifier = nn.Parameter(chosen_CP.clone())
        self.class_of = chosen_CP.argmax(0)
        self.own = chosen_CP > 0
        self.keep(used)

    def keep(self, prototypes: Tensor) -> None:
        """Removes all prototypes except the given ones.

        Args:
            prototypes: int64, the numbers of the prototypes to keep, in ascending order.
        """
        super().keep(prototypes)
        self.own = self.own[:, prototypes]

    def reshape(self, num_prototypes: int) -> None:
        """Allocates the tensors of a finished model with another number of prototypes.

        Args:
            num_prototypes: P, the number of prototypes of the saved model, ≥ 1.
        """
        super().reshape(num_prototypes)
        self.slots = None
        self.own = self.own.new_empty(self.num_classes, num_prototypes)


def _strongest(scores_XP: Tensor, own_X: Tensor) -> Tensor:
    """Returns the mean similarity of a class's most similar 5 % of views to each prototype.

    Args:
        scores_XP: similarity of each view to each prototype, float X×P.
        own_X: bool X, whether a view belongs to the class.

    Returns:
        float P; 0 for a class without views.
    """
    own_XP = scores_XP[own_X]
    count = math.ceil(STRONGEST * len(own_XP))
    return (
        own_XP.topk(count, dim=0).values.mean(0)
        if count
        else scores_XP.new_zeros(scores_XP.shape[1])
    )
