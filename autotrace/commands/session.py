"""One run of the agent, from its start to its last span: the child, the signals, the status socket."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import autotrace
from autotrace.child import Child
from autotrace.config import Config
from autotrace.control import ControlServer, Handler, Request, runtime_dir, socket_path
from autotrace.errors import AutotraceError
from autotrace.signals import SignalListener

_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Without a child: what ends the agent."""

_FORWARDED = (*_STOP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
"""With a child: what is the child's."""


class Agent(Protocol):
    """What a session needs of `autotrace.agent.Agent`.

    `stop` may come from any thread, before `run` too; `run` returns soon after it. Signals do not interrupt
    `run`: they are taken in another thread.
    """

    def start(self) -> None: ...
    def watch(self, pid: int) -> None: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def status(self) -> dict[str, Any]: ...


MakeAgent = Callable[[Config, Callable[[str], None]], Agent]


def set_up_logging(level: str) -> logging.Logger:
    """Send the log to standard error. `level` is that of autotrace; the libraries' is at least a warning."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logger = logging.getLogger("autotrace")
    logger.setLevel(number)
    return logger


def watch(config: Config) -> int:
    """Run the agent until a signal ends it, or until its command has ended.

    Gives the exit code: the command's own where there is one, else 0. Raises AutotraceError if the agent
    could not start (the command is not executed then), or if it failed with no command to wait for.
    """
    logger = set_up_logging(config.log_level)
    child = Child.hold(config.command, config.user) if config.command else None
    try:
        return Session(config, child, logger, _make_agent).run()
    finally:
        if child:
            child.close()


def _make_agent(config: Config, log: Callable[[str], None]) -> Agent:
    from autotrace.agent import Agent

    return Agent(config, log)


class Session:
    """The agent with what surrounds it. `child` is held at its gate, or None."""

    def __init__(
        self, config: Config, child: Child | None, logger: logging.Logger, make_agent: MakeAgent
    ) -> None:
        self._config = config
        self._child = child
        self._logger = logger
        self._make_agent = make_agent
        self._agent: Agent | None = None
        self._started = time.monotonic()
        self._stop_signals = 0

    def run(self) -> int:
        """See `watch`."""
        with SignalListener(_FORWARDED if self._child else _STOP, self._on_signal):
            try:
                self._trace()
            except Exception as error:  # the command must not suffer from what fails here
                if not self._child or not self._child.released:
                    raise
                unexpected = not isinstance(error, AutotraceError)
                self._logger.error("The command goes on untraced: %s", error, exc_info=unexpected)
            return self._child.wait() if self._child else 0

    def _trace(self) -> None:
        agent = self._agent = self._make_agent(self._config, self._logger.info)
        try:
            if self._stop_signals:
                agent.stop()
            agent.start()
            if self._child:
                agent.watch(self._child.pid)
                self._child.release()
                threading.Thread(target=_stop_after, args=(self._child, agent), daemon=True).start()
            control = self._start_control(agent)
            try:
                agent.run()
            finally:
                if control:
                    control.stop()
        finally:
            agent.close()

    def _on_signal(self, number: int, from_kernel: bool) -> None:
        """While the child lives, signals are its business, and a terminal has given them to it already."""
        if self._child and self._child.exit_code is None:
            if not from_kernel:
                self._child.send_signal(number)
            return
        if number not in _STOP:
            return
        self._stop_signals += 1
        if self._stop_signals > 1:
            os._exit(128 + number)
        self._logger.info("Stopping and sending what is left; once more (Ctrl-C) to quit at once.")
        if self._agent:
            self._agent.stop()

    def _start_control(self, agent: Agent) -> ControlServer | None:
        path = socket_path(runtime_dir(self._config.runtime_dir), os.getpid())
        control = ControlServer(path, {"status": self._status(agent), "explain": _explain(agent)})
        try:
            control.start()
        except AutotraceError as error:
            self._logger.warning("`autotrace status` will not find this agent: %s", error)
            return None
        return control

    def _status(self, agent: Agent) -> Handler:
        def status(request: Request) -> dict[str, Any]:
            return {
                "pid": os.getpid(),
                "version": autotrace.__version__,
                "uptime_s": round(time.monotonic() - self._started, 3),
                "memory_bytes": _resident_bytes(),
                **agent.status(),
            }

        return status


def _explain(agent: Agent) -> Handler:
    def explain(request: Request) -> dict[str, Any]:
        watched = {process["pid"] for process in agent.status()["processes"]}
        return {"watched": request["pid"] in watched}

    return explain


def _stop_after(child: Child, agent: Agent) -> None:
    child.wait()
    agent.stop()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
