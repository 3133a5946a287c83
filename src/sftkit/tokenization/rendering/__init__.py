"""From conversations to text: the Jinja2 reference, and minijinja where it renders the same text."""
