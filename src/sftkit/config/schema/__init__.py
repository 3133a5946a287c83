"""The keys that all commands share, and the sections of a data config, as frozen dataclasses.

They and those of `sftkit.config.commands` define YAML keys, command line options, `--help` and the reference. A key
without a default is required. A key of type tuple accepts a list, or one value for a list of one.
"""
