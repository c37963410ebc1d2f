"""SLIT: regions between the boundaries found by a network."""
