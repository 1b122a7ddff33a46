"""tunediff: what changed between a base language model and its fine-tuned derivative?

The public names are resolved on first use, so that importing the package loads no torch.
"""

__version__ = "0.1.0"
