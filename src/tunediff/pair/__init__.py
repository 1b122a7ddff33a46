"""WHO IS ASKED: base and tuned opened together, since only then can they share weights."""
