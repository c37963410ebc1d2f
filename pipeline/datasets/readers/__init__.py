"""The data sets, a module or a package each, registered under the name that presets use."""
