"""Model files: written whole, verified before use, found by stage."""
