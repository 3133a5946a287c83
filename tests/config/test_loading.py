"""Loading a config: precedence of command line, files and defaults, interpolation, and messages about mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sftkit.config.commands import InspectConfig, PreprocessConfig, TrainConfig
from sftkit.config.loading import load_config
from sftkit.errors import ConfigError, UsageError

DATA_CONFIG = """
dataprocessor:
  type: default
  sampling_stopping_strategy: first_exhausted
  seed: 66
datasets:
  - name: one
    data_paths: [a.jsonl]
    data_handlers:
      - name: tokenize
        arguments:
          fn_kwargs: {dataset_text_field: text}
"""


@pytest.fixture
def data_config(tmp_path: Path) -> str:
    path = tmp_path / "data.yaml"
    path.write_text(DATA_CONFIG)
    return str(path)


def preprocess(*argv: str) -> PreprocessConfig:
    return load_config(PreprocessConfig, ["--output_dir", "out", *argv])


def problems_of(error: pytest.ExceptionInfo[ConfigError]) -> tuple[str, ...]:
    return error.value.problems


@pytest.mark.parametrize(
    "argv",
    [
        ["--max_seq_length", "512"],
        ["--max_seq_length=512"],
        ["--max-seq-length", "512"],
        ["--max-seq-length=512"],
        ["max_seq_length=512"],
        ["max-seq-length=512"],
    ],
)
def test_all_spellings_of_an_option_are_equivalent(argv: list[str]) -> None:
    assert preprocess(*argv).max_seq_length == 512


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("TRUE", True), ("no", False), ("1", True), ("0", False), ("on", True),
        ("off", False), ("Yes", True),
    ],
)  # fmt: skip
def test_a_boolean_option_accepts_all_boolean_words(text: str, value: bool) -> None:
    assert preprocess("--overwrite", text).overwrite is value


def test_a_boolean_option_without_a_value_is_true_and_does_not_consume_the_next_option() -> None:
    config = preprocess("--overwrite", "--max_seq_length", "7", "--dry_run")
    assert (config.overwrite, config.dry_run, config.max_seq_length) == (True, True, 7)


@pytest.mark.parametrize("text", ["False", "false", "none", "None", "no"])
def test_packing_false_is_packing_none(text: str) -> None:
    assert preprocess("--packing", text).packing == "none"


def test_the_command_line_overrides_files_and_later_files_override_earlier_ones(
    tmp_path: Path, data_config: str
) -> None:
    (tmp_path / "one.yaml").write_text("max_seq_length: 1\noverflow: drop\nnum_dataset_shards: 5\n")
    (tmp_path / "two.yaml").write_text("max_seq_length: 2\noverflow: error\ndataprocessor: {seed: 9}\n")
    config = preprocess(
        "--data_config_path", data_config, "--config", str(tmp_path / "one.yaml"), f"--config={tmp_path / 'two.yaml'}",
        "max_seq_length=3",
    )  # fmt: skip
    assert (config.max_seq_length, config.overflow, config.num_dataset_shards) == (3, "error", 5)
    assert config.dataprocessor.seed == 9
    assert config.dataprocessor.sampling_stopping_strategy == "first_exhausted"


def test_options_with_list_indices_change_the_data_config(data_config: str) -> None:
    config = preprocess(
        "--data_config_path", data_config, "datasets[0].sampling=0.3", "--datasets[0].shuffle", "true",
        "datasets[0].data_handlers[0].arguments.fn_kwargs.max_length=8", "datasets[0].data_paths=[x.jsonl, y.jsonl]",
    )  # fmt: skip
    [dataset] = config.datasets
    assert (dataset.sampling, dataset.shuffle, dataset.data_paths) == (0.3, True, ("x.jsonl", "y.jsonl"))
    assert dataset.data_handlers[0].arguments["fn_kwargs"] == {"dataset_text_field": "text", "max_length": 8}


def test_a_list_index_past_the_end_is_an_error_that_names_the_key(data_config: str) -> None:
    with pytest.raises(UsageError) as error:
        preprocess("--data_config_path", data_config, "datasets[4].sampling=0.3")
    assert "datasets[4].sampling" in str(error.value)


def test_a_data_config_can_be_json(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(
        json.dumps({"datasets": [{"name": "j", "data_paths": ["a"]}], "dataprocessor": {"sampling_seed": 3}})
    )
    config = preprocess("--data_config_path", str(path))
    assert (config.datasets[0].name, config.dataprocessor.seed) == ("j", 3)


def test_a_repeated_list_option_extends_the_list() -> None:
    config = preprocess("--training_data_path", "a", "--training_data_path", "b c,d")
    assert config.training_data_path == ("a", "b c,d")


@pytest.mark.parametrize("pattern", ["[ab]*.[jc]s[ov]*[nl]", "[ab]*[0-9]", "[a]: [b]", "[{]"])
def test_a_pattern_in_brackets_that_is_no_list_is_one_path(pattern: str) -> None:
    assert preprocess("--training_data_path", pattern).training_data_path == (pattern,)


@pytest.mark.parametrize(
    "text", ["a ${b} {{c}}", r"\${x}", "${", "{{x}}: ${y} $ {z}", "[not, a, list]", "1e3", "true", ""]
)
def test_template_text_on_the_command_line_is_literal(text: str) -> None:
    assert preprocess(f"--response_template={text}").response_template == text


def test_sample_prompts_are_literal() -> None:
    config = load_config(TrainConfig, ["--output_dir=o", "--sample_prompts", "What is ${x}?"])
    assert config.sample_prompts == ("What is ${x}?",)


def test_template_text_in_files_is_literal(tmp_path: Path) -> None:
    template = "{{ messages }} ${x} \\${y} {% if true %}1{% endif %}"
    handler = {"name": "apply_custom_jinja_template", "arguments": {"fn_kwargs": {"template": "cost ${{price}}"}}}
    data = {
        "dataprocessor": {"chat_template": template},
        "datasets": [{"name": "n", "data_paths": ["a"], "data_handlers": [handler]}],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    config = preprocess("--data_config_path", str(path))
    assert config.dataprocessor.chat_template == template
    assert config.datasets[0].data_handlers[0].arguments["fn_kwargs"]["template"] == "cost ${{price}}"


def test_a_dollar_before_a_brace_is_text_unless_it_refers_to_a_key(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(
        "datasets:\n - name: n\n   data_paths: ['a ${ b }.jsonl']\n   data_handlers:\n"
        "    - name: apply_custom_jinja_template\n"
        "      arguments: {fn_kwargs: {template: 'Price ${{ ID }} ${input}'}}\n"
    )
    [dataset] = preprocess("--data_config_path", str(path)).datasets
    assert dataset.data_paths == ("a ${ b }.jsonl",)
    assert dataset.data_handlers[0].arguments["fn_kwargs"]["template"] == "Price ${{ ID }} ${input}"


def test_a_list_option_takes_all_values_that_follow() -> None:
    config = preprocess("--training_data_path", "a.jsonl", "b c.csv", "max_seq_length=3", "--overwrite")
    assert (config.training_data_path, config.max_seq_length, config.overwrite) == (("a.jsonl", "b c.csv"), 3, True)


def test_yaml_exponents_are_numbers_and_yaml_dates_are_text(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("learning_rate: 1e-3\nadam_epsilon: 1E-10\nrun_name: 2026-11-22\nsave_strategy: no\n")
    extra = dict.fromkeys(("learning_rate", "adam_epsilon", "run_name", "save_strategy"), str)
    config = load_config(TrainConfig, ["--config", str(path), "--output_dir", "o"], extra_keys=extra)
    assert config.training_arguments == {
        "learning_rate": 0.001, "adam_epsilon": 1e-10, "run_name": "2026-11-22", "save_strategy": False,
    }  # fmt: skip


def test_a_value_can_refer_to_another_key(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model_name_or_path: m\ntokenizer_name_or_path: ${model_name_or_path}/tok\n")
    assert preprocess("--config", str(path)).tokenizer_name_or_path == "m/tok"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--num_train_dataset_shards", "4"], ("num_dataset_shards", 4)),
        (["--num_eval_dataset_shards", "2"], ("num_eval_dataset_shards", 2)),
    ],
)
def test_option_names_of_newer_fms_hf_tuning_versions_are_accepted(
    argv: list[str], expected: tuple[str, object]
) -> None:
    assert getattr(preprocess(*argv), expected[0]) == expected[1]


def test_the_option_chat_template_sets_dataprocessor_chat_template() -> None:
    assert preprocess("--chat_template", "{{ x }}").dataprocessor.chat_template == "{{ x }}"


def test_all_mistakes_are_reported_at_once_with_similar_keys(data_config: str) -> None:
    with pytest.raises(UsageError) as error:
        load_config(
            PreprocessConfig,
            [
                "--data_config_path",
                data_config,
                "--max_seq_len",
                "5",
                "num_workers=many",
                "stray",
                "datasets[0].sampling=x",
            ],
        )
    assert problems_of(error) == (
        "unknown option --max_seq_len (did you mean 'max_seq_length'?)",
        "unexpected argument 'stray'; write options as --key value or key=value",
        "datasets[0].sampling must be a number, not 'x'",
        "num_workers must be a whole number, not 'many'",
        "missing key 'output_dir': Directory for the shards.",
    )
    assert error.value.exit_code == 2


def test_an_unknown_key_in_a_file_is_a_config_error_not_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("datasets:\n - name: a\n   data_pathes: [x]\n   sampling: much\n")
    with pytest.raises(ConfigError) as error:
        preprocess("--data_config_path", str(path))
    assert problems_of(error) == (
        "unknown key 'datasets[0].data_pathes' (did you mean 'data_paths'?)",
        "datasets[0].sampling must be a number, not 'much'",
        "missing key 'datasets[0].data_paths': Files, directories, globs, fsspec URLs or one Hub id.",
    )
    assert error.value.exit_code == 2


def test_wrong_indentation_is_an_error_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text('datasets:\n - name: dataset_1\n    retain_columns:\n     - "formatted_chat"\n')
    with pytest.raises(ConfigError, match=r"data\.yaml:3:19: not valid YAML: mapping values are not allowed"):
        preprocess("--data_config_path", str(path))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.json", '{"a": }', r"c\.json:1:7: not valid JSON"),
        ("c.yaml", "- 1\n- 2\n", "must hold keys and values"),
        ("c.yaml", "just text", "must hold keys and values"),
        ("c.yaml", "a: 1\na: 2\n", "c.yaml:2:"),
        ("c.yaml", "model_name_or_path: ${nowhere}\n", "refers to a key or variable that cannot be found"),
    ],
)
def test_the_message_about_a_malformed_config_file_names_the_file(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        preprocess("--config", str(path))


def test_the_message_about_a_missing_config_file_names_the_file() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        preprocess("--config", "nowhere.yaml")


def test_datasets_in_two_files_are_rejected(tmp_path: Path, data_config: str) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("datasets: []\n")
    with pytest.raises(ConfigError, match="set it in only one of them"):
        preprocess("--data_config_path", data_config, "--config", str(other))


def test_the_message_about_an_invalid_choice_lists_the_choices() -> None:
    with pytest.raises(
        UsageError, match="overflow must be one of truncate, truncate_left, split_turns, drop, error, not 'cut'"
    ):
        preprocess("--overflow", "cut")


def test_the_message_about_a_missing_value_names_the_option() -> None:
    with pytest.raises(UsageError, match="--max_seq_length needs a value"):
        preprocess("--max_seq_length", "--overwrite")


def test_values_may_start_with_dashes() -> None:
    assert load_config(InspectConfig, ["d", "--row", "-1", "--search", "- x"], first_word="directory").row == -1
    assert preprocess("--response_template", "--- answer").response_template == "--- answer"


def test_the_positional_argument_of_inspect_shards_is_the_directory() -> None:
    assert load_config(InspectConfig, ["shards", "--rows", "2"], first_word="directory").directory == "shards"


def test_training_arguments_are_collected_from_files_and_options(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("learning_rate: 1e-3\noutput_dir: o\n")
    extra = {"learning_rate": "float", "adam_beta1": "float", "eval_strategy": "str"}
    config = load_config(
        TrainConfig, ["--config", str(path), "--adam_beta1=0.9", "--evaluation_strategy", "no"], extra_keys=extra
    )
    assert config.training_arguments == {"learning_rate": 0.001, "adam_beta1": "0.9", "eval_strategy": "no"}
