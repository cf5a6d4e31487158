"""The options of every command, apart from what the commands do, so that ``--help`` answers at once."""
