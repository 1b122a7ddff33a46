"""WHAT IF: studies that call training, measuring and findings."""
