"""The parameters of training, push, fine-tuning and pruning, and where it all runs."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TrainSettings(BaseModel):
    """How a model is trained (method.md, "Training" and "Published settings").

    Args:
        epochs: joint epochs.
        warmup_epochs: epochs before them in which the backbone stands still.
        freeze_backbone: it stands still in the joint epochs as well.
        augment: augment the crops; without it, a backbone that stands still sees each crop once.
        batch_size: images a batch.
        accumulate: batches whose gradients are added up for one step.
        lr_backbone, lr_projection: Adam's learning rates of f and W.
        lr_prototypes: that of the prototypes and of who chooses them; of the classifier in models
            whose prototypes are not vectors.
        start: what W and the prototypes are at first: `random`, or, found in the training `crops`,
            linear discriminants and the centres of each class.
        step_size: joint epochs after which the learning rates are halved, again and again.
        loss: the weights of the terms of the model's loss (`loss_terms` of its settings), besides
            `cross_entropy`, which weighs 1 unless it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=0)] = 100
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    freeze_backbone: bool = False
    augment: bool = True
    batch_size: Annotated[int, Field(ge=1)] = 16
    accumulate: Annotated[int, Field(ge=1)] = 4
    lr_backbone: Fraction = 6e-5
    lr_projection: Fraction = 1e-3
    lr_prototypes: Fraction = 3e-3
    start: Literal["random", "crops"] = "random"
    step_size: Annotated[int, Field(ge=1)] = 35
    loss: dict[str, Fraction] = {"cluster": 0.8, "separation": 0.2, "diversity": 0.2}


class FinetuneSettings(BaseModel):
    """How V is fine-tuned.

    Args:
        epochs: passes over the training images.
        lr: Adam's learning rate.
        batch_size: images a step.
        penalty: weight of Σ|V_cj| over the classes that prototype j is not of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int, Field(ge=0)] = 10
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    batch_size: Annotated[int, Field(ge=1)] = 16
    penalty: Fraction = 1e-3


class PruneSettings(BaseModel):
    """Which prototypes are dropped after the push.

    Args:
        enabled: whether any is.
        nearest: k, how many nearest training images are looked at.
        threshold: a prototype with fewer of its own class among them goes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool = False
    nearest: Annotated[int, Field(ge=1)] = 6
    threshold: Annotated[int, Field(ge=0)] = 3


class Runtime(BaseModel):
    """What differs from machine to machine; no stage tracks it.

    Args:
        device: `auto` takes a GPU where there is one.
        devices: how many of them the stage `train` uses, a process each; on a CPU, how many
            processes. They share out the `train.accumulate` batches of a step, so no more than that
            many, and compute what one computes, up to rounding. For more than one machine start
            `torchrun … -m stages train` on each, whose processes count instead.
        workers: processes or threads that segment, read and cut.
        weights: a file with the segmenter's weights; null downloads them once for this user.
        masks: for the segmenter `import`, the masks to read.
        memory_fraction: the share of the device's memory that segmenting may use.
        compile: compile the segmenter's networks before the first image, and the backbone where it
            is trained; on a CPU, this takes a C++ compiler.
        scheduler: whose workers segment: `tcp://HOST:PORT` of a Dask scheduler, or `local:N` for N
            processes; null segments without Dask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(ge=1)] = 1
    workers: Annotated[int, Field(ge=1)] = 2
    weights: str | None = None
    masks: str | None = None
    memory_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    compile: bool = False
    scheduler: str | None = None

    @field_validator("scheduler")
    @classmethod
    def _scheduler_is_known(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"local:[1-9]\d*|(tcp|tls)://[^/\s]+:\d+", value):
            return value
        raise ValueError(
            "should be null, local:N for N processes, or an address such as tcp://HOST:8786, "
            f"but is {value!r}"
        )
