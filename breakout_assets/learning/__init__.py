"""Recipes, splits, training, evaluation and model files."""
