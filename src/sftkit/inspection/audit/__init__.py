"""Audits the rows of shards, whichever tool wrote them."""
