"""The formats of shards: Parquet, JSON Lines, MosaicML's MDS, arrays of numpy, and those of Megatron and
NeMo.

A format is a subclass of `ShardFormat` with a `registered_as` in a module of this folder.
"""
