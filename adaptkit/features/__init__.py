"""What is read of an item, computed once and remembered under its whole provenance."""
