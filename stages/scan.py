"""dataset.root → artifacts/listing.json: what is there now; without a root, fetched first."""

import hashlib
import json

from pipeline.datasets.dataset import DATASETS
from pipeline.datasets.fetch import fetch
from pipeline.datasets.listing import hash_files, look_through
from pipeline.datasets.remarks import counted, summarised
from pipeline.files import atomic_file
from stages.workspace import Workspace


def run(workspace: Workspace) -> None:
    params = workspace.read_params()
    published = DATASETS[params.dataset.name].publication
    if params.dataset.root is None and published is not None:
        fetch(params.dataset.name, published)
    root = workspace.images_root(params)
    name = hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]
    cache = workspace.cache / "listings" / f"{name}.parquet"
    contents = look_through(root)
    listing = hash_files(root, contents, cache, params.runtime.workers)
    with atomic_file(workspace.listing) as part:
        part.write_text(json.dumps(listing, indent=0, ensure_ascii=False), encoding="utf-8")
    print(f"{len(contents.files)} files in {root}")
    for line in summarised(contents.passed_over):
        print(line)
    if contents.dangling:
        print(f"links to what is not there: {counted(contents.dangling)}")
