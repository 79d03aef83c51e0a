"""Reports as text and JSON, all written from the same objects."""
