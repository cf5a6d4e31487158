"""What stands behind a number: which images were answered wrong, as what, and how sure of it a method was."""
