"""From a recipe's names to one record for each cell."""
