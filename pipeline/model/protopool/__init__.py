"""ProtoPool: its parameters and its network."""
