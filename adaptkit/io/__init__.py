"""Files, YAML, values, pictures: nothing here knows what a backbone is."""
