"""The configuration: dataclasses, how they are read from files and the command line, and what is wrong with them."""
