"""The keys of a recipe that say where, with how much at once and how exactly the towers work."""

MACHINE_KEYS = ("device", "batch_size", "workers", "precision")
