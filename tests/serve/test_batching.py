"What comes together is worked on together, each gets its own answer, and a failure stays where it is."
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastmatch.serve.batching import Batcher, Busy


def run(scenario, most=8, waiting=100):
    "Run a scenario with a batcher whose work waits until it is let go; the batches that it saw."
    batches, gate = [], threading.Event()

    def work(items):
        gate.wait(10)
        batches.append(items)
        return [ValueError(item) if item < 0 else item * 2 for item in items]

    async def carry_out():
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(work, thread, most, waiting)
            try: return await scenario(batcher, gate)
            finally:
                gate.set()
                await batcher.close()
    return asyncio.run(carry_out()), batches


def test_each_gets_its_own_answer_and_batches_grow_under_load():
    async def scenario(batcher, gate):
        asked = [asyncio.create_task(batcher.ask(item)) for item in range(20)]
        await asyncio.sleep(.05)
        gate.set()
        return await asyncio.gather(*asked)
    answers, batches = run(scenario)
    assert answers == [item * 2 for item in range(20)]
    # all came before the work began to run: eight at a time
    assert [len(batch) for batch in batches] == [8, 8, 4] and sum(batches, []) == list(range(20))


def test_one_that_fails_and_one_that_goes_away():
    async def scenario(batcher, gate):
        asked = [asyncio.create_task(batcher.ask(item)) for item in (1, -2, 3)]
        await asyncio.sleep(.05)
        late = [asyncio.create_task(batcher.ask(item)) for item in (4, 5)]
        await asyncio.sleep(0)
        late[0].cancel()
        gate.set()
        return await asyncio.gather(*asked, *late, return_exceptions=True)
    answers, batches = run(scenario)
    assert answers[0] == 2 and answers[2] == 6 and answers[4] == 10
    assert isinstance(answers[1], ValueError) and isinstance(answers[3], asyncio.CancelledError)
    assert batches == [[1, -2, 3], [5]]


def test_sizes_count():
    async def scenario(batcher, gate):
        asked = [asyncio.create_task(batcher.ask(item, size)) for item, size in enumerate((5, 4, 20, 1))]
        await asyncio.sleep(.05)
        with pytest.raises(Busy): await batcher.ask(9, 90)
        gate.set()
        await asyncio.gather(*asked)
        return await batcher.ask(7, 1000)
    answer, batches = run(scenario)
    # one larger than a batch goes alone, also where more may not wait
    assert batches == [[0], [1], [2], [3], [7]] and answer == 14


def test_work_that_raises_is_everybodys_answer_and_the_queue_goes_on():
    async def scenario():
        calls = []

        def work(items):
            calls.append(items)
            if len(calls) == 1: raise RuntimeError('broken')
            return items
        with ThreadPoolExecutor(1) as thread:
            batcher = Batcher(work, thread, 8, 8)
            with pytest.raises(RuntimeError): await batcher.ask(1)
            assert await batcher.ask(2) == 2
            await batcher.close()
    asyncio.run(scenario())


def test_who_waits_when_it_closes_is_told():
    async def scenario(batcher, gate):
        first = asyncio.create_task(batcher.ask(1))
        await asyncio.sleep(.05)
        second = asyncio.create_task(batcher.ask(2))
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(.05)
        gate.set()
        await closing
        return await asyncio.gather(first, second, return_exceptions=True)
    answers, _ = run(scenario)
    assert isinstance(answers[0], asyncio.CancelledError) and isinstance(answers[1], Busy)
