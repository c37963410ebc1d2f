"""artifacts/train/ → artifacts/push/: prototypes that are training crops."""

from safetensors.torch import save_file

from pipeline.crops.store import CropStore
from pipeline.files import whole_folder
from pipeline.model.base.saved import load_model, save_model
from pipeline.training.devices import make_fabric
from pipeline.training.prototype_record import write_record
from pipeline.training.push import push_prototypes
from stages import provenance, workspace
from stages.params import read_params


def run() -> None:
    params = read_params(workspace.PARAMS)
    index, store = workspace.read_index(), CropStore(workspace.CROPS)
    network, about = load_model(workspace.TRAIN)
    about.refuse_unless(index.photographs)
    provenance.refuse_contradictions(about.made_with, params, workspace.TRAIN, "train")
    store.refuse_unless(about.crops, index.photographs)
    record, similarity_NP = push_prototypes(
        network,
        index,
        network.seen(store),
        make_fabric(params.runtime, about.precision),
        workspace.features(params),
    )
    with whole_folder(workspace.PUSH) as folder:
        save_model(folder, network, about)
        write_record(record, folder / "prototypes.csv")
        save_file({"similarity": similarity_NP}, folder / "similarities.safetensors")
    distinct = len(record.drop_duplicates(["image", "crop", "cell"]))
    print(f"{len(record)} prototypes from {distinct} different places")
