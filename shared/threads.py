"""Threads for calls that block: each mount has its own, so that one that hangs stops no other.

asyncio's default executor has a handful of threads for the whole process. A folder whose server is
away would take all of them, and with them every request over HTTP.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from shared.errors import Dependency, DependencyDown

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """At most `count` threads for the calls to one mount. Calls wait for a free one.

    `what` names the mount in errors, as in "the media root does not respond". A dead NFS server
    blocks a call for minutes: the caller gets an error after `within_s`.
    """

    def __init__(
        self, dependency: Dependency, what: str, *, count: int, within_s: float = 10.0
    ) -> None:
        self.within_s = within_s
        self._dependency = dependency
        self._what = what
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        # Calls that have not returned although nothing waits for them any more.
        self._stuck: set[Future[Any]] = set()
        self._pid = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call that may take its time; cancelled, the call still ends by itself."""
        return await asyncio.wrap_future(self._submit(partial(call, *args, **kwargs)))

    async def soon(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call that takes milliseconds where the mount works, and may be repeated.

        Raises:
            DependencyDown: it did not return within `within_s`, or half of the threads have calls
                that did not.
        """
        if len(self._stuck) >= self._count // 2:
            raise self._hung()
        call_ = self._submit(partial(call, *args, **kwargs))
        try:
            async with asyncio.timeout(self.within_s):
                return await asyncio.shield(asyncio.wrap_future(call_))
        except TimeoutError as exc:
            if call_.done():
                raise  # the call's own
            raise self._hung() from exc
        finally:
            if not call_.done() and not call_.cancel():
                self._stuck.add(call_)
                call_.add_done_callback(self._stuck.discard)

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        if self._pool is None or self._pid != os.getpid():
            # In a child of fork the threads of its parent are not there.
            self._pid, self._stuck = os.getpid(), set()
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self._dependency)
        return self._pool.submit(contextvars.copy_context().run, call)

    def _hung(self) -> DependencyDown:
        return DependencyDown(self._dependency, f"{self._what} does not respond")


# Of the media root, which a process has one of. Some read or write whole files.
MEDIA = Threads("media", "the media root (MEDIA_PATH)", count=16)
