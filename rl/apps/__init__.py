"""Applications built on the core; they do not import each other."""
