"""What happened to every row: the balance, the quarantine, and the manifest."""
