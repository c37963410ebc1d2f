"""artifacts/train/ → artifacts/push/: prototypes that are training crops."""

import numpy as np
from safetensors.torch import save_file

from pipeline.crops.store import CropStore
from pipeline.files import atomic_folder
from pipeline.model.base.saved import load_model, save_model
from pipeline.training import learning
from pipeline.training.fabric import make_fabric
from pipeline.training.prototype_sources import write_sources
from pipeline.training.push import push_prototypes
from stages import provenance
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    index, store = workspace.read_index(), CropStore(workspace.crops)
    network, about = load_model(workspace.train)
    about.refuse_unless(index.image_files)
    provenance.refuse_contradictions(about.made_with, params, workspace.train, "train")
    store.refuse_unless(about.crops, index.image_files)
    sources, similarity_NP, validation_NP = push_prototypes(
        network,
        index,
        network.seen(store),
        make_fabric(params.runtime, about.precision),
        workspace.feature_cache(params),
    )
    doubts = []
    if network.pushes:
        rows = index.rows("train")
        crops_N = network.seen(store).valid[rows].sum(axis=1)
        crops_C = np.bincount(index.labels[rows], crops_N).astype(np.int64)
        doubts = learning.doubts_of_push(sources, crops_C, similarity_NP)
    with atomic_folder(workspace.push) as folder:
        save_model(folder, network, about.model_copy(update={"not_learned": doubts}))
        write_sources(sources, folder / "prototypes.csv")
        similarities = {"similarity": similarity_NP, "validation": validation_NP}
        save_file(similarities, folder / "similarities.safetensors")
    distinct = len(sources.drop_duplicates(["image", "crop", "cell"]))
    print(f"{len(sources)} prototypes from {distinct} different places")
    if doubts:
        print(learning.said(doubts))
