"""Other programs for the same tokens, on the first rows of a JSONL file: TRL, and turn by turn with transformers.

    python -m benchmarks.peers trl --data FILE --kind conversations --rows 8800 --tokenizer DIRECTORY --result FILE

Runs in a separate process. Only the preparation is timed, not imports, loading of tokenizer, model and data, or writing
a file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .corpora import Row, first_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def prepare_with_trl(options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Build an SFTTrainer around a tiny model, and time its `_prepare_dataset`."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    class TimedTrainer(SFTTrainer):
        """Measures the time of its preparation."""

        preparation_seconds = 0.0

        def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            prepared = super()._prepare_dataset(*args, **kwargs)
            self.preparation_seconds += time.perf_counter() - start
            return prepared

    datasets.disable_progress_bars()
    chats = options.kind == "conversations"
    template = _give_training_template(tokenizer, options.trl_template) if chats else ""
    with tempfile.TemporaryDirectory() as scratch:
        trainer = TimedTrainer(
            model=_tiny_model(tokenizer),
            args=SFTConfig(
                output_dir=f"{scratch}/out",
                assistant_only_loss=chats,
                completion_only_loss=None if chats else True,
                packing=False,
                max_length=None,
                dataset_num_proc=options.processes if options.processes > 1 else None,
                report_to="none",
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=_load(options, Path(scratch)),
            processing_class=tokenizer,
        )
        prepared = trainer.train_dataset.with_format("arrow")[:]
        return {
            "seconds": trainer.preparation_seconds,
            "rows": prepared.num_rows,
            "tokens": len(prepared["input_ids"].combine_chunks().flatten()),
            "note": f"template: {template}" if chats else "",
        }


def prepare_turn_by_turn(options: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Mask each conversation by the lengths of its prefixes, row by row with `apply_chat_template`."""
    rows = first_rows(options.data, options.rows)
    start = time.perf_counter()
    prepared = [_turn_by_turn(row["messages"], tokenizer) for row in rows]
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "rows": len(rows),
        "tokens": sum(len(row["input_ids"]) for row in prepared),
        "note": "",
    }


def _turn_by_turn(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Find each assistant turn by tokenizing the conversation before it and the one that ends with it."""

    def ids(count: int, prompt: bool = False) -> list[int]:
        return tokenizer.apply_chat_template(
            messages[:count], tokenize=True, add_generation_prompt=prompt, return_dict=False
        )

    input_ids = ids(len(messages))
    labels = [-100] * len(input_ids)
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(ids(number, prompt=True)), len(ids(number + 1))
            labels[start:end] = input_ids[start:end]
    return {"input_ids": input_ids, "labels": labels}


def _load(options: argparse.Namespace, scratch: Path) -> Dataset:
    """The first rows as loaded by `datasets`, with only the columns that TRL needs."""
    from datasets import load_dataset

    subset = scratch / "rows.jsonl"
    with options.data.open(encoding="utf-8") as lines, subset.open("w", encoding="utf-8") as out:
        for line in itertools.islice(lines, options.rows):
            out.write(json.dumps(_row_for_trl(json.loads(line))) + "\n")
    return load_dataset("json", data_files=str(subset), split="train", cache_dir=str(scratch / "cache"))


def _row_for_trl(row: Row) -> Row:
    """TRL concatenates prompt and completion: add a space where sftkit does."""
    if "messages" in row:
        return {"messages": row["messages"]}
    space = "" if row["input"][-1:].isspace() or row["output"][:1].isspace() else " "
    return {"prompt": row["input"], "completion": space + row["output"]}


def _tiny_model(tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict.fromkeys(["num_hidden_layers", "num_attention_heads", "num_key_value_heads"], 1)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, **sizes))


def _give_training_template(tokenizer: PreTrainedTokenizerBase, file: Path | None) -> str:
    """Give the tokenizer a template with `{% generation %}`, which TRL needs to find the assistant's tokens.

    TRL replaces templates that it knows. For others, set TRL's template for the family, or ours for plain ChatML.
    Returns a description of the template that is used.
    """
    from trl.chat_template_utils import get_training_chat_template, qwen3_training_chat_template

    own = tokenizer.chat_template
    if file is not None:
        tokenizer.chat_template = file.read_text(encoding="utf-8")
        return file.name
    try:
        return "the tokenizer's own" if get_training_chat_template(tokenizer) is None else "TRL's for this tokenizer"
    except ValueError:
        if "last_query_index" in own:
            tokenizer.chat_template = qwen3_training_chat_template
            return "TRL's for Qwen3"
        if "<|im_start|>" in own:
            tokenizer.chat_template = (_TEMPLATES / "chatml_with_generation.jinja").read_text(encoding="utf-8")
            return "ChatML with generation marks"
        raise


def main() -> None:
    """Parse the command line, run one program, and write its result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contestant", choices=["trl", "turn-by-turn"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", choices=["conversations", "pairs"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--processes", type=int, default=1, help="TRL's dataset_num_proc")
    parser.add_argument("--trl-template", type=Path, help="a chat template with {%% generation %%}, for TRL")
    parser.add_argument("--result", type=Path, required=True)
    options = parser.parse_args()

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    prepare = prepare_with_trl if options.contestant == "trl" else prepare_turn_by_turn
    options.result.write_text(json.dumps(prepare(options, tokenizer)), encoding="utf-8")


if __name__ == "__main__":
    main()
