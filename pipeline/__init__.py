"""ProtoMask: segmentation-guided prototype learning.

The packages are named in the order in which data flows through them; each imports only from those
before it: datasets, masks, crops, model, training, saliency, metrics, report, study.
"""
