"""Labels and indicators: what a model learns from."""
