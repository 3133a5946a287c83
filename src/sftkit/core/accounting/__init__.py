"""What the row log counts besides rows."""
