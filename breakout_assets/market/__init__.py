"""Where snapshots come from, how they are stored, and whether to believe them."""
