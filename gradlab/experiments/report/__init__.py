"""From frames to verdicts and pages: the claims, the rules that judge them, and their words."""
