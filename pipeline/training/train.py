"""Warm-up and joint training, resumable after every epoch."""

import contextlib
import copy
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.loading import CropBatch, load_batches
from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.files import atomic_file
from pipeline.model.base.inference import IMAGES_PER_BLOCK
from pipeline.model.base.losses import class_weights, weighted
from pipeline.model.base.network import Output, PrototypeNetwork, valid_views
from pipeline.model.base.start import sample
from pipeline.progress import track
from pipeline.training.curve import announce
from pipeline.training.fabric import Fabric
from pipeline.training.features import stored_features
from pipeline.training.processes import StepSynchroniser, from_first, share, summed
from pipeline.training.settings import TrainSettings

if TYPE_CHECKING:
    from dvclive import Live

    from pipeline.training.augmentation import Augmentation


START_VIEWS, OF_A_CLASS = 65_536, 32
"""How many views of training images standardisation, W and the prototypes start from, unless so
many of each class are more: copies of the features of all would be most of what training holds."""


@dataclass
class Progress:
    """Training state saved in a checkpoint beside the network and the optimizer.

    Args:
        epoch: number of finished epochs, warm-up included.
        best_epoch: the epoch with the best score so far; −1 before the first.
        best: that epoch's validation accuracy and negative validation loss; without a validation
            split, its number and 0.
        history: the values by name of each finished epoch.
    """

    epoch: int = 0
    best_epoch: int = -1
    best: tuple[float, float] = (-math.inf, -math.inf)
    history: list[dict[str, float]] = field(default_factory=list)


class Input(NamedTuple):
    """What a network is given of the B images of a batch.

    Args:
        rows_B: the images, int64, as rows of the index.
        seen: their views' features, B×V×F; or the crops of copies of them, of which those of each
            copy lie together, float32 (copies·B)×K×S×S×3 or uint8 B×K×S×S×3.
        valid_BK: bool, false for crops that are missing or left out.
        inside: the masks inside the crops, or None.
    """

    rows_B: Tensor
    seen: Tensor
    valid_BK: Tensor
    inside: Tensor | None = None


@dataclass
class Training:
    """One training run, by one process or by several that share the batches of each step.

    Several processes compute what one computes: the random numbers of a batch follow from its
    number, and loss and batch norms see one batch at a time.

    Args:
        network: the model, trained in place.
        store: the crops as the model sees them (`PrototypeNetwork.seen`).
        index: classes and splits of the store's images.
        settings: the parameters of training.
        seed: seed of the order of images, of augmentation and of initialisation from crops.
        fabric: the device, the precision and the processes.
        checkpoints: folder for checkpoints, used by this run only (same inputs, parameters and
            seed); the first process alone reads and writes there.
        cache: folder of the cache of pooled features.
        compile: whether a trainable backbone is compiled.
        curve: file that each epoch is appended to while training runs; None writes none.
    """

    network: PrototypeNetwork
    store: CropStore
    index: Index
    settings: TrainSettings
    seed: int
    fabric: Fabric
    checkpoints: Path
    cache: Path
    compile: bool = False
    curve: str | None = None

    def __post_init__(self) -> None:
        self.train_rows, self.val_rows = self.index.rows("train"), self.index.rows("val")
        self.known_rows = self.index.rows("train", "val")
        self.labels = torch.from_numpy(self.index.labels).to(self.fabric.device)
        self.valid = torch.from_numpy(self.store.valid).to(self.fabric.device)
        train_labels = self.labels[torch.from_numpy(self.train_rows).to(self.fabric.device)]
        self.class_weights = class_weights(train_labels, self.network.num_classes)
        self.network.to(self.fabric.device)
        if self.compile and not self.settings.freeze_backbone:
            backbone = self.network.backbone.network
            # Of several stages the second is called; what is not called is not compiled.
            for name in ("forward_features", "forward_intermediates"):
                if hasattr(backbone, name):
                    setattr(backbone, name, torch.compile(getattr(backbone, name)))
        self.optimizer = self._optimizer()
        self.synchroniser = StepSynchroniser(self.network, self.optimizer, self.fabric)
        self.augmentation = _augmentation() if self.settings.augment else None
        self._stored: Tensor | None = None
        self._best: dict[str, Tensor] | None = None

    def run(self, curves: Path | None) -> Progress:
        """Trains, and leaves the weights of the best epoch in `network`, in evaluation mode.

        The best epoch has the highest accuracy on the validation split and, of equal ones, the
        lowest loss. An epoch of warm-up is the best only if it is more accurate than all joint ones
        by more than chance (`noise`). Without a validation split the best is the last. An
        interrupted run is resumed after its last finished epoch.

        Args:
            curves: folder for DVCLive's curves; None in all processes but the first.

        Returns:
            The state after the last epoch, with the values of all epochs.

        Raises:
            ProtoMaskError: a loss is not finite, or another process has died.
        """
        self._start()
        progress = self._resume()
        total = self.settings.warmup_epochs + self.settings.epochs
        with _live(curves) as live:
            for epoch, values in enumerate(progress.history):
                self._show(live, epoch, values)
            for epoch in self._epochs(progress.epoch, shown=curves is not None):
                values = self._epoch(epoch)
                score = (values.get("val/accuracy", float(epoch)), -values.get("val/loss", 0.0))
                progress.history.append(values)
                progress.epoch = epoch + 1
                if self._is_best(epoch, score, progress):
                    progress.best, progress.best_epoch = score, epoch
                    self._best = copy.deepcopy(self.network.state_dict())
                    self._save("best.pt", {"network": self._best})
                self._save_checkpoint(progress)
                self._show(live, epoch, values)
        if self._best is not None:
            self.network.load_state_dict(self._best)
        if len(self.val_rows) == 0 and total > 0:
            # What the last step has done shows nowhere else.
            some = self.train_rows[: self.settings.batch_size]
            self._refuse_divergence("train", self._measure(some, not self.settings.freeze_backbone))
        self.network.finish()
        self.network.eval()
        return progress

    def _is_best(self, epoch: int, score: tuple[float, float], progress: Progress) -> bool:
        first_joint = progress.best_epoch < self.settings.warmup_epochs <= epoch
        if progress.best_epoch < 0 or not first_joint or len(self.val_rows) == 0:
            return score > progress.best
        return score[0] >= progress.best[0] - noise(progress.best[0], len(self.val_rows))

    def _epochs(self, first: int, *, shown: bool) -> Iterator[int]:
        """Yields the epochs that are left; warm-up, which is faster, has a bar of its own."""
        warmup = self.settings.warmup_epochs
        phases = {
            "Warm-up epochs": range(first, warmup),
            "Training epochs": range(max(first, warmup), warmup + self.settings.epochs),
        }
        for name, epochs in phases.items():
            yield from track(epochs, name) if shown else epochs

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch; all its randomness follows from the seed and the epoch's number."""
        settings = self.settings
        joint = epoch - settings.warmup_epochs
        train_backbone = joint >= 0 and not settings.freeze_backbone
        if train_backbone:
            self._stored = None
        else:
            # Before the network is in training mode, which computing features would end.
            self._known_features()
        self.network.begin_epoch(epoch, settings.warmup_epochs)
        self.network.train()
        self.network.backbone.learn(train_backbone, settings.batch_norm, settings.freeze_until)
        factor = 0.5 ** (max(joint, 0) // settings.step_size)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        order = np.random.default_rng([self.seed, epoch]).permutation(self.train_rows)
        values = self._steps(epoch, order, train_backbone)
        return {
            **{f"train/{name}": value for name, value in values.items()},
            **self._validate(train_backbone),
        }

    def _steps(
        self, epoch: int, order: NDArray[np.int64], train_backbone: bool
    ) -> dict[str, float]:
        """Trains on the images in this order; returns the means of loss, its terms and accuracy."""
        settings = self.settings
        batches = range(math.ceil(len(order) / settings.batch_size))
        steps = [batches[at : at + settings.accumulate] for at in batches[:: settings.accumulate]]
        shares = [share(len(step), self.fabric) for step in steps]
        mine = [step[place] for step, own in zip(steps, shares, strict=True) for place in own]
        inputs = self._inputs(epoch, mine, order, train_backbone)
        names = ["loss", "cross_entropy", *self.network.settings.loss_terms, "accuracy"]
        sums = torch.zeros(len(names), device=self.fabric.device)
        for step, own in zip(steps, shares, strict=True):
            self.optimizer.zero_grad()
            self.synchroniser.begin()
            for given in islice(inputs, len(own)):
                values = self._backward(given, len(step))
                sums += torch.stack([values[name] for name in names]) * len(given.rows_B)
            self.synchroniser.end(len(step))
            self.optimizer.step()
            self.network.after_step()
        means = (summed(sums, self.fabric) / len(order)).tolist()
        found = dict(zip(names, means, strict=True))
        self._refuse_divergence("train", found)
        return found

    def _backward(self, given: Input, batches: int) -> dict[str, Tensor]:
        """Accumulates the gradients of one batch of a step; returns the values of its loss."""
        copies = len(given.seen) // len(given.rows_B)
        with self.fabric.autocast():
            output = self.network(given.seen, given.valid_BK.repeat(copies, 1), given.inside)
        values = self._losses(output, self.labels[given.rows_B])
        (values["loss"] / batches).backward()
        return {name: value.detach() for name, value in values.items()}

    def _losses(self, output: Output, labels_B: Tensor) -> dict[str, Tensor]:
        """Returns the loss, its terms, and the accuracy on the first copies."""
        terms = self.network.losses(output, labels_B, self.class_weights)
        loss = weighted(terms, self.network.weights_of(self.settings.loss))
        correct = output.logits[: len(labels_B)].argmax(1) == labels_B
        return {"loss": loss, **terms, "accuracy": correct.float().mean()}

    def _inputs(
        self, epoch: int, numbers: list[int], order: NDArray[np.int64], train_backbone: bool
    ) -> Iterator[Input]:
        """Returns the batches with these numbers."""
        size = self.settings.batch_size
        parts = [order[number * size : (number + 1) * size] for number in numbers]
        learned = self.settings.start == "crops" and epoch < self.settings.warmup_epochs
        if not train_backbone and (self.augmentation is None or learned):
            return self._known_inputs(epoch, numbers, parts)
        return self._read_inputs(epoch, numbers, parts)

    def _known_inputs(
        self, epoch: int, numbers: list[int], parts: list[NDArray[np.int64]]
    ) -> Iterator[Input]:
        for number, part in zip(numbers, parts, strict=True):
            self._seed_batch(epoch, number)
            rows = torch.from_numpy(part).to(self.fabric.device)
            yield Input(rows, self._stored_features(part), self._left(epoch, self.valid[rows]))

    def _read_inputs(
        self, epoch: int, numbers: list[int], parts: list[NDArray[np.int64]]
    ) -> Iterator[Input]:
        size, device = self.settings.batch_size, self.fabric.device
        copies = 2 if self.network.in_pairs else 1
        # Only an epoch's last batch can be shorter.
        rows = np.concatenate([self.train_rows[:0], *parts])
        masks = self.network.settings.pools_inside
        batches = load_batches(self.store, rows, size, device, masks)
        for number, read in zip(numbers, batches, strict=True):
            self._seed_batch(epoch, number)
            batch = read._replace(valid_BK=self._left(epoch, read.valid_BK))
            crops, inside = batch.crops_BKSS3, batch.inside_BKSS
            if self.augmentation is not None:
                crops, inside = augmented(self.augmentation, batch, copies)
            rows_B = torch.from_numpy(batch.rows).to(device)
            yield Input(rows_B, crops, batch.valid_BK, inside)

    def _left(self, epoch: int, valid_BK: Tensor) -> Tensor:
        """Returns which crops of a batch are left in: all of them in a warm-up."""
        joint = epoch >= self.settings.warmup_epochs
        return without_some(valid_BK, self.settings.drop_crops if joint else 0.0)

    def _seed_batch(self, epoch: int, number: int) -> None:
        numbers = np.random.default_rng([self.seed, epoch, number])
        torch.manual_seed(int(numbers.integers(2**63)))

    def _validate(self, train_backbone: bool) -> dict[str, float]:
        if len(self.val_rows) == 0:
            return {}
        values = self._measure(self.val_rows, train_backbone)
        self._refuse_divergence("val", values)
        return {f"val/{name}": value for name, value in values.items()}

    @torch.no_grad()
    def _measure(self, rows: NDArray[np.int64], train_backbone: bool) -> dict[str, float]:
        """Returns loss and accuracy on images, in evaluation mode and without augmentation."""
        if train_backbone:
            features = stored_features(self.network, self.store, rows, self.fabric)
            features = features.to(self.fabric.device)
        else:
            features = self._stored_features(rows)
        self.network.eval()
        values = self._losses(self._outputs(features, self.valid[rows]), self.labels[rows])
        return {name: float(values[name]) for name in ("loss", "accuracy")}

    def _outputs(self, features_NVF: Tensor, valid_NK: Tensor) -> Output:
        """Computes the outputs of images, whose views' scores it holds for one block at a time."""
        blocks = zip(
            features_NVF.split(IMAGES_PER_BLOCK), valid_NK.split(IMAGES_PER_BLOCK), strict=True
        )
        found: list[Output] = [self.network(*block) for block in blocks]
        distances = [output.distance for output in found if output.distance is not None]
        return Output(
            torch.cat([output.logits for output in found]),
            torch.cat(distances) if distances else None,
            torch.cat([output.embedding for output in found]),
        )

    def _stored_features(self, rows: NDArray[np.int64]) -> Tensor:
        """Returns features of training or validation images' views: n×V×F on the device."""
        return self._known_features()[np.searchsorted(self.known_rows, rows)]

    def _known_features(self) -> Tensor:
        """Returns the features of all training and validation images' views, on the device."""
        if self._stored is None:
            among = self.known_rows, self.fabric, self.cache
            self._stored = stored_features(self.network, self.store, *among).to(self.fabric.device)
        return self._stored

    def _start(self) -> None:
        """Initialises standardisation, W and the prototypes from the training views' features."""
        from_crops = self.settings.start == "crops"
        if self.network.settings.standardise or from_crops:
            features_XF, labels_X, views = self._start_views()
            self.network.standardise(features_XF)
            if from_crops:
                self.network.start_from(features_XF, labels_X, views, self.seed)
        self.synchroniser.agree()

    def _start_views(self) -> tuple[Tensor, Tensor, int]:
        """Returns the features and classes of the training views, and the number of an image's.

        Of a large data set it is a random sample.
        """
        features_NVF, rows = self._known_features(), torch.from_numpy(self.train_rows)
        place_N = torch.from_numpy(np.searchsorted(self.known_rows, self.train_rows))
        image_X, view_X = valid_views(self.valid[rows], features_NVF).cpu().nonzero(as_tuple=True)
        if len(image_X) > START_VIEWS:
            labels_X = self.index.labels[self.train_rows[image_X]]
            kept = sample(labels_X, START_VIEWS, OF_A_CLASS, self.seed)
            image_X, view_X = image_X[kept], view_X[kept]
        features_XF = features_NVF[place_N[image_X], view_X]
        return features_XF, self.labels[rows[image_X]], features_NVF.shape[1]

    def _optimizer(self) -> torch.optim.Optimizer:
        settings, network = self.settings, self.network
        rates = {"projection": settings.lr_projection, "prototypes": settings.lr_prototypes}
        groups = [{"params": list(network.backbone.parameters()), "lr": settings.lr_backbone}]
        groups += [
            {"params": parameters, "lr": rates[name]}
            for name, parameters in network.parameter_groups().items()
        ]
        for group in groups:
            group["initial_lr"] = group["lr"]
        return torch.optim.Adam(groups)

    def _save_checkpoint(self, progress: Progress) -> None:
        state = {
            "progress": vars(progress),
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        self._save("last.pt", state)

    def _save(self, name: str, state: dict[str, Any]) -> None:
        if not self.fabric.is_global_zero:
            return
        with atomic_file(self.checkpoints / name) as part:
            torch.save(state, part)

    def _load(self, name: str) -> dict[str, Any]:
        path = self.checkpoints / name
        # torch.load does not verify the archive's checksums.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile(f"{path} is damaged")
        return torch.load(path, map_location="cpu", weights_only=True)

    def _resume(self) -> Progress:
        """Restores the state after the last finished epoch of an interrupted run.

        Damaged checkpoints count as missing.
        """
        at_first = copy.deepcopy(self.network.state_dict())
        mine = self._checkpoints() if self.fabric.is_global_zero else None
        found = from_first(mine, self.fabric)
        if found is None:
            return Progress()
        last, best = found
        try:
            progress = Progress(**last["progress"])
            for state in (best, last):
                self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(last["optimizer"])
        except Exception:  # a damaged checkpoint may hold anything
            self.network.load_state_dict(at_first)
            self.optimizer.load_state_dict(self._optimizer().state_dict())
            return Progress()
        self._best = best["network"]
        return progress

    def _checkpoints(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            return self._load("last.pt"), self._load("best.pt")
        except Exception:  # a damaged file makes torch and pickle raise all kinds of errors
            return None

    def _show(self, live: "Live | None", epoch: int, values: dict[str, float]) -> None:
        if live is None:
            return
        for name, value in values.items():
            live.log_metric(name, value)
        live.next_step()
        announce(values, epoch, self.curve)

    def _refuse_divergence(self, split: str, values: dict[str, float]) -> None:
        bad = [f"{split}/{name}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            rates = ["lr_projection", "lr_prototypes"]
            rates = rates if self.settings.freeze_backbone else ["lr_backbone", *rates]
            given = ", ".join(f"train.{rate}={getattr(self.settings, rate):g}" for rate in rates)
            raise ProtoMaskError(
                f"the training has diverged, {bad[0]} is no longer a finite number: lower what is "
                f"too large of {given} and the weights in train.loss"
            )


def noise(accuracy: float, images: int) -> float:
    """Returns two standard errors of an accuracy: what chance alone makes of it.

    By Agresti & Coull (1998), with two successes and two failures added, so that it is not 0 where
    all images are classified correctly.

    Args:
        accuracy: share of the images that are classified correctly, 0..1.
        images: number of images, ≥ 1.
    """
    share = (accuracy * images + 2) / (images + 4)
    return 2 * math.sqrt(share * (1 - share) / (images + 4))


def without_some(valid_BK: Tensor, share: float) -> Tensor:
    """Leaves out a share of each image's crops, chosen by chance.

    Always the same number of as many: batches of ever other sizes leave gaps in the memory that
    they free, and a process grows to several times what a batch needs.

    Args:
        valid_BK: bool B×K, false for missing crops; at least one true in each row.
        share: the share that is left out, in [0, 1); what it leaves is rounded up.

    Returns:
        bool B×K, false for crops that are missing or left out.
    """
    if share == 0:
        return valid_BK
    chance_BK = torch.rand(valid_BK.shape).to(valid_BK.device).masked_fill(~valid_BK, -1)
    place_BK = chance_BK.argsort(dim=1, descending=True).argsort(dim=1)
    count_B1 = valid_BK.sum(dim=1, keepdim=True)
    return place_BK < count_B1 - (share * count_B1.double()).long()


def augmented(
    augmentation: "Augmentation", batch: CropBatch, copies: int
) -> tuple[Tensor, Tensor | None]:
    """Returns augmented copies of a batch's crops, and of their masks where it has these.

    Args:
        augmentation: the augmentation, of which each mask gets its crop's geometric part.
        batch: the crops of B images.
        copies: number of copies of each image.

    Returns:
        The crops, float32 (copies·B)×K×S×S×3 in [0, 1], and their masks, float32
        (copies·B)×K×S×S in [0, 1].
    """
    if batch.inside_BKSS is None:
        return augmentation(batch.crops_BKSS3, batch.valid_BK, copies), None
    masks_BKSS1 = batch.inside_BKSS[..., None].to(torch.uint8) * 255
    crops_BKSS4 = torch.cat([batch.crops_BKSS3, masks_BKSS1], dim=-1)
    seen = augmentation(crops_BKSS4, batch.valid_BK, copies)
    return seen[..., :3], seen[..., 3]


def _augmentation() -> "Augmentation":
    from pipeline.training.augmentation import Augmentation  # imports Kornia

    return Augmentation()


def _live(curves: Path | None) -> "contextlib.AbstractContextManager[Live | None]":
    if curves is None:
        return contextlib.nullcontext()
    from dvclive import Live

    return Live(str(curves), save_dvc_exp=False, dvcyaml=None)
