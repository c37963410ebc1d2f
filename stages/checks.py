"""What can be said of an experiment's settings without its data, before anything is computed.

The stages before the training do not import the code of models, so that DVC runs none of them again
when that changes. The command line asks here instead, whichever stage is the first to run.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from pipeline.files import atomic_file
from stages.params import Params
from stages.workspace import Workspace


def refuse_unusable_backbone(workspace: Workspace) -> None:
    """Checks that there is the backbone, that its file of weights fits it, and that it takes crops
    of this size.

    What was found good is cached, so that later stages do not build the network again. Published
    weights are not downloaded here: the machine that segments need not be the one that trains.

    Raises:
        ProtoMaskError: the parameters are wrong, or one of these is not so.
    """
    params = workspace.read_params()
    weights = workspace.weights(params)
    good = workspace.cache / "checked" / _key(params, weights)
    if good.exists():
        return
    from pipeline.backbone.backbone import Backbone  # takes seconds to import

    backbone = Backbone(params.model.backbone, "none" if weights == "imagenet" else weights)
    backbone.channels(params.model.feature_stages)
    backbone.grid(params.crops.side)
    with atomic_file(good) as part:
        part.touch()


def _key(params: Params, weights: str) -> str:
    """Names all that decides whether the backbone can be used."""
    file = Path(weights).stat() if Path(weights).is_file() else None
    decides = [
        params.model.backbone,
        weights,
        (file.st_size, file.st_mtime_ns) if file else None,
        params.crops.side,
        params.model.feature_stages,
        version("timm"),
    ]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]
