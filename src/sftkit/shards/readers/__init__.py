"""Files of rows in the formats of several tools, all read in the same way: by groups of rows, as Arrow tables."""
