"""The finished model and the stores it was made from, checked to belong together."""

from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.crops.store import CropStore
from pipeline.datasets.index import Index
from pipeline.errors import ProtoMaskError, rerun
from pipeline.masks.store import MaskStore
from pipeline.model.base.network import PrototypeNetwork
from pipeline.model.base.saved import About, load_model
from pipeline.saliency.prototypes import Prototypes
from pipeline.saliency.stored_outputs import StoredOutputs
from pipeline.training.prototype_sources import read_sources
from stages import provenance
from stages.params import Params
from stages.workspace import Workspace


@dataclass(frozen=True)
class Finished:
    """What all stages up to fine-tuning have made.

    Args:
        workspace: where all of it lies.
        index: the images of all splits, with their annotations.
        crops: their crops, as the model sees them.
        network: the fine-tuned model, in evaluation mode, on the CPU.
        about: its classes and crop settings.
    """

    workspace: Workspace
    index: Index
    crops: CropStore
    network: PrototypeNetwork
    about: About

    @classmethod
    def read(cls, workspace: Workspace) -> "Finished":
        """Opens a workspace's outputs.

        Args:
            workspace: where they lie.

        Raises:
            ProtoMaskError: something is missing, damaged or made from something else.
        """
        index, crops = workspace.read_index(), CropStore(workspace.crops)
        network, about = load_model(workspace.finetune)
        about.refuse_unless(index.image_files)
        crops.refuse_unless(about.crops, index.image_files)
        return cls(workspace, index, network.seen(crops), network, about)

    def refuse_unless_made_with(self, params: Params) -> None:
        """Checks that the model and all that it was made from were made with these parameters.

        Raises:
            ProtoMaskError: they were not.
        """
        made_with = {"prepare": self.index.made_with, **self.about.made_with}
        provenance.refuse_contradictions(made_with, params, self.workspace.finetune, "finetune")

    def refuse_unless_evaluated_with(self, params: Params) -> None:
        """Checks that the metrics, too, were made with these parameters.

        Raises:
            ProtoMaskError: they or the model were not.
        """
        self.refuse_unless_made_with(params)
        made_with = provenance.read_made_with(self.workspace.made_with)
        provenance.refuse_contradictions(made_with, params, self.workspace.evaluate, "evaluate")

    def masks(self) -> MaskStore:
        """Opens the masks that the crops were cut from.

        Raises:
            ProtoMaskError: the store is missing, damaged or another one.
        """
        masks = MaskStore(self.workspace.masks)
        if self.crops.about["masks"] != masks.about["sha256"]:
            raise ProtoMaskError(
                f"{self.workspace.crops} was cut from other masks than those in "
                f"{self.workspace.masks}: {rerun('crops')}"
            )
        return masks

    def prototypes(self) -> Prototypes:
        """Returns the model's prototypes with where each came from."""
        sources = read_sources(self.workspace.finetune / "prototypes.csv")
        names, ids = self.index.class_names, self.index.ids
        return Prototypes.of(self.network, sources, names, ids, self.crops.settings.side)

    def outputs(self) -> StoredOutputs:
        """Reads what the model says of the test images.

        Raises:
            ProtoMaskError: the file is missing or damaged.
        """
        path = self.workspace.evaluate / "answers.safetensors"
        try:
            found = load_file(path)
            names = ("logits_NC", "similarity_NP", "view_NP")
            logits_NC, similarity_NP, view_NP = (np.asarray(found[name]) for name in names)
        except (OSError, KeyError, SafetensorError) as error:
            raise ProtoMaskError(f"{path} cannot be read ({error}): {rerun('evaluate')}") from None
        rows_N = self.index.rows("test")
        return StoredOutputs(rows_N, self.index.labels[rows_N], logits_NC, similarity_NP, view_NP)
