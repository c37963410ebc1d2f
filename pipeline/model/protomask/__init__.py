"""ProtoMask: its parameters and its network."""
