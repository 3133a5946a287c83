"""Tokens, loss masks, sequences and texts of rows, from the columns of whichever tool wrote them."""
