"""What answers are worth, by the kind of task: losses, metrics, and what counts as right."""
