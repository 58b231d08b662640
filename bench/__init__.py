"""What each stage costs beside the published way of doing it, measured in one run: `make bench`."""
