"""artifacts/train/ → artifacts/push/: prototypes that are training crops."""

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from pipeline.crops.store import CropStore
from pipeline.files import whole_folder
from pipeline.model.base.inference import answers
from pipeline.model.base.network import views
from pipeline.model.base.saved import load_model, save_model
from pipeline.training.devices import make_fabric
from pipeline.training.features import stored_features
from pipeline.training.prototype_record import write_record
from pipeline.training.push import nearest_views, push
from stages import provenance, workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    index, store = workspace.read_index(), CropStore(workspace.CROPS)
    network, about = load_model(workspace.TRAIN)
    about.refuse_unless(index.photographs)
    provenance.refuse_contradictions(about.made_with, params, workspace.TRAIN, "train")
    store.refuse_unless(about.crops, index.photographs)
    fabric = make_fabric(params.runtime)
    rows, crops = index.rows("train"), network.seen(store)
    features = stored_features(
        network, crops, rows, fabric, workspace.features(params), index.rows("train", "val")
    )
    valid, labels = torch.from_numpy(crops.valid[rows]), torch.from_numpy(index.labels[rows])
    valid_NV = views(valid, features)
    nearest = nearest_views(network, features, valid_NV, labels)
    push(network, nearest)
    similarities = answers(network, features, valid_NV).similarity_NP
    images = rows[nearest.image.numpy()]
    crop, cell = np.divmod(nearest.view.numpy(), features.shape[1] // valid.shape[1])
    record = pd.DataFrame(
        {
            "prototype": range(len(images)),
            "class_name": [index.class_names[label] for label in network.class_of.tolist()],
            "image": index.table["id"].to_numpy()[images],
            "crop": crop,
            "cell": cell,
            "mask": crops.masks[images, crop],
            "distance": nearest.distance.numpy(),
        }
    )
    with whole_folder(workspace.PUSH) as folder:
        save_model(folder, network, about)
        write_record(record, folder / "prototypes.csv")
        save_file({"similarity": similarities}, folder / "similarities.safetensors")
    distinct = len(record.drop_duplicates(["image", "crop", "cell"]))
    print(f"{len(record)} prototypes from {distinct} different places")
