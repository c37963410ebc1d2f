"""Warm-up and joint training, resumable after every epoch."""

import copy
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dvclive import Live
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from pipeline.crops.batches import read_batches
from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError
from pipeline.files import whole_file
from pipeline.model.losses import Terms, class_weights, loss_terms
from pipeline.model.network import Output, PrototypeNetwork
from pipeline.progress import track
from pipeline.training.augmentation import Augmentation
from pipeline.training.features import pooled_features
from pipeline.training.settings import TrainSettings


@dataclass
class Progress:
    """What a checkpoint remembers beside the weights and the optimiser."""

    epoch: int = 0
    best_epoch: int = -1
    best: tuple[float, float] = (-math.inf, -math.inf)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Training:
    """One training run.

    Args:
        network: trained in place.
        store: the crops.
        index: the images' classes and splits.
        settings: how.
        seed: of batches and augmentation.
        fabric: where.
        checkpoints: a folder that only this run (same inputs, parameters and seed) writes to.
        memory: where pooled features are remembered.
    """

    network: PrototypeNetwork
    store: CropStore
    index: Index
    settings: TrainSettings
    seed: int
    fabric: Fabric
    checkpoints: Path
    memory: Path

    def __post_init__(self) -> None:
        self.train_rows, self.val_rows = self.index.rows("train"), self.index.rows("val")
        self.labels = torch.from_numpy(self.index.labels).to(self.fabric.device)
        self.valid = torch.from_numpy(self.store.valid).to(self.fabric.device)
        train_labels = self.labels[torch.from_numpy(self.train_rows).to(self.fabric.device)]
        self.class_weights = class_weights(train_labels, self.network.num_classes)
        self.network.to(self.fabric.device)
        self.optimizer = self._optimizer()
        self.augmentation = Augmentation() if self.settings.augment else None
        self._stored: Tensor | None = None
        self._best: dict[str, Tensor] | None = None

    def run(self, curves: Path) -> Progress:
        """Trains, and leaves the weights of the epoch that did best in `network`.

        The best epoch has the highest accuracy on the validation split, and of those the lowest
        loss. Without a validation split it is the last. The network is left in evaluation mode.

        Args:
            curves: a folder for DVCLive's curves.

        Raises:
            ProtoMaskError: the loss is no longer finite.
        """
        self._start()
        progress = self._resume()
        total = self.settings.warmup_epochs + self.settings.epochs
        with Live(str(curves), save_dvc_exp=False, dvcyaml=None) as live:
            for values in progress.history:
                _log(live, values)
            for epoch in track(range(progress.epoch, total), "Training epochs"):
                values = self._epoch(epoch)
                score = (values.get("val/accuracy", float(epoch)), -values.get("val/loss", 0.0))
                progress.history.append(values)
                progress.epoch = epoch + 1
                if score > progress.best:
                    progress.best, progress.best_epoch = score, epoch
                    self._best = copy.deepcopy(self.network.state_dict())
                    self._save("best.pt", {"network": self._best})
                self._save_checkpoint(progress)
                _log(live, values)
        if self._best is not None:
            self.network.load_state_dict(self._best)
        self.network.eval()
        return progress

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch; all its randomness follows from the seed and the epoch's number."""
        joint = epoch - self.settings.warmup_epochs
        backbone_moves = joint >= 0 and not self.settings.freeze_backbone
        self.network.backbone.requires_grad_(backbone_moves)
        self.network.backbone.train(backbone_moves)
        factor = 0.5 ** (max(joint, 0) // self.settings.step_size)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        shuffler = np.random.default_rng([self.seed, epoch])
        torch.manual_seed(int(shuffler.integers(2**63)))
        order = shuffler.permutation(self.train_rows)
        values = {f"train/{name}": value for name, value in self._steps(order, backbone_moves)}
        return {**values, **self._validate(backbone_moves)}

    def _steps(self, order: NDArray[np.int64], backbone_moves: bool) -> list[tuple[str, float]]:
        settings = self.settings
        batches = math.ceil(len(order) / settings.batch_size)
        sums = torch.zeros(6, device=self.fabric.device)
        self.optimizer.zero_grad()
        for number, (rows, inputs) in enumerate(self._inputs(order, backbone_moves)):
            labels_B = self.labels[rows]
            with self.fabric.autocast():
                output = self.network(inputs, self.valid[rows])
            loss, terms = self._loss(output, labels_B)
            first = number - number % settings.accumulate
            self.fabric.backward(loss / min(settings.accumulate, batches - first))
            if (number + 1) % settings.accumulate == 0 or number + 1 == batches:
                self.optimizer.step()
                self.optimizer.zero_grad()
            correct = (output.logits.argmax(1) == labels_B).float().mean()
            sums += torch.stack([loss, *terms, correct]).detach() * len(rows)
        names = ("loss", "cross_entropy", "cluster", "separation", "diversity", "accuracy")
        means = (sums / len(order)).tolist()
        self._refuse_divergence(means[0])
        return list(zip(names, means, strict=True))

    def _loss(self, output: Output, labels_B: Tensor) -> tuple[Tensor, Terms]:
        """Returns L and its terms, in float32 whatever the network's precision."""
        terms = loss_terms(
            output.logits.float(),
            output.distance.float(),
            labels_B,
            self.network.prototypes,
            self.network.class_of,
            self.class_weights,
        )
        settings = self.settings
        return terms.total(settings.cluster, settings.separation, settings.diversity), terms

    def _inputs(
        self, order: NDArray[np.int64], backbone_moves: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields batches of row numbers and what the network sees of them."""
        size, device = self.settings.batch_size, self.fabric.device
        if self.augmentation is None and not backbone_moves:
            stored = self._stored_features()
            for rows in torch.from_numpy(order).to(device).split(size):
                yield rows, stored[rows]
            return
        for batch in read_batches(self.store, order, size, device):
            crops = batch.crops_BKSS3
            if self.augmentation is not None:
                crops = self.augmentation(crops, batch.valid_BK)
            yield torch.from_numpy(batch.rows).to(device), crops

    @torch.no_grad()
    def _validate(self, backbone_moves: bool) -> dict[str, float]:
        if len(self.val_rows) == 0:
            return {}
        if backbone_moves:
            features = pooled_features(self.network, self.store, self.val_rows, self.fabric)
            features = features.to(self.fabric.device)
        else:
            features = self._stored_features()[self.val_rows]
        labels = self.labels[self.val_rows]
        output = self.network(features, self.valid[self.val_rows])
        loss, _ = self._loss(output, labels)
        accuracy = (output.logits.argmax(1) == labels).float().mean()
        return {"val/loss": float(loss), "val/accuracy": float(accuracy)}

    def _stored_features(self) -> Tensor:
        """Returns the pooled features of the training and validation crops: N×K×F on the device.

        Rows of the test split hold zeros: they are never read.
        """
        if self._stored is None:
            shape = len(self.store), self.valid.shape[1], self.network.backbone.num_features
            self._stored = torch.zeros(shape, device=self.fabric.device)
            rows = self.index.rows("train", "val")
            known = pooled_features(self.network, self.store, rows, self.fabric, self.memory)
            self._stored[rows] = known.to(self.fabric.device)
        return self._stored

    def _start(self) -> None:
        """Takes from the training crops what the network starts with."""
        from_crops = self.settings.start == "crops"
        if self.network.settings.standardise or from_crops:
            rows = torch.from_numpy(self.train_rows)
            valid_NK = self.valid[rows]
            features_XF = self._stored_features()[rows][valid_NK]
            self.network.standardise(features_XF)
            if from_crops:
                labels_X = self.labels[rows].unsqueeze(1).expand_as(valid_NK)[valid_NK]
                self.network.start_from(features_XF, labels_X, self.seed)
        if not self.settings.freeze_backbone and self.settings.warmup_epochs == 0:
            self._stored = None

    def _optimizer(self) -> torch.optim.Optimizer:
        settings, network = self.settings, self.network
        groups = [
            {"params": list(network.backbone.parameters()), "lr": settings.lr_backbone},
            {"params": list(network.projection.parameters()), "lr": settings.lr_projection},
            {"params": [network.prototypes], "lr": settings.lr_prototypes},
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
        with whole_file(self.checkpoints / name) as part:
            torch.save(state, part)

    def _load(self, name: str) -> dict[str, Any]:
        path = self.checkpoints / name
        # torch.load passes over the archive's checksums.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile(f"{path} is damaged")
        return torch.load(path, map_location=self.fabric.device, weights_only=True)

    def _resume(self) -> Progress:
        """Continues after the last finished epoch of an interrupted run.

        Damaged checkpoints count as none.
        """
        at_first = copy.deepcopy(self.network.state_dict())
        try:
            last, best = self._load("last.pt"), self._load("best.pt")
            progress = Progress(**last["progress"])
            for state in (best, last):
                self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(last["optimizer"])
        except FileNotFoundError:
            return Progress()
        except Exception:  # a damaged file makes torch and pickle raise all kinds of errors
            self.network.load_state_dict(at_first)
            self.optimizer = self._optimizer()
            return Progress()
        self._best = best["network"]
        return progress

    def _refuse_divergence(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise ProtoMaskError(
                "the training loss is no longer a finite number: lower train.lr_backbone, "
                "train.lr_projection or train.lr_prototypes"
            )


def _log(live: Live, values: dict[str, float]) -> None:
    for name, value in values.items():
        live.log_metric(name, value)
    live.next_step()
