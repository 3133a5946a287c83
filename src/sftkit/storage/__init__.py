"""Files on this machine, and in object stores and other file systems that fsspec supports."""
