"""Every method against the answers of its paper's own code."""
