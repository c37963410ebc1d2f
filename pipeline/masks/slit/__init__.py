"""SLIT: regions between the boundaries that a network sees."""
