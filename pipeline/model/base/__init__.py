"""What models have in common: backbone, heads, losses, and how a model is saved."""
