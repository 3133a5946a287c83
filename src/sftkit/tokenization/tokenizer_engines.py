"""Loads a tokenizer and selects the engines that encode and render with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from sftkit.core.row_log import RowError
from sftkit.errors import ConfigError
from sftkit.tokenization.conversations import Conversation
from sftkit.tokenization.encoding.boundary.inference_encoder import InferenceEncoder
from sftkit.tokenization.encoding.chunked_encoder import ChunkedEncoder
from sftkit.tokenization.encoding.fast.fast_encoder import FastEncoder
from sftkit.tokenization.encoding.fast.id_engines import GigatokenEngine, IdEngine, TokenizersEngine
from sftkit.tokenization.encoding.reference_encoder import Encoder, ReferenceEncoder
from sftkit.tokenization.encoding.single_bos import with_single_bos
from sftkit.tokenization.encoding.slow_encoder import SlowEncoder
from sftkit.tokenization.engines import ENCODER, RENDERER, EnginePolicy, UnsupportedByEngineError
from sftkit.tokenization.loading.tokenizer_identity import backend_json
from sftkit.tokenization.loading.tokenizer_loading import TokenizerSpec, load_tokenizer
from sftkit.tokenization.rendering.compiled_renderer import CompiledRenderer
from sftkit.tokenization.rendering.program_renderer import ProgramRenderer
from sftkit.tokenization.rendering.reference_renderer import ReferenceRenderer, Renderer
from sftkit.tokenization.verification import VerificationSampler, VerifiedEncoder, VerifiedFunction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")

_log = logging.getLogger(__name__)


class TokenizerEngines:
    """The engines for one tokenizer: a reference and, where it is supported, a fast engine that is verified.

    The tokenizer and each engine are loaded when they are first used.
    """

    def __init__(
        self,
        spec: TokenizerSpec | None,
        policy: EnginePolicy,
        template_date: str | None = None,
        *,
        keeps_second_bos: bool = False,
    ) -> None:
        """Prepare for a tokenizer; `keeps_second_bos` leaves the BOS that it adds to a text with one."""
        self._spec = spec
        self._keeps_second_bos = keeps_second_bos
        self._template_date = template_date
        self._reference_only = policy.reference_only
        self._samplers = {task: VerificationSampler(policy.verify_fraction) for task in (ENCODER, RENDERER)}
        self._is_renderer_used = False
        self.rows_by_programs = 0
        """Conversations whose text is from a program (`tracing`)."""

    def load(self) -> None:
        """Load the tokenizer and the fast engines."""
        _ = self.tokenizer, self._fast_encoder, self._fast_renderer

    def start_unit(self) -> None:
        """Verify the first rows of the next work unit."""
        for sampler in self._samplers.values():
            sampler.start_unit()

    @property
    def used(self) -> dict[str, str]:
        """The names of the engines used so far, by task (ENCODER, RENDERER)."""
        used = {}
        if "encoder" in self.__dict__:
            used[ENCODER] = self.encoder.name
        if self._is_renderer_used:
            used[RENDERER] = (self._fast_renderer or self.reference_renderer).name
        return used

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer.

        Raises:
            ConfigError: the config names no tokenizer.
            TokenizerError: it cannot be loaded.
        """
        if self._spec is None:
            raise ConfigError("a tokenizer is required: give model_name_or_path or tokenizer_name_or_path")
        return load_tokenizer(self._spec)

    @cached_property
    def backend_json(self) -> str | None:
        """The `tokenizers` backend as JSON text; None for a tokenizer written in Python."""
        return backend_json(self.tokenizer)

    @cached_property
    def reference_encoder(self) -> ReferenceEncoder | ChunkedEncoder | SlowEncoder:
        """The reference for encoding; it encodes long texts in chunks if the tokenizer allows that."""
        whole = ReferenceEncoder(self.tokenizer)
        if not self.tokenizer.is_fast:
            return SlowEncoder(self.tokenizer, whole)
        try:
            return ChunkedEncoder(self.tokenizer, whole)
        except UnsupportedByEngineError as reason:
            _log.info("long texts are encoded whole with this tokenizer: %s", reason)
        return whole

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder to use: the fast one, verified, if there is one, else the reference."""
        encoder: Encoder = self.reference_encoder
        if self._fast_encoder is not None:
            encoder = VerifiedEncoder(self._fast_encoder, self.reference_encoder, self._samplers[ENCODER])
        return encoder if self._keeps_second_bos else with_single_bos(encoder, self.tokenizer, self.reference_encoder)

    @cached_property
    def inference_encoder(self) -> InferenceEncoder:
        """Encodes with `encoder`, and gives prompts the tokens of inference."""
        return InferenceEncoder(self.encoder, self.tokenizer)

    @cached_property
    def reference_renderer(self) -> ReferenceRenderer:
        """The reference for rendering."""
        return ReferenceRenderer(self.tokenizer, self._template_date)

    def verified(self, make_function: Callable[[Renderer], Callable[[Conversation], T]]) -> Callable[[Conversation], T]:
        """Return the function that `make_function` makes of the renderer to use.

        If that is the fast one, the results of the function are verified.
        """
        self._is_renderer_used = True
        reference = make_function(self.reference_renderer)
        if self._fast_renderer is None:
            return reference
        programs = self._fast_renderer.programs
        verified = VerifiedFunction(make_function(self._fast_renderer), reference, self._samplers[RENDERER])

        def counted(conversation: Conversation) -> T:
            rendered = programs.rendered
            result = verified(conversation)
            self.rows_by_programs += programs.rendered > rendered
            return result

        return counted

    @cached_property
    def fast_inference_encoder(self) -> InferenceEncoder:
        """Encodes as `inference_encoder`, without verification."""
        return InferenceEncoder(self.fast_encoder, self.tokenizer)

    @property
    def fast_encoder(self) -> Encoder:
        """The fast encoder without verification; the reference if there is none."""
        return self._fast_encoder or self.reference_encoder

    def fast(self, make_function: Callable[[Renderer], Callable[[Conversation], T]]) -> Callable[[Conversation], T]:
        """Return the function that `make_function` makes of the fast renderer, without verification.

        The reference handles conversations that the fast renderer cannot render.
        """
        reference = make_function(self.reference_renderer)
        if self._fast_renderer is None:
            return reference
        fast = make_function(self._fast_renderer)

        def function(conversation: Conversation) -> T:
            try:
                return fast(conversation)
            except RowError:
                return reference(conversation)

        return function

    @property
    def programs(self) -> ProgramRenderer | None:
        """The programs of the fast renderer; None if there is none."""
        return None if self._fast_renderer is None else self._fast_renderer.programs

    @cached_property
    def _fast_encoder(self) -> FastEncoder | None:
        if ENCODER in self._reference_only or self.backend_json is None:
            return None
        try:
            engine = self._id_engine()
            fast = FastEncoder(self.tokenizer, engine, self.reference_encoder)
        except UnsupportedByEngineError as reason:
            _log.info("only the reference encodes with this tokenizer: %s", reason)
            return None
        return fast if isinstance(engine, GigatokenEngine) or fast.locates_spans_by_count else None

    def _id_engine(self) -> IdEngine:
        try:
            return GigatokenEngine(self.tokenizer, self.backend_json)
        except UnsupportedByEngineError as reason:
            _log.info("gigatoken cannot be used with this tokenizer: %s", reason)
        return TokenizersEngine(self.tokenizer, self.reference_encoder)

    @cached_property
    def _fast_renderer(self) -> CompiledRenderer | None:
        if RENDERER not in self._reference_only:
            try:
                return CompiledRenderer(self.tokenizer, self.reference_renderer)
            except UnsupportedByEngineError as reason:
                _log.info("only the reference renders with this chat template: %s", reason)
        return None
