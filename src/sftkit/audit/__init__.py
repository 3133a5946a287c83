"""Checks of rows as a model will be trained on them: the rules, what correct rows look like, and what differs."""
