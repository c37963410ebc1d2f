"""SAM 2's automatic mask generation: the published generator, and the same on batches."""
