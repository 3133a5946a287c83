"""Checks of rows as a model will be trained on them: the rules, what right rows look like, and what differs."""
