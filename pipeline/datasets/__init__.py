"""From a data set's folder of images to the index."""
