"""Rendering, encoding and loss masks: from text and conversations to `input_ids` and `labels`.

`chat_tokenizer.ChatTokenizer` is the entry point. This is the only package that writes labels of -100.
"""
