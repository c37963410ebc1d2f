"""CaBRNet's ProtoPNet by its own command line, in an environment of its own.

Its parameters are ProtoMask's of the same name, from `params.yaml`'s settings; what it has besides
is as CaBRNet proposes it.
"""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from costs import Cost, measured, refuse_failure

from stages.params import Params

VERSION = "1.2"
BELOW = (3, 13)
"""The version of Python that it cannot be installed for."""
SPLITS = {"train": "train_set", "val": "val_set", "test": "test_set"}


def installed(environment: Path) -> Path:
    """Returns the program `cabrnet` of a virtual environment, which is made if it is not there.

    It gets the versions of PyTorch and torchvision that ProtoMask computes with.
    """
    program = environment.resolve() / "bin" / "cabrnet"
    if program.exists():
        return program
    if sys.version_info >= BELOW:
        sys.exit(f"CaBRNet {VERSION} wants a Python below {'.'.join(map(str, BELOW))}")
    print(f"installing CaBRNet {VERSION} into {environment}: takes minutes", flush=True)
    same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
    python = str(environment / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(environment)],
        [python, "-m", "pip", "install", "-q", f"cabrnet=={VERSION}", *same],
    ):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        refuse_failure(done.returncode, command, done.stdout)
    return program


class CaBRNet(NamedTuple):
    """Runs of a ProtoPNet.

    Args:
        program: the command `cabrnet`.
        photographs: a folder with train/, val/ and test/, and in each a folder a class.
        params: ProtoMask's parameters, with those of `model=protopnet`.
        folder: where its files are written to.
    """

    program: Path
    photographs: Path
    params: Params
    folder: Path

    def start(self) -> Cost:
        """Starts, and does nothing."""
        return self._run("--version")

    def train(self, name: str, finetune_epochs: int) -> Cost:
        """Trains and pushes, and leaves the model in the folder of this name.

        Without epochs of fine-tuning there is one push, at the end; with them there is another
        before them, as CaBRNet does it.
        """
        epochs = self.params.train.epochs
        projection = {
            "start_epoch": epochs - 1 if finetune_epochs else epochs,
            "frequency": epochs,
            "num_ft_epochs": finetune_epochs,
        }
        files = {
            "--model-arch": self._model(),
            "--dataset": self._data(),
            "--training": self._training(projection),
        }
        words = []
        for option, content in files.items():
            path = self.folder / f"{name}{option}.yml"
            path.write_text(yaml.safe_dump(content, sort_keys=False))
            words += [option, str(path)]
        best = ("--save-best", "val_set/accuracy", "max")
        return self._run("train", *words, *best, "--output-dir", name)

    def evaluate(self, name: str) -> Cost:
        """Measures the finished model of this name on the test images."""
        return self._run("evaluate", "--checkpoint-dir", f"{name}/final")

    def _run(self, *words: str) -> Cost:
        device = () if words == ("--version",) else ("--device", "cpu")
        return measured([str(self.program), *words, *device], self.folder, PYTHONPATH="")

    def _model(self) -> dict[str, Any]:
        settings = self.params.model.model_dump()
        D = settings["embedding_dim"]
        convolution = {"type": "Conv2d", "params": {"out_channels": D, "kernel_size": 1}}
        head = {
            "num_classes": len(list((self.photographs / "train").iterdir())),
            "num_features": D,
            "num_proto_per_class": settings["prototypes_per_class"],
        }
        package = "cabrnet.archs.protopnet"
        return {
            "extractor": {
                "backbone": {"arch": settings["backbone"], "weights": "None", "layer": "layer4"},
                "add_on": {"conv": convolution, "sigmoid": {"type": "Sigmoid"}},
            },
            "classifier": {
                "module": f"{package}.decision",
                "name": "ProtoPNetClassifier",
                "params": head,
            },
            "similarity": {
                "name": "ProtoPNetSimilarity",
                "params": {"stability_factor": settings["epsilon"]},
            },
            "top_arch": {"module": f"{package}.model", "name": "ProtoPNet"},
        }

    def _data(self) -> dict[str, Any]:
        side = self.params.crops.side
        transform = {
            "resize": {"type": "Resize", "params": {"size": [side, side]}},
            "to_tensor": {"type": "ToTensor"},
            "normalize": {
                "type": "Normalize",
                "params": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            },
        }

        def images(split: str, shuffle: bool) -> dict[str, Any]:
            root = str(self.photographs.resolve() / split)
            return {
                "module": "torchvision.datasets",
                "name": "ImageFolder",
                "params": {"root": root, "transform": transform},
                "batch_size": self.params.train.batch_size,
                "shuffle": shuffle,
            }

        sets = {name: images(split, split == "train") for split, name in SPLITS.items()}
        return {**sets, "projection_set": images("train", False)}

    def _training(self, projection: dict[str, int]) -> dict[str, Any]:
        train = self.params.train
        rates = {
            "backbone": train.lr_backbone,
            "add_on": train.lr_projection,
            "prototypes": train.lr_prototypes,
        }
        groups = {name: {"lr": rate} for name, rate in rates.items()}
        last = {"last_layer": {"lr": self.params.finetune.lr}}
        return {
            "num_epochs": train.epochs,
            "param_groups": {
                "backbone": "extractor.convnet",
                "add_on": "extractor.add_on",
                "prototypes": "classifier.prototypes",
                "last_layer": "classifier.last_layer",
            },
            "optimizers": {
                "main": {"type": "Adam", "groups": groups},
                "last_layer_optimizer": {"type": "Adam", "groups": last},
            },
            "periods": {
                "all": {
                    "epoch_range": [0, train.epochs - 1],
                    "freeze": "last_layer",
                    "optimizers": "main",
                }
            },
            "auxiliary_info": {
                "loss_coefficients": {
                    "clustering": train.loss["cluster"],
                    "separability": -train.loss["separation"],
                    "regularization": self.params.finetune.penalty,
                },
                "projection_config": projection,
            },
        }
