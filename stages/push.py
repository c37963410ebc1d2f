"""artifacts/train/ → artifacts/push/: prototypes that are training crops."""

import pandas as pd
import torch
from safetensors.torch import save_file

from pipeline.crops.store import CropStore
from pipeline.files import whole_folder
from pipeline.model.answers import answers
from pipeline.model.saved import load_model, save_model
from pipeline.training.devices import make_fabric
from pipeline.training.features import pooled_features
from pipeline.training.push import nearest_crops, push
from pipeline.training.record import write_record
from stages import workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    index, store = workspace.read_index(), CropStore(workspace.CROPS)
    network, about = load_model(workspace.TRAIN)
    about.refuse_unless(index.photographs)
    store.refuse_unless(about.crops, index.photographs)
    fabric = make_fabric(params.runtime)
    rows = index.rows("train")
    features = pooled_features(
        network, store, rows, fabric, workspace.features(params), index.rows("train", "val")
    )
    valid, labels = torch.from_numpy(store.valid[rows]), torch.from_numpy(index.labels[rows])
    nearest = nearest_crops(network, features, valid, labels)
    push(network, nearest)
    distances = answers(network, features, valid).distance_NP
    images = rows[nearest.image.numpy()]
    record = pd.DataFrame(
        {
            "prototype": range(len(images)),
            "class_name": [index.class_names[label] for label in network.class_of.tolist()],
            "image": index.table["id"].to_numpy()[images],
            "crop": nearest.crop.numpy(),
            "mask": store.masks[images, nearest.crop.numpy()],
            "distance": nearest.distance.numpy(),
        }
    )
    with whole_folder(workspace.PUSH) as folder:
        save_model(folder, network, about)
        write_record(record, folder / "prototypes.csv")
        save_file({"distance": distances}, folder / "distances.safetensors")
    distinct = len(record.drop_duplicates(["image", "crop"]))
    print(f"{len(record)} prototypes pushed onto {distinct} different crops")
