"""One module per family of methods; each function holds one method against one form of golden."""
