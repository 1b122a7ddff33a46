"""What do the numbers mean? Estimates from rows, and verdicts from estimates.

NumPy alone (scipy inside functions); nothing here knows a model.
"""
