"""An adapted method as a folder that answers pictures."""
