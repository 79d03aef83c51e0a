"""Speed beside other libraries, measured in turns in one run: `python -m benchmarks`."""
