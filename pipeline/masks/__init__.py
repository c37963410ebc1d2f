"""From images to masks: segmenters, and the store that keeps what they found."""
