"""Write the models and shards of the benchmark: `python -m benchmarks.gpu.prepare --result FILE --work DIR`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .setups import LARGE, TINY, Setup, random_model, write_model, write_shards

_CHECKED = {"head_dim": 64, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 8192}
_CONVERSATIONS = {False: 2000, True: 60}


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    setups = TINY if options.tiny else LARGE
    for setup in setups:
        write_model(options.work / setup.name, setup)
    checked = TINY[0].sizes if options.tiny else {**_CHECKED, **_SIZES}
    folder = write_model(options.work / "check", Setup("check", checked))
    random_model(folder, "float32", "cpu").save_pretrained(folder)
    packs: dict[str, Any] = {"rows": write_shards(options.work / "rows", _CONVERSATIONS[options.tiny], None)}
    for pack in sorted({pack for setup in setups for pack in setup.packs}):
        count = _CONVERSATIONS[options.tiny]
        packs[str(pack)] = write_shards(options.work / f"packs-{pack}", count, pack)
        options.result.write_text(json.dumps({"rows": packs}), encoding="utf-8")


_SIZES = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4}

if __name__ == "__main__":
    main()
