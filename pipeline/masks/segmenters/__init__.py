"""The segmenters, a module or a package each, registered under the name that presets use."""
