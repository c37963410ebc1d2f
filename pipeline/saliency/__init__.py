"""Where in an image a prototype was found, where it came from, and what a score consists of."""
