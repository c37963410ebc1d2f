"""Parts that are the same in every image: clusters of a frozen backbone's features."""
