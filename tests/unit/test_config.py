"""Options: one declaration gives the flag, the YAML key and the variable; sources override one another."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from autotrace.cli import main
from autotrace.config import Config, Option, format_size, options
from autotrace.config_sources import load
from autotrace.errors import AutotraceError

SAMPLES: dict[str, tuple[object, object]] = {
    "pids": ([12, 34], (12, 34)),
    "exe_globs": (["*/nginx"], ("*/nginx",)),
    "ports": ([8080], (8080,)),
    "everything": (True, True),
    "command": (["sleep", "9"], ("sleep", "9")),
    "user": ("nobody", "nobody"),
    "service_names": ({"*/nginx": "edge", "node": "shop"}, (("*/nginx", "edge"), ("node", "shop"))),
    "hooks": ("tracepoint", "tracepoint"),
    "tls": ("*/libssl.so.3", "*/libssl.so.3"),
    "runtime_probes": ("/opt/shop/*", "/opt/shop/*"),
    "head_size": ("1KiB", 1024),
    "ring_size": (65536, 65536),
    "max_connections": (100, 100),
    "exchange_timeout": (2, 2.0),
    "route_limit": (5, 5),
    "series_limit": (6, 6),
    "otlp_endpoint": ("http://collector:4317", "http://collector:4317"),
    "otlp_protocol": ("http/protobuf", "http/protobuf"),
    "otlp_traces": (True, True),
    "otlp_metrics": (True, True),
    "json_path": ("spans.jsonl", Path("spans.jsonl")),
    "record_path": ("events.bin", Path("events.bin")),
    "console": (False, "off"),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),
    "metrics_port": (0, 0),
    "runtime_dir": ("agents", Path("agents")),
    "cache_dir": ("cache", Path("cache")),
    "log_level": ("debug", "debug"),
}
"""Field name to (YAML value, what becomes of it)."""


def from_yaml(tmp_path: Path, text: str, **flags: object) -> Config:
    file = tmp_path / "autotrace.yaml"
    file.write_text(text)
    return load(flags, {}, file, pytest.fail)


def from_environment(**environment: str) -> tuple[Config, list[str]]:
    warnings: list[str] = []
    return load({}, environment, None, warnings.append), warnings


def test_every_field_is_an_option_with_a_key_of_its_own() -> None:
    declared = [(each.name, each.metadata.get("option")) for each in fields(Config)]
    assert all(isinstance(option, Option) for _, option in declared)
    assert len({option.key for _, option, _ in options()}) == len(fields(Config))
    assert set(SAMPLES) == {each.name for each in fields(Config)}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, option, _ in options()])
def test_every_field_has_a_yaml_key(tmp_path: Path, name: str, option: Option) -> None:
    import yaml

    written, stored = SAMPLES[name]
    assert getattr(from_yaml(tmp_path, yaml.safe_dump({option.key: written})), name) == stored


@pytest.mark.parametrize("option", [option for _, option, _ in options()])
def test_every_field_has_a_flag_and_run_help_says_what_it_does(option: Option) -> None:
    spelled = "-- CMD..." if option.key == "command" else option.flag
    shown = CliRunner().invoke(main, ["run", "--help"], terminal_width=400).output
    assert spelled in shown
    assert option.help in shown


@pytest.mark.parametrize(
    ("name", "option", "default"), [each for each in options() if each[2] not in ((), "", None)]
)
def test_every_default_is_a_value_that_its_own_option_takes(
    name: str, option: Option, default: object
) -> None:
    assert option.kind.check(default) == default


def test_defaults_need_no_source() -> None:
    assert load({}, {}, None, pytest.fail) == Config()
    assert not Config().selects


@pytest.mark.parametrize(
    "rule",
    [{"pids": (1,)}, {"exe_globs": ("a",)}, {"ports": (1,)}, {"everything": True}, {"command": ("a",)}],
)
def test_each_selection_rule_is_enough(rule: dict[str, object]) -> None:
    assert Config(**rule).selects  # type: ignore[arg-type]


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "metrics-port: 1\nhead-size: 1024\nroute-limit: 9\nport: [80, 81]\nmetrics-host: filehost\n"
    )
    environment = {
        "OTEL_EXPORTER_PROMETHEUS_PORT": "2",
        "AUTOTRACE_METRICS_PORT": "3",
        "AUTOTRACE_HEAD_SIZE": "2KiB",
        "AUTOTRACE_PORT": "82,83",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "otelhost",
    }
    config = load({"metrics_port": "4", "ports": ("84",)}, environment, file, pytest.fail)
    assert (config.metrics_port, config.head_size, config.route_limit) == (4, 2048, 9)
    assert config.ports == (84,)
    assert config.metrics_host == "otelhost"
    assert load({}, environment, file, pytest.fail).metrics_port == 3
    assert load({}, environment, file, pytest.fail).ports == (82, 83)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("head-sise: 1", "'head-sise' is not an option; did you mean 'head-size'?"),
        ("zzzzzz: 1", "'zzzzzz' is not an option; `autotrace run --help` lists the options."),
        ("1: 1", "1 is not an option"),
        ("port: high", "'port' is 'high' (text), but it must be a whole number from 1 to 65535."),
        ("port: [80, 70000]", "'port' is 70000 (a number)"),
        ("metrics-port: true", "'metrics-port' is True (a boolean)"),
        ("head-size: 1.5", "'head-size' is 1.5 (a number), but it must be a size from 256 to 8KiB."),
        ("ring-size: 65537", "must be a size from 64KiB to 1024MiB that is a power of two."),
        ("exe: 5", "'exe' is 5 (a number), but it must be a glob"),
        ("service-name: {5: a}", "must be GLOB=NAME"),
        ("all: 3", "'all' is 3 (a number), but it must be true or false."),
        ("console: maybe", "must be one of auto, on, off."),
        ("otlp: ftp://collector", "must be a URL such as http://localhost:4317."),
        ("otlp: 'http://[::1'", "must be a URL"),
        ("otlp: 'http://collector:99999'", "must be a URL"),
        ("json:", "'json' is None (nothing), but it must be a path."),
        ("service-name: nginx", "must be GLOB=NAME"),
        ("service-name: {a: ''}", "must be GLOB=NAME"),
        ("exchange-timeout: .nan", "must be a number of seconds from 1 to 86400."),
        ("port: 80\nport: 81", "'port' is given twice; use a list (line 2, column 1)."),
        ("- port", "holds a list, but it must be a map of options"),
        ("port: [", "is not valid YAML"),
        ("a: !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(AutotraceError) as caught:
        from_yaml(tmp_path, text)
    assert sentence in str(caught.value)
    assert "autotrace.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_or_empty(tmp_path: Path) -> None:
    assert from_yaml(tmp_path, "# nothing set\n") == Config()
    with pytest.raises(AutotraceError, match="No such file"):
        load({}, {}, tmp_path / "absent.yaml", pytest.fail)
    with pytest.raises(AutotraceError, match="Is a directory"):
        load({}, {}, tmp_path, pytest.fail)


def refusal(environment: dict[str, str], file: Path | None) -> AutotraceError | None:
    try:
        load({}, environment, file, pytest.fail)
    except AutotraceError as error:
        return error
    return None


@given(st.binary(max_size=200))
def test_any_bytes_give_a_config_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    error = refusal({}, file)
    assert error is None or error.exit_code == 2


@given(st.sampled_from([option for _, option, _ in options()]), st.text(min_size=1))
def test_any_text_of_a_variable_gives_a_config_or_one_sentence(option: Option, text: str) -> None:
    error = refusal({option.variable: text}, None)
    assert error is None or str(error).startswith(option.variable)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("4KiB", 4096), ("4K", 4096), ("8MiB", 8 << 20)])
def test_sizes_may_have_a_unit(text: str, size: int) -> None:
    name = "head_size" if size < 65536 else "ring_size"
    assert getattr(load({name: text}, {}, None, pytest.fail), name) == size


@given(st.integers(min_value=256, max_value=8192))
def test_a_size_is_read_as_it_is_written(size: int) -> None:
    assert load({"head_size": format_size(size)}, {}, None, pytest.fail).head_size == size


def test_the_glob_of_a_service_name_may_hold_an_equals_sign() -> None:
    config = load({"service_names": ("*/a=b=shop", "node=x")}, {}, None, pytest.fail)
    assert config.service_names == (("*/a=b", "shop"), ("node", "x"))


# --- OpenTelemetry's variables ------------------------------------------------------------------------------


def otlp(config: Config) -> tuple[str, bool, bool]:
    return config.otlp_endpoint, config.otlp_traces, config.otlp_metrics


def test_a_collector_gets_both_signals_unless_it_is_said() -> None:
    url = "http://collector:4317"
    assert otlp(load({"otlp_endpoint": url}, {}, None, pytest.fail)) == (url, True, True)
    flags = {"otlp_endpoint": url, "otlp_metrics": False}
    assert otlp(load(flags, {}, None, pytest.fail)) == (url, True, False)
    assert otlp(load({"otlp_traces": True}, {}, None, pytest.fail)) == ("", True, False)
    assert load({"otlp_endpoint": "collector:4317"}, {}, None, pytest.fail).otlp_traces


def test_a_collector_on_the_command_line_wins_over_a_standard_variable() -> None:
    flags = {"otlp_endpoint": "http://collector:4317"}
    assert load(flags, {"OTEL_TRACES_EXPORTER": "console"}, None, pytest.fail).otlp_traces


@pytest.mark.parametrize(
    ("environment", "traces", "metrics", "console", "port"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:1"}, True, True, "auto", 9464),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://there:1"}, True, False, "auto", 9464),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://there:1"}, False, True, "auto", 9464),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, False, "off", 9464),
        ({"OTEL_TRACES_EXPORTER": "console"}, False, False, "on", 9464),
        ({"OTEL_TRACES_EXPORTER": "none"}, False, False, "off", 9464),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, True, False, "on", 9464),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False, True, "auto", 0),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus"}, False, True, "auto", 9464),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, False, False, "auto", 9464),
        ({"OTEL_METRICS_EXPORTER": "none"}, False, False, "auto", 0),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:1", "OTEL_METRICS_EXPORTER": "prometheus"},
            *(True, False, "auto", 9464),
        ),
    ],
)
def test_the_standard_variables_choose_exporters(
    environment: dict[str, str], traces: bool, metrics: bool, console: str, port: int
) -> None:
    config, warnings = from_environment(**environment)
    assert warnings == []
    assert (config.otlp_traces, config.otlp_metrics) == (traces, metrics)
    assert (config.console, config.metrics_port) == (console, port)
    assert config.otlp_endpoint == ""  # the exporters read the variable themselves


@pytest.mark.parametrize(
    ("variable", "value", "warning"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "names zipkin, but autotrace knows only console, none, otlp."),
        ("OTEL_METRICS_EXPORTER", "console", "names console"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "many", "OTEL_EXPORTER_PROMETHEUS_PORT is 'many'"),
        ("OTEL_LOG_LEVEL", "loud", "must be one of debug, info, warning, error."),
    ],
)
def test_a_standard_variable_that_cannot_be_used_is_ignored_with_a_warning(
    variable: str, value: str, warning: str
) -> None:
    config, warnings = from_environment(**{variable: value})
    assert config == Config()
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_empty_variables_are_as_good_as_none() -> None:
    config, warnings = from_environment(
        OTEL_EXPORTER_OTLP_ENDPOINT="", OTEL_TRACES_EXPORTER="", AUTOTRACE_PORT=""
    )
    assert (config, warnings) == (Config(), [])


def test_the_standard_spelling_of_a_log_level() -> None:
    assert from_environment(OTEL_LOG_LEVEL="warn")[0].log_level == "warning"
