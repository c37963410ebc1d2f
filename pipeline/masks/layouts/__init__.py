"""The layouts of masks from elsewhere, a module each, which registers itself."""
