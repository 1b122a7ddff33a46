"""How are the embedded specimens made?

``world`` generates the text, ``base`` trains the base model on it, ``adapters`` derives the tuned
models of known ground truth, ``measured`` asks them; ``tools/build_specimens.py`` is the command.
"""
