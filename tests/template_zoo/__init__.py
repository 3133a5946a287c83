"""Chat templates in the styles of published models, one module per family, with the texts that must be trained."""

from template_zoo import (
    chatml,
    cohere_granite,
    deepseek,
    gemma_phi,
    glm_kimi,
    llama,
    marked,
    messages_in_turns,
    mistral,
    named,
    peculiar,
    plain,
    prompts,
    qwen,
    reasoning,
    shapes,
)

_FAMILIES = (
    *(chatml, qwen, marked, llama, mistral, gemma_phi, deepseek),
    *(reasoning, glm_kimi, cohere_granite, messages_in_turns, plain, prompts, shapes, peculiar, named),
)
CASES = [case for family in _FAMILIES for case in family.CASES]
