"""Pictures of a report, as SVG with a table each."""
