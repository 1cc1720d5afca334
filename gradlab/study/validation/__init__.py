"""Validation of the human study: simulated raters of known error, through the whole path from plan to verdict."""
