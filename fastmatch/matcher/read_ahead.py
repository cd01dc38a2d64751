"Pictures read in threads while the model works on an earlier batch."
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

AHEAD = 3  # batches whose pictures are read while the model works on an earlier one
MAX_READERS = 16  # threads that read pictures


def read_ahead(
    pictures,  # n files, images in memory or Nones
    planned_batches: list,  # int (m,) each: the rows of a batch
    read,  # Function of one picture
):
    "Yield the rows of each batch with what `read` makes of their pictures, a list."
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_READERS)) as pool:
        waiting = deque()
        for batch_number, batch_rows in enumerate(planned_batches):
            while len(waiting) <= AHEAD and batch_number + len(waiting) < len(planned_batches):
                ahead = planned_batches[batch_number + len(waiting)]
                waiting.append([pool.submit(read, pictures[row]) for row in ahead])
            yield batch_rows, [future.result() for future in waiting.popleft()]
