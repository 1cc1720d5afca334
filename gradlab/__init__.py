"""gradlab: see, test and settle what a preference loss really does to a policy."""

__version__ = "0.1.0"
