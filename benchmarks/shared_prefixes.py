"""What a step costs if the samples of a conversation share their prefixes in one sequence, and if they do not.

With `render: per_turn`, samples of one conversation begin with the same tokens. Laid out as a tree, these tokens are
computed once: a token attends to those on its path from the root, and its position is the length of that path. The loss
and the gradients are those of separate samples.

    python -m benchmarks.shared_prefixes --tokenizer DIR --data chats.jsonl

prints, for the conversations of the file and for made-up ones, the tokens of both layouts, the processor time of a
training step of a small Qwen3 on a CPU (SDPA), and the largest difference of the gradients. The separate samples run
one by one with a causal mask, as kernels for variable lengths compute them. The tree needs a mask of a byte for each
pair of tokens, which flash attention does not take.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

Sample = tuple[Sequence[int], Sequence[bool]]
"""The tokens of a sample, and which of them are trained."""

VOCABULARY = 4096


class Tree(NamedTuple):
    """Samples that share their prefixes."""

    ids: list[int]
    parents: list[int]
    """For each token the one before it; -1 at the start of a sample. Parents come first."""
    trained: list[int]
    """Tokens that are trained, once for each sample that trains them."""


def tree_of(samples: Sequence[Sample]) -> Tree:
    """Lay samples out as a tree.

    Example:
        >>> tree_of([([5, 6, 7], [False, True, True]), ([5, 8], [False, True])])
        Tree(ids=[5, 6, 7, 8], parents=[-1, 0, 1, 0], trained=[1, 2, 3])
    """
    tree, children = Tree([], [], []), dict[tuple[int, int], int]()
    for ids, trained in samples:
        node = -1
        for token, is_trained in zip(ids, trained, strict=True):
            parent, node = node, children.setdefault((node, token), len(tree.ids))
            if node == len(tree.ids):
                tree.ids.append(token)
                tree.parents.append(parent)
            if is_trained and parent >= 0:
                tree.trained.append(node)
    return tree


def made_up(turns: int, question: int, reasoning: int, answer: int) -> list[Sample]:
    """Return the samples of a conversation whose template removes the reasoning of earlier turns; lengths in tokens."""
    numbers = iter(range(10**9))

    def text(length: int) -> list[int]:
        return [next(numbers) * 7919 % VOCABULARY for _ in range(length)]

    history: list[int] = []
    samples: list[Sample] = []
    for _ in range(turns):
        asked, thought, said = text(question), text(reasoning), text(answer)
        prompt = history + asked
        samples.append((prompt + thought + said, [False] * len(prompt) + [True] * (reasoning + answer)))
        history = prompt + said
    return samples


def read_samples(data: Path, tokenizer: str) -> tuple[list[list[Sample]], int]:
    """Return the samples of each conversation of a file, and the tokens that `render: once` makes of all of them."""
    import pyarrow.parquet as pq

    import sftkit

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "numbered.jsonl")
        rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
        source.write_text("".join(json.dumps({**row, "number": at}) + "\n" for at, row in enumerate(rows)))
        handlers = [{"name": "convert_to_messages"}, {"name": "tokenize_and_apply_chat_template_with_masking"}]
        dataset = {"name": "a", "data_paths": [source], "data_handlers": handlers, "retain_columns": ["number"]}
        tables = []
        for render in ("once", "per_turn"):
            output = Path(folder, render)
            sftkit.preprocess(datasets=[dataset], model_name_or_path=tokenizer, render=render, output_dir=output)
            tables.append(pq.read_table(sorted(output.glob("train-*.parquet"))).to_pylist())
    once, per_turn = tables
    conversations: dict[int, list[Sample]] = {}
    for row in per_turn:
        ids = [token % VOCABULARY for token in row["input_ids"]]
        conversations.setdefault(row["number"], []).append((ids, [label >= 0 for label in row["labels"]]))
    return list(conversations.values()), sum(len(row["input_ids"]) for row in once)


def small_model(width: int, layers: int) -> Any:
    """Return a Qwen3 with random weights; attention is a smaller part of a wider one."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        head_dim=64,
        attn_implementation="sdpa",
    )
    return AutoModelForCausalLM.from_config(config)


def step_separate(model: Any, samples: Sequence[Sample]) -> float:
    """Add the gradients of the summed loss of samples, one after the other; returns the loss."""
    import torch

    total = 0.0
    for ids, trained in samples:
        tokens, wanted = torch.tensor([ids]), torch.tensor(trained)[1:]
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1][wanted]
        loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:][wanted], reduction="sum")
        loss.backward()
        total += float(loss.detach())
    return total


def step_tree(model: Any, tree: Tree) -> float:
    """Add the gradients of the summed loss of a tree; returns the loss."""
    import torch

    count = len(tree.ids)
    mask = torch.zeros(count, count, dtype=torch.bool)
    depth = torch.zeros(count, dtype=torch.long)
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            mask[node] = mask[parent]
            depth[node] = depth[parent] + 1
        mask[node, node] = True
    ids, trained = torch.tensor(tree.ids), torch.tensor(tree.trained)
    output = model(input_ids=ids[None], position_ids=depth[None], attention_mask=mask[None, None], use_cache=False)
    logits = output.logits[0, torch.tensor(tree.parents)[trained]]
    loss = torch.nn.functional.cross_entropy(logits, ids[trained], reduction="sum")
    loss.backward()
    return float(loss.detach())


def compare(name: str, conversations: Sequence[Sequence[Sample]], once: int | None, model: Any, steps: int) -> None:
    """Print tokens, times and differences of the two layouts for some conversations."""
    trees = [tree_of(samples) for samples in conversations]
    separate = sum(len(ids) for samples in conversations for ids, _ in samples)
    shared = sum(len(tree.ids) for tree in trees)
    seconds = {"separate": 0.0, "tree": 0.0}
    worst = 0.0
    timed = [pair for pair in zip(conversations, trees, strict=True) if len(pair[0]) > 1][:steps]
    for samples, tree in timed:
        gradients, losses = [], []
        for layout in seconds:
            model.zero_grad()
            start = time.process_time()
            losses.append(step_separate(model, samples) if layout == "separate" else step_tree(model, tree))
            seconds[layout] += time.process_time() - start
            gradients.append([each.grad.clone() for each in model.parameters()])
        scale = max(float(each.abs().max()) for each in gradients[0])
        worst = max(
            worst,
            abs(losses[0] - losses[1]) / abs(losses[0]),
            *(float((one - other).abs().max()) / scale for one, other in zip(*gradients, strict=True)),
        )
    most = max((len(tree.ids) for tree in trees), default=0)
    relative = "" if once is None else f", {once:,} rendered once"
    sys.stdout.write(
        f"{name}: {separate:,} tokens apart, {shared:,} as trees ({separate / shared:.2f}x){relative}\n"
        f"  {len(timed)} conversations: {seconds['separate']:.2f} s apart, {seconds['tree']:.2f} s as trees "
        f"({seconds['separate'] / seconds['tree']:.2f}x); largest relative difference of loss and gradients "
        f"{worst:.1e}; largest mask {most**2 / 2**20:.1f} MiB\n"
    )
    sys.stdout.flush()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=2, help="conversations that are timed")
    parser.add_argument("--width", type=int, default=1024, help="hidden size of the model")
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    model = small_model(options.width, options.layers)
    if options.data is not None:
        conversations, once = read_samples(options.data, options.tokenizer)
        compare(options.data.name, conversations, once, model, options.steps)
    for question, reasoning, answer in ((40, 200, 60), (40, 600, 60), (100, 100, 300)):
        name = f"6 turns of {question} + {reasoning} + {answer} tokens (question, reasoning, answer)"
        compare(name, [made_up(6, question, reasoning, answer)] * options.steps, None, model, options.steps)


if __name__ == "__main__":
    main()
