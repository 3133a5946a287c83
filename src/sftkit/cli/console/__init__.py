"""Output on the terminal: tables, rows, progress. The only code that uses Rich."""
