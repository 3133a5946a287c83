"""Texts that overlap with evaluation questions, compared with a brute-force search."""

from __future__ import annotations

import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftkit.decontamination.comparable_words import comparable_words
from sftkit.decontamination.question_index import Question, QuestionIndex

QUESTION = (
    "A baker sells 14 loaves in the morning and twice as many in the afternoon. If every loaf costs 3 dollars, how "
    "much money does the baker earn on that day?"
)
CHANCE = random.Random(5)
VOCABULARY = ["".join(CHANCE.choices("abcdefghijklmnopqrstuvwxyz", k=CHANCE.randint(2, 9))) for _ in range(3000)]


def question(text: str, row: int = 1) -> Question:
    return Question(f"test.jsonl:{row}", tuple(comparable_words(text)))


def places(index: QuestionIndex, *texts: str) -> list[str | None]:
    return [None if found is None else found.question.place for found in index.find(texts)]


def random_text(words: int) -> str:
    return " ".join(CHANCE.choices(VOCABULARY, k=words))


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper(),
        QUESTION.replace(" ", "\n  ").replace(".", " ;"),
        QUESTION[: len(QUESTION) // 2],
        QUESTION[len(QUESTION) // 2 :],
        " ".join(QUESTION.split()[4:13]),
        f"Here is a riddle for you: {QUESTION} Think about it, and answer in one word.",
        f"{random_text(400)} {QUESTION} {random_text(400)}",
        QUESTION.replace("baker", "butcher").replace("loaf", "steak"),
    ],
    ids=["verbatim", "case", "spaces", "start", "end", "nine words", "embedded", "long", "words replaced"],
)
def test_a_planted_question_is_found(text: str) -> None:
    index = QuestionIndex([question(random_text(40), row) for row in range(2, 60)] + [question(QUESTION)])
    assert places(index, "An unrelated text.", text) == [None, "test.jsonl:1"]


def test_no_clean_text_is_named() -> None:
    index = QuestionIndex([question(random_text(CHANCE.randint(3, 60)), row) for row in range(1000)])
    assert index.find([random_text(CHANCE.randint(1, 80)) for _ in range(10_000)]) == [None] * 10_000


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is the capital of France?", True),
        ("Please tell me: what is the capital of France", True),
        ("What is the capital of Spain?", False),
        ("Who wrote Faust?", True),
        ("I asked who wrote Faust, and nobody knew.", False),
        ("首都是哪里", True),
    ],
)
def test_a_short_question_counts_as_a_whole(text: str, found: bool) -> None:
    questions = ["What is the capital of France?", "Who wrote Faust?", "首都是哪里?"]
    index = QuestionIndex([question(each, row) for row, each in enumerate(questions)])
    assert (places(index, text) != [None]) == found


def test_an_instruction_that_all_questions_begin_with_does_not_count() -> None:
    instruction = "Solve the following problem and write your final answer in a box at the end of the text."
    index = QuestionIndex([question(f"{instruction} {random_text(30)}", row) for row in range(50)])
    assert places(index, f"{instruction} {random_text(30)}") == [None]
    assert places(index, " ".join(index.questions[7].words)) == ["test.jsonl:7"]
    first_words = " ".join(index.questions[7].words[18:22])
    assert places(index, f"{instruction} {first_words} {random_text(30)}") == [None]


def test_a_short_question_after_an_instruction_that_all_have_is_found() -> None:
    instruction = "Solve the following problem and write your final answer in a box at the end of the text."
    index = QuestionIndex([question(f"{instruction} {random_text(5)}", row) for row in range(50)])
    assert places(index, " ".join(index.questions[7].words)) == ["test.jsonl:7"]
    assert places(index, f"{instruction} {' '.join(index.questions[7].words[18:21])} {random_text(2)}") == [None]


def test_a_run_that_a_question_or_a_text_repeats_counts_once() -> None:
    chorus = " ".join(["row your boat gently down the stream and"] * 12)
    words = random_text(60)
    index = QuestionIndex([question(chorus), question(words, 2)], [8, 300])
    assert places(index, chorus) == ["test.jsonl:1"]
    assert places(index, f"{' '.join(words.split()[:9])} and so on. " * 40) == [None]


def test_the_shared_words_are_named() -> None:
    (found,) = QuestionIndex([question(QUESTION)]).find([f"Look: {QUESTION}"])
    assert found is not None
    assert found.words == tuple(comparable_words(QUESTION)[:13])


def test_an_index_can_be_sent_to_other_processes() -> None:
    index = QuestionIndex([question(QUESTION)], [5, 9], 0.25)
    copy = pickle.loads(pickle.dumps(index))
    assert copy.digest == index.digest
    assert copy.find([QUESTION, "no"]) == index.find([QUESTION, "no"])


def test_the_digest_covers_questions_and_settings_but_no_places() -> None:
    one, other = question("one two three"), question("four five", 2)
    digest = QuestionIndex([one, other]).digest
    assert QuestionIndex([Question("moved:9", other.words), one]).digest == digest
    others = [([one], [8, 13], 0.5), ([one, other], [8], 0.5), ([one, other], [8, 13], 0.6)]
    assert len({digest, *(QuestionIndex(*each).digest for each in others)}) == 4


texts = st.lists(st.sampled_from("abcd"), min_size=1, max_size=14).map(tuple)


@settings(max_examples=400)
@given(
    questions=st.lists(texts, min_size=1, max_size=8, unique=True),
    text=texts,
    sizes=st.sampled_from([[3, 5], [4], [2, 3, 6]]),
    share=st.sampled_from([0.3, 0.5, 1.0]),
)
def test_the_result_is_that_of_a_brute_force_search(
    questions: list[tuple[str, ...]], text: tuple[str, ...], sizes: list[int], share: float
) -> None:
    def runs(words: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
        return [words[start : start + size] for start in range(len(words) - size + 1)]

    def overlaps(asked: tuple[str, ...]) -> bool:
        if len(asked) < sizes[0]:
            same = [each for each in runs(text, len(asked)) if each == asked]
            return bool(same) and (len(asked) >= 5 or {*runs(text, len(asked))} == {asked})
        for size in sizes:
            shared = {*runs(text, size)} & {*runs(asked, size)}
            least = min(share * len({*runs(asked, size)}), len({*runs(text, size)}))
            if shared and (size == sizes[-1] or len(shared) >= least):
                return True
        return False

    index = QuestionIndex([Question(str(row), each) for row, each in enumerate(questions)], sizes, share)
    (found,) = index.find([" ".join(text)])
    expected = {str(row) for row, each in enumerate(questions) if overlaps(each)}
    assert (found.question.place if found else None) in (expected or {None})
