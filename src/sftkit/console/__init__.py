"""The only place that knows Rich: progress, tables, coloured tokens. Imported when something is to be shown."""
