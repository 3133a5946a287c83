"""Reading a configuration from YAML files, command lines and Python values, and merging them."""
