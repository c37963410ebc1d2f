"""SAM 2's automatic mask generation: the published generator, and a batched one."""
