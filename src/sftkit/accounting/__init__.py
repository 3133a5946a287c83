"""What came of every row: how many may be bad, which are, whether it all adds up, and the manifest that says so."""
