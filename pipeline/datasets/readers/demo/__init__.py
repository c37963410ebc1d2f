"""The built-in data set: `data_set` reads and draws it, the others draw its details."""
