"""Looking before and after: the imbalance of pairs before any training, samples to read after it."""
