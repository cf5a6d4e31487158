"""From images to the classifier that does best on them, in a stated time."""
