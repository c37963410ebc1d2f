"""Training of a model on a crop store: warm-up, joint training, push, fine-tuning, pruning."""
