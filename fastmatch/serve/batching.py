"Requests that come together are worked on together: one thread, and a queue before it."
import asyncio
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass


class Busy(Exception):
    "More is waiting than the service takes on."


@dataclass
class Waiting:
    "Something to be worked on, and where its answer goes."
    item: object
    size: int  # Listings
    answer: asyncio.Future


class Batcher:
    """Calls `work` with all items that came while it was at work, in a thread, one call at a time.

    Nothing waits for a batch to fill: an item that comes alone is worked on alone, and under load batches
    grow by themselves. An item whose answer nobody waits for any more is left out.
    """
    def __init__(
        self,
        work,  # Function of a list of items: a list of answers, an exception for an item that has none
        thread: Executor,  # In which it is called
        most: int,  # Listings in a batch; an item with more is a batch of its own
        waiting: int,  # Listings that may wait; for more `Busy` is raised
        observe=None,  # Called with the number of listings of each batch
    ):
        self.work = work
        self.thread = thread
        self.most = most
        self.waiting = waiting
        self.observe = observe
        self.queue, self.queued = deque(), 0
        self.came, self.runner = asyncio.Event(), None

    async def ask(
        self,
        item,
        size: int = 1,  # Its listings
    ):
        "The answer to an item; raises what `work` gave for it, or `Busy`."
        if self.queued + size > self.waiting and self.queued: raise Busy
        if self.runner is None: self.runner = asyncio.create_task(self._run())
        waiting = Waiting(item, size, asyncio.get_running_loop().create_future())
        self.queue.append(waiting)
        self.queued += size
        self.came.set()
        return await waiting.answer

    async def close(self):
        "Let go of the queue; who still waits is told that the service stops."
        if self.runner is not None:
            self.runner.cancel()
            await asyncio.gather(self.runner, return_exceptions=True)
        for waiting in self.queue:
            if not waiting.answer.done(): waiting.answer.set_exception(Busy())

    async def _run(self):
        loop = asyncio.get_running_loop()
        while True:
            await self.came.wait()
            batch = self._next()
            if not batch: continue
            if self.observe is not None: self.observe(sum(waiting.size for waiting in batch))
            try: answers = await loop.run_in_executor(self.thread, self.work, [each.item for each in batch])
            except asyncio.CancelledError:
                for waiting in batch: waiting.answer.cancel()
                raise
            # whatever the work raises is the answer of all: the queue must go on
            except Exception as error: answers = [error] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True): _give(waiting.answer, answer)

    def _next(self):
        "As many as go together, those left out whose client is gone."
        batch, size = [], 0
        while self.queue and (not batch or size + self.queue[0].size <= self.most):
            waiting = self.queue.popleft()
            self.queued -= waiting.size
            if waiting.answer.done(): continue
            batch.append(waiting)
            size += waiting.size
        if not self.queue: self.came.clear()
        return batch


def _give(future, answer):
    if future.done(): return
    if isinstance(answer, Exception): future.set_exception(answer)
    else: future.set_result(answer)
