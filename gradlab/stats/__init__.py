"""Statistics: intervals, tests and agreement. Nothing here knows what the numbers are about."""
