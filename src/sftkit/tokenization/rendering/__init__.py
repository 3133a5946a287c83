"""Conversations -> text: the Jinja2 reference, and minijinja where it gives the same text."""
