"""ProtoMask: segmentation-guided prototype learning.

The packages, in the order in which data flows through them; each imports only from those before it:
datasets, masks, crops, model, training, saliency, metrics, report, study.
"""

__version__ = "0.2.0"
