"""Raw supervised fine-tuning data -> training-ready shards, and training on them."""

import os

# Arrow's own allocators keep what they freed, so that memory creeps up with the data; the system's gives it back.
# Arrow reads this once, when it is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
