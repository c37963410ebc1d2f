"""Black box baseline: its parameters and its network."""
