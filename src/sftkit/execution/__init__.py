"""Who runs the tasks of a run: this process, processes of this machine, or those of a Ray cluster."""
