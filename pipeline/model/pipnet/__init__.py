"""PIP-Net: its parameters and its network."""
