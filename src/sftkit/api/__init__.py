"""The public Python API; `sftkit` itself exports its names."""
