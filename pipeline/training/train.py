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
from pipeline.model.losses import class_weights, weighted
from pipeline.model.network import Output, PrototypeNetwork, views
from pipeline.progress import track
from pipeline.training.augmentation import Augmentation
from pipeline.training.features import stored_features
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
        store: the crops that it sees.
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
        self.network.finish()
        self.network.eval()
        return progress

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch; all its randomness follows from the seed and the epoch's number."""
        joint = epoch - self.settings.warmup_epochs
        backbone_moves = joint >= 0 and not self.settings.freeze_backbone
        self.network.begin_epoch(epoch, self.settings.warmup_epochs)
        self.network.backbone.requires_grad_(backbone_moves)
        self.network.train().backbone.train(backbone_moves)
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
        sums: dict[str, Tensor] = {}
        self.optimizer.zero_grad()
        for number, (rows, inputs) in enumerate(self._inputs(order, backbone_moves)):
            labels_B = self.labels[rows]
            copies = len(inputs) // len(rows)
            with self.fabric.autocast():
                output = self.network(inputs, self.valid[rows].repeat(copies, 1))
            values = self._losses(output, labels_B)
            first = number - number % settings.accumulate
            self.fabric.backward(values["loss"] / min(settings.accumulate, batches - first))
            if (number + 1) % settings.accumulate == 0 or number + 1 == batches:
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.network.after_step()
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() * len(rows)
        means = (torch.stack(list(sums.values())) / len(order)).tolist()
        self._refuse_divergence(means[0])
        return list(zip(sums, means, strict=True))

    def _losses(self, output: Output, labels_B: Tensor) -> dict[str, Tensor]:
        """Returns the loss, its terms, and the accuracy of the first copies."""
        terms = self.network.losses(output, labels_B, self.class_weights)
        loss = weighted(terms, self.network.weights_of(self.settings.loss))
        correct = output.logits[: len(labels_B)].argmax(1) == labels_B
        return {"loss": loss, **terms, "accuracy": correct.float().mean()}

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
        copies = 2 if self.network.in_pairs else 1
        for batch in read_batches(self.store, order, size, device):
            crops = batch.crops_BKSS3
            if self.augmentation is not None:
                crops = self.augmentation(crops, batch.valid_BK, copies)
            yield torch.from_numpy(batch.rows).to(device), crops

    @torch.no_grad()
    def _validate(self, backbone_moves: bool) -> dict[str, float]:
        if len(self.val_rows) == 0:
            return {}
        if backbone_moves:
            features = stored_features(self.network, self.store, self.val_rows, self.fabric)
            features = features.to(self.fabric.device)
        else:
            features = self._stored_features()[self.val_rows]
        self.network.eval()
        output = self.network(features, self.valid[self.val_rows])
        values = self._losses(output, self.labels[self.val_rows])
        return {f"val/{name}": float(values[name]) for name in ("loss", "accuracy")}

    def _stored_features(self) -> Tensor:
        """Returns the features of the training and validation images' views: N×V×F on the device.

        Rows of the test split hold zeros: they are never read.
        """
        if self._stored is None:
            rows = self.index.rows("train", "val")
            known = stored_features(self.network, self.store, rows, self.fabric, self.memory)
            self._stored = torch.zeros(len(self.store), *known.shape[1:], device=self.fabric.device)
            self._stored[rows] = known.to(self.fabric.device)
        return self._stored

    def _start(self) -> None:
        """Takes from the training images' views what the network starts with."""
        from_crops = self.settings.start == "crops"
        if self.network.settings.standardise or from_crops:
            rows = torch.from_numpy(self.train_rows)
            features_NVF = self._stored_features()[rows]
            valid_NV = views(self.valid[rows], features_NVF)
            features_XF = features_NVF[valid_NV]
            self.network.standardise(features_XF)
            if from_crops:
                labels_X = self.labels[rows].unsqueeze(1).expand_as(valid_NV)[valid_NV]
                self.network.start_from(features_XF, labels_X, self.seed)
        if not self.settings.freeze_backbone and self.settings.warmup_epochs == 0:
            self._stored = None

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
