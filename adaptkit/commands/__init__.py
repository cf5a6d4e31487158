"""One module for each command of the command line: `command(options)` returns the exit code."""
