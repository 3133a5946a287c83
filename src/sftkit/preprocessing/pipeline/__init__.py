"""From a recipe and a work unit to staged rows: the part of preprocessing that runs in worker processes."""
