"""The groups of metrics, a module each, registered under the module's name."""
