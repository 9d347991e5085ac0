"""Real processes are described as what they are; the ladder of names on a /proc made of files."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autotrace
from autotrace.discovery.processes import Describer, Identity, from_dict, to_dict
from autotrace.model import NOT_GO, Process
from autotrace.probes import Manifests

MANIFESTS = Manifests.load()
ID = "0123456789abcdef" * 4


def describe(pid: int) -> Process:
    process = Describer(MANIFESTS, host_name="here").describe(pid)
    assert process is not None
    return process


def test_a_python_script(start: Any, tmp_path: Path) -> None:
    script = tmp_path / "checkout.py"
    script.write_text("print(flush=True)\nimport time\ntime.sleep(60)\n")
    running = start(sys.executable, str(script))
    running.stdout.readline()
    process = describe(running.pid)
    assert (process.runtime, process.service, process.rungs) == (
        "python",
        "checkout",
        {"thread", "stream-thread", "answer"},
    )
    assert process.resource["process.pid"] == running.pid
    assert process.resource["service.instance.id"] == f"here:{running.pid}"
    assert process.resource["telemetry.sdk.name"] == "autotrace"
    assert process.resource["telemetry.sdk.language"] == "python"
    assert process.resource["telemetry.sdk.version"] == autotrace.__version__
    assert process.resource["host.name"] == "here"
    assert process.resource["process.executable.path"] == process.executable
    assert process.go == NOT_GO


def test_the_environment_of_the_process_names_it(start: Any) -> None:
    attributes = "service.name=other,service.namespace=shop,deployment.environment.name=a%20b"
    environment = {**os.environ, "OTEL_SERVICE_NAME": "cart", "OTEL_RESOURCE_ATTRIBUTES": attributes}
    running = start("sh", "-c", "echo; read x", env=environment, stdin=subprocess.PIPE)
    running.stdout.readline()
    process = describe(running.pid)
    assert process.service == "cart"
    assert process.resource["service.namespace"] == "shop"
    assert process.resource["deployment.environment.name"] == "a b"
    running.stdin.close()


def test_node(start: Any, tmp_path: Path) -> None:
    if not shutil.which("node"):
        pytest.skip("there is no node here")
    script = tmp_path / "orders.js"
    script.write_text("console.log(''); setTimeout(() => 0, 60000)")
    running = start("node", str(script))
    running.stdout.readline()
    process = describe(running.pid)
    assert (process.runtime, process.service) == ("node", "orders")
    assert process.resource["telemetry.sdk.language"] == "nodejs"


def test_a_go_program(start: Any, tmp_path: Path) -> None:
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        pytest.skip("there is no Go toolchain here")
    (tmp_path / "main.go").write_text(
        'package main\n\nimport ("os"; "time")\n\n'
        'func main() { os.Stdout.WriteString("\\n"); time.Sleep(time.Hour) }\n'
    )
    subprocess.run([go, "build", "-ldflags=-s -w", "-o", "shop", "main.go"], cwd=tmp_path, check=True)
    running = start(str(tmp_path / "shop"))
    running.stdout.readline()
    process = describe(running.pid)
    assert (process.runtime, process.service, process.rungs) == ("go", "shop", {"goroutine"})
    assert process.go.goid in {152, 160}
    assert str(process.resource["process.runtime.version"]).startswith("go1.")
    (tmp_path / "shop").unlink()  # replaced while it runs, as a deployment does
    assert describe(running.pid).go == process.go


def test_nginx(start: Any, tmp_path: Path) -> None:
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        pytest.skip("there is no nginx here")
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/log;\n"
        f"events {{}} http {{ access_log off; server {{ listen unix:{tmp_path}/s; }} }}\n"
    )
    running = start(nginx, "-c", str(config), "-p", str(tmp_path))
    while not (tmp_path / "s").exists():
        assert running.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process = describe(running.pid)
    assert (process.runtime, process.service, process.rungs) == ("nginx", "nginx", {"thread", "dispatch"})


def test_a_process_that_is_gone_or_a_zombie(start: Any) -> None:
    running = start("true")
    os.waitid(os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
    describer = Describer(MANIFESTS)
    assert describer.describe(running.pid) is None
    running.wait()
    assert describer.describe(running.pid) is None


def identify(proc: Any, service_names: dict[str, str] | None = None) -> Identity:
    identity = Describer(MANIFESTS, service_names, proc.procfs, "here").identify(7)
    assert identity is not None
    return identity


UNIT = "0::/system.slice/shop.service\n"
DECLARED = {"OTEL_SERVICE_NAME": "by-name", "OTEL_RESOURCE_ATTRIBUTES": "service.name=by-attribute"}


@pytest.mark.parametrize(
    ("service_names", "environment", "cgroup", "name", "source"),
    [
        ({"prog*": "one"}, DECLARED, UNIT, "one", "executables prog*"),
        ({"x": "one"}, DECLARED, UNIT, "by-name", "OTEL_SERVICE_NAME"),
        (
            {},
            {**DECLARED, "OTEL_SERVICE_NAME": ""},
            UNIT,
            "by-attribute",
            "OTEL_RESOURCE_ATTRIBUTES",
        ),
        ({}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=x,broken"}, UNIT, "shop", "systemd"),
        ({}, {}, f"0::/system.slice/docker-{ID}.scope\n", "program", "executable"),
        ({}, {}, "0::/user.slice/user-0.slice/session-1.scope\n", "program", "executable"),
    ],
)
def test_the_ladder_of_names(
    proc: Any, service_names: dict[str, str], environment: dict[str, str], cgroup: str, name: str, source: str
) -> None:
    proc.add(7, environment=environment, cgroup=cgroup)
    identity = identify(proc, service_names)
    assert identity.process.service == name
    assert source in identity.name_source


def test_the_unit_that_runs_the_agent_names_no_one_else(proc: Any) -> None:
    proc.add(os.getpid(), cgroup=UNIT)
    proc.add(7, cgroup=UNIT)
    assert identify(proc).process.service == "program"


def test_an_interpreter_without_a_script_has_the_runtimes_name(proc: Any) -> None:
    proc.add(7, "/usr/bin/python3.11", arguments=("python3.11", "-c", "pass"))
    assert identify(proc).process.service == "python"


def test_an_embedded_interpreter_has_its_executables_name(proc: Any) -> None:
    maps = "7f00-7f01 r-xp 00000000 08:01 5 /usr/lib/libpython3.11.so.1.0\n"
    proc.add(7, "/usr/bin/uwsgi", arguments=("uwsgi", "site.ini"), maps=maps)
    identity = identify(proc)
    assert (identity.process.runtime, identity.process.service) == ("python", "uwsgi")


def test_attributes_of_the_resource(proc: Any) -> None:
    declared = {"OTEL_RESOURCE_ATTRIBUTES": "host.name=given,process.pid=1,telemetry.sdk.name=other,team=b"}
    proc.add(7, environment=declared, cgroup=f"0::/system.slice/docker-{ID}.scope\n")
    resource = identify(proc).process.resource
    assert resource["container.id"] == ID
    assert (resource["host.name"], resource["team"]) == ("given", "b")
    assert (resource["process.pid"], resource["telemetry.sdk.name"]) == (7, "autotrace")
    assert str(resource["process.creation.time"]).startswith("2023-11-14T22:13:")


def test_a_container_seen_from_inside(proc: Any) -> None:
    folder = proc.add(7)
    mount = f"1 2 254:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
    (folder / "mountinfo").write_text(mount)
    assert identify(proc).process.resource["container.id"] == ID


def test_a_kernel_thread_is_described_by_its_name(proc: Any) -> None:
    proc.add(7, "", comm="kworker", arguments=())
    assert identify(proc).process.service == "kworker"


def test_files_that_are_missing_do_no_harm(proc: Any) -> None:
    folder = proc.add(7)
    (folder / "cgroup").unlink()
    (folder / "mountinfo").unlink()
    assert identify(proc).process.service == "program"
    (folder / "cmdline").unlink()  # what happens when the process goes meanwhile
    assert Describer(MANIFESTS, None, proc.procfs).identify(7) is None


def test_a_process_of_another_user(tmp_path: Path) -> None:
    """Without privileges the environment and the executable of others are closed; the rest is still told."""
    if os.geteuid() != 0:
        pytest.skip("only root can change to another user")
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "from autotrace.discovery.processes import Describer\n"
        "from autotrace.probes import Manifests\n"
        f"print(Describer(Manifests.load()).describe({os.getpid()}).resource['process.pid'])"
    )
    root = Path(autotrace.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", f"import autotrace.discovery.processes\n{code}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(os.getpid()), done.stderr


processes = st.builds(
    Process,
    pid=st.integers(1, 1 << 22),
    executable=st.text(),
    resource=st.dictionaries(st.text(), st.one_of(st.text(), st.integers())),
    runtime=st.text(),
    rungs=st.frozensets(st.sampled_from(["thread", "dispatch"])),
    exited_ts=st.integers(0),
)


@given(processes)
def test_a_recorded_process_is_the_same_again(process: Process) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(process)))) == process


@given(st.sampled_from(["pid", "executable", "resource", "runtime", "rungs", "exited_ts"]))
def test_a_damaged_recording_names_what_is_wrong(key: str) -> None:
    values = to_dict(Process(1, "x", {"service.name": "x"}))
    for damaged in ({**values, key: None}, {k: v for k, v in values.items() if k != key}):
        with pytest.raises(ValueError, match=key):
            from_dict(damaged)
    with pytest.raises(ValueError, match="attribute"):
        from_dict({**values, "resource": {"a": [1]}})
    with pytest.raises(ValueError, match="rungs"):
        from_dict({**values, "rungs": [1]})
