"""Short explanations of the numbers in metrics.json, for readers who do not know the papers."""

from typing import Literal, NamedTuple

from pipeline.saliency.views import Kind

UNDEFINED = "_undefined"
EXPLANATIONS = {"prp": "PRP", "grad": "gradient"}
OWN = {"crops": "mask", "cells": "similarity map", "image": "gradient"}
"""What the explanation `mask` denotes, by the kind of a model's views."""
CONTROLS = {"random_weights": "random weights", "random_prototypes": "random prototypes"}

Better = Literal["higher", "lower", "depends"]


class Note(NamedTuple):
    """How to read a metric.

    Args:
        label: the metric's name in the report.
        unit: unit or range of the number as written to metrics.json.
        better: which direction is better; `depends` if neither is.
        meaning: a description of the metric in one sentence.
    """

    label: str
    unit: str
    better: Better
    meaning: str


GROUPS = {
    "general": "Is it right?",
    "compactness": "How much is there to read?",
    "contrastivity": "Do different prototypes say different things?",
    "complexity": "Is what it looks at on the object?",
    "continuity": "Does a slightly changed photograph get the same explanation?",
    "completeness": "Is what it shows all that it used?",
    "segmentation": "What are the masks like, before anything is learned from them?",
    "truth": "Does it look where the classes are known to differ?",
}

SHARE, PERCENT = "0 to 1", "%"

NOTES: dict[str, dict[str, Note]] = {
    "general": {
        "accuracy": Note("Accuracy", SHARE, "higher", "Share of test images named right."),
        "balanced_accuracy": Note(
            "Balanced accuracy", SHARE, "higher", "The same, with every class counting equally."
        ),
        "top3_accuracy": Note(
            "Top-3 accuracy", SHARE, "higher", "Share with the right class among the first three."
        ),
        "balanced_top3_accuracy": Note(
            "Balanced top-3 accuracy", SHARE, "higher", "The same, every class counting equally."
        ),
        "f1_macro": Note(
            "Macro F1",
            SHARE,
            "higher",
            "Harmonic mean of precision and recall, averaged over the classes.",
        ),
        "balanced_f1_macro": Note(
            "Balanced macro F1", SHARE, "higher", "The same, every class's images weighing equally."
        ),
    },
    "compactness": {
        "global_size": Note(
            "Global size", "prototypes", "lower", "Prototypes with a positive weight to any class."
        ),
        "sparsity": Note(
            "Sparsity", PERCENT, "higher", "Share of the weights that are zero and need no reading."
        ),
        "npr": Note(
            "NPR", "ratio", "lower", "Weights that argue against a class, for each that argues for."
        ),
        "local_size": Note(
            "Local size", "prototypes", "lower", "Prototypes that are noticeably like one image."
        ),
    },
    "contrastivity": {
        "vlc": Note(
            "Location change", PERCENT, "higher", "How little an image's prototypes overlap in it."
        ),
        "vac": Note(
            "Activation change", PERCENT, "higher", "How differently its saliency maps are filled."
        ),
        "intra_pd": Note(
            "Prototype distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the prototypes that explain one image are.",
        ),
        "inter_pd": Note(
            "Prototype distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the prototypes of images of different classes are.",
        ),
        "intra_fd": Note(
            "Crop distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the crops used in one image are.",
        ),
        "inter_fd": Note(
            "Crop distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the crops used in images of different classes are.",
        ),
        "entropy": Note(
            "Entropy",
            "bits, 0 to 1",
            "lower",
            "How evenly a prototype's similarities spread; low: clearly there, or clearly not.",
        ),
    },
    "complexity": {
        "object_overlap": Note(
            "Object overlap", PERCENT, "higher", "Share of the object that a prototype covers."
        ),
        "background_overlap": Note(
            "Background overlap", PERCENT, "lower", "Share of what it covers that is background."
        ),
        "iou": Note("IoU", PERCENT, "higher", "Overlap of the two, over their union."),
        "ior": Note(
            "IOR", "−1 to 1", "higher", "Mean saliency on the object minus that outside it."
        ),
        "oirr": Note("OIRR", "ratio", "lower", "Mean saliency outside the object over that on it."),
        "consistency": Note(
            "Consistency", PERCENT, "higher", "How often a prototype meets the same part again."
        ),
    },
    "continuity": {
        "vlc": Note("Location change", PERCENT, "lower", "How far a prototype's saliency moves."),
        "vac": Note("Activation change", PERCENT, "lower", "How differently its map is filled."),
        "plc": Note(
            "Crop change", "crops", "lower", "How far the number of its nearest crop moves."
        ),
        "psc": Note("Similarity change", PERCENT, "lower", "How much its similarity changes."),
        "prc": Note(
            "Rank change", "ranks", "lower", "How many places it rises or falls among all."
        ),
        "palc": Note(
            "Similarity map location", PERCENT, "lower", "How far the crops most like it move."
        ),
        "pac": Note(
            "Similarity map values", PERCENT, "lower", "How much its similarities to crops change."
        ),
        "cac": Note("Class scores", PERCENT, "lower", "How much the class scores change."),
        "crc": Note(
            "Class rank", "rank", "lower", "New rank of the class that came first; 0 is first."
        ),
        "stability": Note(
            "Stability", PERCENT, "higher", "Share of the parts hit that are hit again."
        ),
    },
    "segmentation": {
        "masks": Note("Masks", "an image", "depends", "How many masks the segmenter finds."),
        "area_median": Note(
            "Median area", PERCENT, "depends", "Half of an image's masks take more of it than this."
        ),
        "object_coverage": Note(
            "Object coverage", PERCENT, "higher", "Share of the object under the crops' masks."
        ),
        "mask_consistency": Note(
            "Mask consistency", PERCENT, "higher", "How often a class's masks show the same parts."
        ),
    },
    "truth": {
        "purity": Note(
            "Purity", PERCENT, "higher", "Share of a prototype's saliency on a single part."
        ),
        "part_agreement": Note(
            "Part agreement", PERCENT, "higher", "How often a prototype is found on the same part."
        ),
        "discrimination": Note(
            "Discrimination",
            PERCENT,
            "higher",
            "Share of the evidence on parts that tell the class from the runner-up.",
        ),
        "deletion_on": Note(
            "Deletion, on it",
            PERCENT,
            "higher",
            "How much a similarity changes when its own part is replaced.",
        ),
        "deletion_off": Note(
            "Deletion, off it", PERCENT, "lower", "And how much when another part is."
        ),
        "deletion_auc": Note(
            "Deletion AUC",
            PERCENT,
            "higher",
            "How well these changes tell which part was replaced; 50 is chance.",
        ),
    },
}
NOTES["completeness"] = {
    name: NOTES["continuity"][name] for name in "vlc vac plc psc prc palc pac".split()
}

OF_CELLS: dict[str, dict[str, Note]] = {
    "contrastivity": {
        "intra_fd": Note(
            "Cell distance within",
            "cosine, 0 to 2",
            "higher",
            "How different the cells used in one image are.",
        ),
        "inter_fd": Note(
            "Cell distance between",
            "cosine, 0 to 2",
            "higher",
            "How different the cells used in images of different classes are.",
        ),
    },
    "continuity": {
        "plc": Note(
            "Cell change", "cells", "lower", "How far its most similar cell moves, down and across."
        ),
        "palc": Note(
            "Similarity map location", PERCENT, "lower", "How far the cells most like it move."
        ),
        "pac": Note(
            "Similarity map values", PERCENT, "lower", "How much its similarities to cells change."
        ),
    },
}
"""Notes that differ if prototypes are compared with cells."""
OF_CELLS["completeness"] = {name: OF_CELLS["continuity"][name] for name in ("plc", "palc", "pac")}

UNKNOWN = Note("", "", "depends", "")


class Name(NamedTuple):
    """The components of a metric's name in metrics.json.

    Args:
        metric: name of the metric within its group, such as `purity`.
        explanation: the explanation that drew the saliency maps: `prp`, `grad`, or "" for `mask`.
        control: the untrained control model that was measured, "" for the trained model.
        undefined: whether the number counts the images for which the metric is undefined.
    """

    metric: str
    explanation: str
    control: str
    undefined: bool


def taken_apart(name: str) -> Name:
    """Splits a metric's name into its components: `purity_prp_random_weights_undefined`.

    Args:
        name: name of the number within its group in metrics.json.

    Returns:
        The components; a name without suffixes is returned as `metric`.
    """
    metric, undefined = name.removesuffix(UNDEFINED), name.endswith(UNDEFINED)
    control = next((control for control in CONTROLS if metric.endswith(f"_{control}")), "")
    metric = metric.removesuffix(f"_{control}")
    explanation = next((rule for rule in EXPLANATIONS if metric.endswith(f"_{rule}")), "")
    return Name(metric.removesuffix(f"_{explanation}"), explanation, control, undefined)


def note_on(group: str, name: str, kind: Kind = "crops") -> Note:
    """Returns how to read a metric; an unknown one is labelled with its own name.

    Args:
        group: name of the metric's group, such as `continuity`.
        name: name of the number within its group in metrics.json.
        kind: the kind of the model's views: `crops`, `cells` or `image`.
    """
    metric = taken_apart(name).metric
    if kind == "cells" and metric in OF_CELLS.get(group, {}):
        return OF_CELLS[group][metric]
    return NOTES.get(group, {}).get(metric, UNKNOWN._replace(label=metric.replace("_", " ")))
