"""One language model: loaded, spread over processes, its log-probabilities, samples and memory."""
