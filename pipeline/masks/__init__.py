"""From images to masks: segmenters, and the store of their masks."""
