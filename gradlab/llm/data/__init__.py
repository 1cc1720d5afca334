"""Preference pairs: read from files and hubs, made into tokens, dealt into batches."""
