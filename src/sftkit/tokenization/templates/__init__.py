"""The source of chat templates: lexing, static analysis, and marking."""
