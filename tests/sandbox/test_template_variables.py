"""The variables of a template are found without running any of it."""

from __future__ import annotations

import pytest

from sftkit.sandbox.template_variables import keys_of_variable, variables_of

ENDLESS = "9 ** 9 ** 9"


@pytest.mark.parametrize(
    "template",
    [
        f"{{{{ {ENDLESS} }}}}{{{{ a }}}}",
        f"{{% set x = {ENDLESS} %}}{{{{ x ~ a }}}}",
        f"{{% if {ENDLESS} > 2 %}}{{{{ a }}}}{{% endif %}}",
        f"{{{{ 'x'|center({ENDLESS}) ~ a }}}}",
        "{{ 'x'|center(900000000)|center(10000000000) }}{{ a }}",
        f"{{% filter center({ENDLESS}) %}}{{{{ a }}}}{{% endfilter %}}",
    ],
)
def test_no_constant_expression_is_evaluated(template: str) -> None:
    assert variables_of(template) == {"a"}
    assert keys_of_variable(template, "row") == frozenset()
