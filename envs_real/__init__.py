"""Real simulators: the true twins of the bundled dreams."""
