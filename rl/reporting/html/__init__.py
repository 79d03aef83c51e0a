"""Reports as HTML: one file each, without outside links, from the same values as the JSON reports."""
