"""visit-mini: the embedded model, its world, its training and its measures."""
