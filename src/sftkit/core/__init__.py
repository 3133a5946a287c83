"""Used by all packages: rows, the row log, splits, progress, plugins, escaping, importing transformers."""
