"""Statistics: intervals, tests and agreement. Nothing here knows what the numbers mean, or where they are stored."""
