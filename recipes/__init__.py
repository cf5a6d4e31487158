"""Recipes as package data: ``adaptkit run quickstart`` finds ``quickstart.yaml`` here."""
