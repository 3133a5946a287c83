"""Which characters of the contents of messages carry a loss, and where they are in a rendered text."""
