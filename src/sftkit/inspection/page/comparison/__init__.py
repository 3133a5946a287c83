"""The page of a comparison of two data sets."""
