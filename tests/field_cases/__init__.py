"""Cases of public bug reports, each as a test of what should happen."""
