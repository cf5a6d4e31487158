"""One file per plugin, found by being here; installed as ``adaptkit_plugins``."""
