"""Decisions, the order ledger, brokers and alerts."""
