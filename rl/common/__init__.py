"""What every other package may use: errors, paths, whole files, seeds, threads, settings and the run log."""
