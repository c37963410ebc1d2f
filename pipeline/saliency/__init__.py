"""Where in an image a prototype was found, where it came from, and how a class score adds up."""
