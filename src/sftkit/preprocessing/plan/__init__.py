"""What a run will do: data sets and handlers inferred from options and rows, work units, and what identifies a plan."""
