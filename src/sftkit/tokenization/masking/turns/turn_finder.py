"""Finds the characters of a rendered conversation that the model has to produce."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from weakref import WeakKeyDictionary

from sftkit.core.row_log import RowError
from sftkit.tokenization.conversations import Conversation, Message, assistant_indices, is_assistant
from sftkit.tokenization.encoding.spans import Span, complement
from sftkit.tokenization.masking.message_flags import have_train_flags, untrained_messages
from sftkit.tokenization.masking.prompt_ends import prompt_ends, turn_starts
from sftkit.tokenization.masking.ranges.train_ranges import have_ranges
from sftkit.tokenization.masking.ranges.untrained_content import hidden_in_content, untrained_content
from sftkit.tokenization.masking.supervision import AssistantTurn, StartOfStop, Supervision
from sftkit.tokenization.masking.train_on import ALL
from sftkit.tokenization.masking.turn_masks import ALL_STOPS
from sftkit.tokenization.masking.turns.later_messages import (
    length_without_later_messages,
    may_contain_later_messages,
)
from sftkit.tokenization.masking.turns.other_turns import OtherTurn, find_other_turns
from sftkit.tokenization.masking.turns.planned_turns import TurnPlan, plan_turns
from sftkit.tokenization.masking.turns.prefix_turns import find_turns_by_prefix
from sftkit.tokenization.masking.turns.produced_part import find_produced
from sftkit.tokenization.masking.turns.simple_turns import find_simple_turns
from sftkit.tokenization.masking.turns.turn_checks import (
    ForeignTexts,
    check_content_in_turn,
    check_conversation_size,
    check_disjoint,
    check_order,
)
from sftkit.tokenization.masking.turns.turn_edges import TurnEdges
from sftkit.tokenization.masking.turns.turn_end import TurnEnd
from sftkit.tokenization.masking.turns.turn_start import TurnStart
from sftkit.tokenization.probing.message_spans import MessageSpans, find_message_spans, known_message_spans
from sftkit.tokenization.rendering.reference_renderer import Renderer, record_if_possible
from sftkit.tokenization.templates.recording import GENERATION, Program, Recording
from sftkit.tokenization.templates.template_analysis import has_generation_blocks

_UNKNOWN = TurnPlan((), ())
"""Stands for the plan of a program that was not planned yet."""


class TurnFinder:
    """Renders conversations and finds the spans that carry a loss.

    The produced part of an assistant turn is the text from the end of the generation prompt to the end of the stop
    token. Two obvious ways to find it fail. Searching the text for the contents of messages is a guess: templates
    strip, split and move contents, and several messages may have the same text. Rendering the conversation turn by
    turn is slow, and wrong for templates that render a turn differently when others follow. Instead:

    1. **Record.** The code that Jinja compiles the template to records what it writes, and where an iteration of its
       loop over the messages starts (`templates.output_recording`). One rendering gives the text and the span of each
       message (`message_spans`). If the template has `{% generation %}` blocks, these say what is trained, and steps 2
       to 4 are skipped.
    2. **Find the start.** The span of a turn must start with the generation prompt of the template, or with one of its
       variants (`TurnStart`). They are learned from small made-up conversations, once per template. A turn for which
       that fails is compared with the prompt that the template writes after the messages before this turn.
    3. **Find the end.** The produced part ends after the first stop token that follows the content (`TurnEnd`). Its
       stop tokens are learned in the same way, and read from the files of the model.
    4. **Check.** The span must not contain the messages after the turn or the text of another message, and no content
       may be outside of its span. A row that fails a check is refused: a mask is never guessed.
    5. **Select** the turns that carry a loss (`Supervision`). Turns without a loss need not pass the checks, except
       with a template that cannot be recorded.

    Most conversations take a fast path through steps 2 to 4 (`find_simple_turns`). For templates that cannot be
    recorded, each turn is found from renderings of the conversation up to it (`find_turns_by_prefix`).

    The spans are correct because each starts exactly where the model would start to write, which is compared with the
    text of the prompt itself, and ends with the token at which it would stop. They are ordered and disjoint.
    `tests/template_zoo` gives the expected spans of about a hundred templates literally.
    """

    def __init__(
        self,
        renderer: Renderer,
        supervision: Supervision | None = None,
        stop_tokens: Sequence[str] = (),
        special_tokens: Sequence[str] = (),
    ) -> None:
        """Prepare to find turns; templates are analyzed when they are first used.

        Args:
            renderer: renders the conversations.
            supervision: selects what carries a loss; by default all assistant turns.
            stop_tokens: known stop tokens, as text; those that the template shows are added.
            special_tokens: special tokens of the tokenizer, as text.
        """
        self._renderer = renderer
        self._supervision = supervision or Supervision()
        self._has_generation = lru_cache(maxsize=8)(has_generation_blocks)
        self._can_record = lru_cache(maxsize=8)(renderer.can_record)
        self._plans: WeakKeyDictionary[Program, TurnPlan | None] = WeakKeyDictionary()
        self._turn_edges = TurnEdges(renderer, stop_tokens, special_tokens)

    def find(self, conversation: Conversation) -> tuple[Recording, list[Span]]:
        """Render a conversation and find its trained spans in characters: ordered and disjoint.

        Raises:
            RowError: the template cannot render the conversation, or a span cannot be verified.
        """
        return self.find_with_prompts(conversation)[:2]

    def find_with_prompts(self, conversation: Conversation) -> tuple[Recording, list[Span], list[int]]:
        """Find as `find`, and return where the prompts of the trained turns end, too; none if all text is trained."""
        if self._supervision.train_on == ALL:
            return *self._find_everything(conversation, conversation.message_list), []
        recording, turns = self.find_turns(conversation)
        if self._supervision.trains_all_turns(conversation.shape.keys):
            return recording, [(start, end) for _, start, end in turns], turn_starts(turns)
        spans = self.trained_spans(recording, turns, conversation)
        return recording, spans, prompt_ends(turns, spans)

    def trained_spans(
        self, recording: Recording, turns: Sequence[AssistantTurn], conversation: Conversation
    ) -> list[Span]:
        """Return what of a conversation carries a loss, given its turns; raises as `Supervision.spans`."""
        messages = conversation.message_list
        stops = self._start_of_stop(conversation)
        spans = self._supervision.spans(recording.text, turns, messages, stops)
        if not self._supervision.trains_other_roles:
            return spans
        trains_stop = self._supervision.masks.stop == ALL_STOPS
        for turn in self.find_other_turns(recording, conversation):
            spans += turn.trained(messages[turn.message], trains_stop=trains_stop)
        check_disjoint(spans)
        return sorted(spans)

    def find_other_turns(self, recording: Recording, conversation: Conversation) -> list[OtherTurn]:
        """Return the trained messages of other roles than the assistant's; raises as `other_turns.find_other_turns`."""
        indices = self._supervision.other_messages(conversation.message_list)
        return find_other_turns(self._renderer, conversation, recording, indices, self.turn_end(conversation))

    def find_turns(self, conversation: Conversation) -> tuple[Recording, list[AssistantTurn]]:
        """Return the recorded text of a conversation and the produced parts of its turns; raises as `find`."""
        if not self._supervision.trains_turns(conversation.message_list):
            return record_if_possible(self._renderer, conversation), []
        source = self._renderer.source(with_tools=conversation.tools is not None)
        if self._has_generation(source):
            return self._find_generation_blocks(conversation)
        if not self._can_record(source):
            check_conversation_size(conversation.message_list)
            text, turns = find_turns_by_prefix(
                self._renderer, conversation, *self._turn_edges.learn(source, conversation)
            )
            return Recording.of_text(text), turns
        recording = self._renderer.record(conversation)
        planned = self._find_planned_turns(recording, conversation, source)
        if planned is not None:
            return recording, planned
        edges = self._turn_edges.learn(source, conversation)
        return recording, self._find_recorded_turns(recording, conversation, *edges)

    def find_messages(self, conversation: Conversation, indices: Sequence[int]) -> MessageSpans:
        """Return where at least the messages at some indices are in the text; those that it lacks are left out.

        Raises:
            RowError: it is ambiguous which message was rendered where.
        """
        return known_message_spans(self._renderer.record(conversation), len(conversation.message_list), indices)

    def turn_end(self, conversation: Conversation) -> TurnEnd:
        """Return what is known about the stop tokens of a conversation; raises as `find`."""
        return self._turn_edges.learn(self._renderer.source(with_tools=conversation.tools is not None), conversation)[1]

    def _start_of_stop(self, conversation: Conversation) -> StartOfStop | None:
        needed = self._supervision.needs_stops(conversation.message_list)
        return self.turn_end(conversation).start_of_stop if needed else None

    def _find_everything(self, conversation: Conversation, messages: Sequence[Message]) -> tuple[Recording, list[Span]]:
        """Train all text but excluded messages and masked parts of turns (`train_on: all`)."""
        recording, untrained = None, []
        indices = sorted(untrained_messages(messages)) if have_train_flags(messages) else []
        if indices:
            recording = self._renderer.record(conversation)
            spans = known_message_spans(recording, len(messages), indices)
            untrained += [spans[index] for index in indices if index in spans]
        untrained += self.hidden_in_other_roles(conversation)
        if self._supervision.hides_something(messages) and any(map(is_assistant, messages)):
            recording, turns = self.find_turns(conversation)
            stops = self._start_of_stop(conversation)
            last = next((turn.message for turn in reversed(turns) if turn.message not in indices), -1)
            untrained += chain.from_iterable(
                self._supervision.hidden_spans(recording.text, turns, messages, stops, last)
            )
        if recording is None:
            recording = record_if_possible(self._renderer, conversation)
        return recording, complement(untrained, len(recording.text))

    def hidden_in_other_roles(self, conversation: Conversation) -> list[Span]:
        """Return what of messages that are not the assistant's carries no loss by their ranges, if all text is trained.

        Raises:
            RowError: it is unknown where that is in the text.
        """
        messages = conversation.message_list
        untrained = untrained_messages(messages) if have_ranges(messages) else frozenset()
        others = [index for index, each in enumerate(messages) if have_ranges([each]) and not is_assistant(each)]
        wanted = [index for index in others if index not in untrained]
        if not wanted:
            return []
        recording = self._renderer.record(conversation)
        spans = known_message_spans(recording, len(messages), wanted)
        hidden: list[Span] = []
        for index in wanted:
            place = [spans[index]] if index in spans else []
            content = untrained_content(messages[index], index)
            hidden += hidden_in_content(recording.text, place, messages[index], index, content)
        return hidden

    def _find_generation_blocks(self, conversation: Conversation) -> tuple[Recording, list[AssistantTurn]]:
        """Return what is inside of the template's own `{% generation %}` blocks.

        The message of each block is only determined if the selection of trained turns needs it; else it is 0.
        """
        recording = self._renderer.record(conversation)
        blocks = [block for block in recording.blocks if block.loop == GENERATION]
        if not self._supervision.needs_turn_owners and not have_train_flags(conversation.message_list):
            return recording, [AssistantTurn(0, block.start, block.end) for block in blocks if block.end > block.start]
        indices = assistant_indices(conversation.message_list)
        try:
            spans = known_message_spans(recording, len(conversation.message_list), indices)
        except RowError:
            if len(blocks) != len(indices):
                raise
            return recording, [
                AssistantTurn(index, block.start, block.end) for index, block in zip(indices, blocks, strict=True)
            ]
        turns = [
            AssistantTurn(index, block.start, block.end)
            for block in blocks
            for index, (start, end) in spans.items()
            if start <= block.start and block.end <= end
        ]
        if len(turns) != len(blocks):
            raise RowError(
                "a {% generation %} block of the chat template contains several messages; cannot tell which are trained"
            )
        return recording, turns

    def _find_planned_turns(
        self, recording: Recording, conversation: Conversation, source: str
    ) -> list[AssistantTurn] | None:
        """Return the turns by the plan of the program that rendered the conversation; None if there is none."""
        program = recording.program
        if program is None:
            return None
        plan = self._plans.get(program, _UNKNOWN)
        if plan is _UNKNOWN:
            turn_start, turn_end = self._turn_edges.learn(source, conversation)
            has_steady_prompt = turn_start is not None and turn_start.text and not turn_start.varies
            roles = conversation.shape.roles
            plan = plan_turns(program, roles, turn_start, turn_end) if turn_start and has_steady_prompt else None
            self._plans[program] = plan
        if plan is None or conversation.plain is None:
            return None
        return plan.find(recording.pieces, conversation.plain.contents)

    def _find_recorded_turns(
        self, recording: Recording, conversation: Conversation, turn_start: TurnStart | None, turn_end: TurnEnd
    ) -> list[AssistantTurn]:
        """Find turns by the recorded spans of their messages."""
        messages, text = conversation.message_list, recording.text
        if turn_start is not None and turn_start.text and not turn_start.varies:
            simple = find_simple_turns(recording, messages, conversation.shape.roles, turn_start, turn_end)
            if simple is not None:
                return simple
        check_conversation_size(messages)
        indices = assistant_indices(messages)
        spans = find_message_spans(recording, len(messages), indices)
        if spans is None or turn_start is None:
            return find_turns_by_prefix(self._renderer, conversation, turn_start, turn_end)[1]
        foreign_texts = ForeignTexts(messages, spans)
        turns: list[AssistantTurn] = []
        for index in indices:
            message = messages[index]
            if index not in spans:  # the template omits this message
                check_content_in_turn(text, 0, 0, message)
                continue
            start, end = spans[index]
            try:
                if len(spans) < len(messages) and may_contain_later_messages(messages, spans, index):
                    end = start + length_without_later_messages(self._renderer, conversation, index, text[start:end])
                produced = find_produced(self._renderer, conversation, turn_start, index, text, (start, end))
                check_content_in_turn(text, produced, end, message)
                stop = turn_end.find(text, produced, end, message)
                foreign_texts.check(text[produced:stop], index)
            except RowError:
                if index in self._supervision.trained_turns(messages):
                    raise
                continue  # the turn carries no loss, so it need not be verified
            turns.append(AssistantTurn(index, produced, stop))
        check_order(turns)
        return turns
