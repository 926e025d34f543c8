"""Structured logs: one line per outcome, fields instead of prose."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

from shared.settings import Settings
from shared.untrusted import printable

# Libraries that log at `info` what our own lines already say.
_QUIET = ("httpx", "httpcore", "nats", "alembic", "uvicorn.error", "uvicorn.access", "websockets")


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Write every log line, ours and the libraries', to one stream in one format.

    `stream` is standard error by default.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if settings.log_format == "console":
        # JSON escapes control characters itself.
        shared.append(_printable_values)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _printable_values(
    _logger: object, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escape control characters, so that no field moves the cursor or hides text."""
    return {name: _shown(value) for name, value in fields.items()}


def _shown(value: object) -> object:
    # Line breaks stay: tracebacks have them, and the renderer quotes those in other fields.
    return printable(value, keep="\n\t") if isinstance(value, str) else value
