"""From a folder of photographs to the index of images."""
