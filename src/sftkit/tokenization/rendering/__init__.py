"""From conversations to text: Jinja2 as transformers uses it, and templates compiled to faster code."""
