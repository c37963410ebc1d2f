"""Pretrained networks, from images to feature maps; models and segmenters share them."""
