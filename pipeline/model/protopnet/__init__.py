"""ProtoPNet: its parameters and its network."""
