"""Names of reasoning fields and the byte alphabet, compared with the libraries they come from."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import pre_tokenizers

from sftkit.core.message_fields import REASONING_FIELDS, TRANSFORMERS_REASONING_FIELDS
from sftkit.core.row_log import RowLog
from sftkit.core.rows import Batch
from sftkit.handlers.convert_messages import ConvertToMessages
from sftkit.tokenization.encoding.fast.byte_level import BYTE_CHARACTERS, BYTE_OF_CHARACTER


def test_transformers_unifies_the_reasoning_fields_listed_here() -> None:
    from transformers.utils import chat_template_utils

    assert set(chat_template_utils._REASONING_FIELDS) == set(TRANSFORMERS_REASONING_FIELDS)
    assert set(TRANSFORMERS_REASONING_FIELDS) < set(REASONING_FIELDS)


def test_byte_characters_are_those_of_tokenizers() -> None:
    assert sorted(BYTE_CHARACTERS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert [BYTE_OF_CHARACTER[character] for character in BYTE_CHARACTERS] == list(range(256))
    assert (BYTE_CHARACTERS[ord("a")], BYTE_CHARACTERS[ord(" ")], BYTE_CHARACTERS[0xFF]) == ("a", "Ġ", "ÿ")


@pytest.mark.parametrize("field", REASONING_FIELDS)
def test_a_message_without_content_is_accepted_when_it_has_reasoning_in_any_known_field(field: str) -> None:
    turn = {"from": "gpt", "value": None, field: "hm"}
    step = ConvertToMessages().bind(None)  # type: ignore[arg-type]  # it needs no tokenizer
    log = RowLog()
    batch = step(Batch([{"conversations": [turn]}], np.array([1])), log)
    assert log.bad == []
    assert batch.rows[0]["messages"] == [{"role": "assistant", "content": "", field: "hm"}]
