"""THE HOT PATH: every token metric of both models, in one pass over one set of weights."""
