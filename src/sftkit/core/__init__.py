"""Types that every package uses: rows, the row log, splits, progress, escaping."""
