"""From masks to crops: extraction, and the store that is read in random order while training."""
