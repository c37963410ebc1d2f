"""From crops to a trained model: warm-up, joint training, push, fine-tuning, pruning."""
