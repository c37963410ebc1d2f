"""Pages and pictures for people: what was run, measured and decided, and why."""
