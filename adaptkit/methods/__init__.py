"""The contract of a method, the task it may learn from, and the tools that several methods share."""
