"""The parameters of training, push, fine-tuning and pruning, and of the runtime environment."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.model.base.settings import Precision

Fraction = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LARGEST_RATE = 1e30
"""Of ten times a learning rate, which is what Adam computes with, there must be a float32."""


def _with_steps(rate: float) -> float:
    if rate > LARGEST_RATE:
        raise ValueError(f"should be at most {LARGEST_RATE:g}, but is {rate:g}")
    return rate


Rate = Annotated[Fraction, AfterValidator(_with_steps)]
"""A learning rate."""


class TrainSettings(BaseModel):
    """The parameters of training (docs/method.md, "Training" and "Published settings").

    Args:
        precision: what the backbone computes features in, in training and later on. On a GPU `tf32`
            (factors are rounded to 10 bits) is faster than `float32`, and `bfloat16` faster still,
            with slightly different results; a CPU computes `tf32` in float32.
        epochs: number of joint epochs.
        warmup_epochs: number of epochs before the joint ones, with a frozen backbone.
        freeze_backbone: whether the backbone stays frozen in the joint epochs as well.
        freeze_until: number of the backbone's stages, from the first, that stay frozen in the joint
            epochs; 0 trains all of it.
        batch_norm: what the backbone's batch norms normalise by in the joint epochs: `batch` for
            the statistics of each batch, as published, or `frozen` for those that the pretrained
            backbone has, by which it begins the joint epochs with the features that the warm-up
            ended with.
        drop_crops: share, in [0, 1), of each image's crops that a step of the joint epochs leaves
            out, chosen by chance; what it leaves is rounded up. With 0 it has all, as published.
        augment: whether crops are augmented; without it, a frozen backbone computes the features of
            each crop once. A warm-up that starts from crops does so in any case.
        batch_size: number of images in a batch.
        accumulate: number of batches whose gradients are added up for one optimizer step.
        lr_backbone, lr_projection: Adam's learning rates of the backbone f and of W.
        lr_prototypes: Adam's learning rate of the prototypes and of their assignment to classes; of
            the classifier in models whose prototypes are not vectors.
        start: initialisation of W and the prototypes: `random`, or `crops` for linear discriminants
            and principal axes of the training crops' features, and class-wise cluster centres.
        step_size: the learning rates are halved every so many joint epochs.
        loss: weights of the terms of the model's loss (`loss_terms` of its settings) by name, and
            of `cross_entropy`, which is 1 unless given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: Precision
    epochs: Annotated[int, Field(ge=0)]
    warmup_epochs: Annotated[int, Field(ge=0)]
    freeze_backbone: bool
    freeze_until: Annotated[int, Field(ge=0)]
    batch_norm: Literal["batch", "frozen"]
    drop_crops: Annotated[float, Field(ge=0, lt=1)]
    augment: bool
    batch_size: Annotated[int, Field(ge=1)]
    accumulate: Annotated[int, Field(ge=1)]
    lr_backbone: Rate
    lr_projection: Rate
    lr_prototypes: Rate
    start: Literal["random", "crops"]
    step_size: Annotated[int, Field(ge=1)]
    loss: dict[str, Fraction]


class FinetuneSettings(BaseModel):
    """The parameters of the fine-tuning of V.

    Args:
        merge: whether prototypes of a class that are alike become one before.
        reach: the largest share, in [0, 1], of the training images of other classes that a
            prototype may be like. Its similarity to the image that comes next is its floor, which
            is subtracted from all its similarities; what is below counts as 0. 1: no floor.
        epochs: number of passes over the training images.
        lr: Adam's learning rate of V.
        batch_size: number of images in an optimizer step.
        sparsity: how the weights V_cj for classes c that prototype j does not belong to are held
            small. `penalty` adds λ·Σ|V_cj| over them to the loss; few become exactly 0.
            `proximal` moves each of them by lr·λ towards 0 after every optimizer step, where it
            stays unless the steps outgrow that, and own-class weights below 0 to 0. Adam's steps
            are about lr, whatever the size of the gradient; so λ ≥ 1 leaves hardly any of them.
        penalty: λ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    merge: bool
    reach: Annotated[float, Field(ge=0, le=1)]
    epochs: Annotated[int, Field(ge=0)]
    lr: Annotated[Rate, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=1)]
    sparsity: Literal["penalty", "proximal"]
    penalty: Fraction


class PruneSettings(BaseModel):
    """The parameters of pruning after the push (docs/method.md, "Pruning").

    Args:
        enabled: whether prototypes are pruned.
        nearest: k, the number of nearest training images that are considered.
        threshold: a prototype with fewer images of its own class among the nearest is removed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    enabled: bool
    nearest: Annotated[int, Field(ge=1)]
    threshold: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _can_be_passed(self) -> "PruneSettings":
        if self.threshold > self.nearest:
            raise ValueError(
                f"threshold is {self.threshold}, but of the {self.nearest} nearest images no more "
                "can be of a class"
            )
        return self


class Runtime(BaseModel):
    """Parameters that depend on the machine and change no output; no stage tracks them.

    Args:
        device: `cpu` or `cuda`; `auto` takes a GPU if there is one.
        engine: what computes the features of a frozen backbone on a CPU in float32: `openvino`,
            `pytorch`, or `auto` for OpenVINO where it is installed and the backbone has batch
            norms, which make it faster there.
        devices: number of devices that the stage `train` uses, with a process on each; on a CPU,
            number of processes. They share the `train.accumulate` batches of a step, so there can
            be no more than that, and the result is that of one process up to rounding. For more
            than one machine start `torchrun … -m stages train` on each: its processes count
            instead.
        workers: number of processes or threads that segment, read and crop images.
        weights: file with the segmenter's weights; null downloads them once for each user.
        masks: for the segmenter `import`, the masks to read.
        codebook: file with the codebook that `segmenter.codebook` names; null learns one, or finds
            the one that was learned on this machine.
        memory_fraction: share of the device's memory that segmentation may use, in (0, 1].
        compile: whether the segmenter's networks are compiled before the first image, and a
            trainable backbone before training; on a CPU this needs a C++ compiler.
        scheduler: where images are segmented: `tcp://HOST:PORT` of a Dask scheduler, or `local:N`
            for N processes; null segments without Dask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: Literal["auto", "cpu", "cuda"]
    engine: Literal["auto", "openvino", "pytorch"]
    devices: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=1)]
    weights: str | None
    masks: str | None
    codebook: str | None
    memory_fraction: Annotated[float, Field(gt=0, le=1)]
    compile: bool
    scheduler: str | None

    @field_validator("scheduler")
    @classmethod
    def _scheduler_is_known(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"local:[1-9]\d*|(tcp|tls)://[^/\s]+:\d+", value):
            return value
        raise ValueError(
            "should be null, local:N for N processes, or an address such as tcp://HOST:8786, "
            f"but is {value!r}"
        )
