"""Row accounting of a run: what became of every row, in counts, in the quarantine and in the manifest."""
