"""Breakout platform: hourly crypto listings become labels, indicators, models, predictions and paper orders."""
