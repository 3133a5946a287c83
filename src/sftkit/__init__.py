"""Raw supervised fine-tuning data -> training-ready shards, and training on them."""

__version__ = "0.1.0"
