"""The data handlers: what a data config may do to a row, one small module a family, one registry."""
